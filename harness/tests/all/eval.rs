//! `xmbench eval`: files of an independent program, held against an independent calculation (`data/eval/make.py`), and what is said
//! of files that do not fit together.

use std::{fs, path::Path};

use crate::common::{Output, Place, floats};
use serde_json::Value;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/eval");

/// A place with the files of the independent program.
fn place() -> Place {
    let place = Place::new();
    for name in ["images.npy", "texts.npy", "labels.txt"] {
        fs::copy(Path::new(DATA).join(name), place.path(name)).unwrap();
    }
    place
}

/// Every metric that was calculated independently and is measured here: equal up to the rounding of single precision, which moves no
/// rank of these.
#[track_caller]
fn equal(output: &Output, expected: &Value) -> usize {
    let json = output.json();
    let mut compared = 0;
    for (name, found) in json["metrics"].as_object().unwrap() {
        if let Some(expected) = expected[name].as_f64() {
            let found = found.as_f64().unwrap();
            assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{name}: {found}, expected {expected}");
            compared += 1;
        }
    }
    compared
}

#[test]
fn metrics_are_those_of_an_independent_calculation() {
    let place = place();
    let expected: Value = serde_json::from_slice(&fs::read(Path::new(DATA).join("expected.json")).unwrap()).unwrap();
    let files = "--images images.npy --texts texts.npy --json -";
    for similarity in ["cosine", "dot", "l2"] {
        let pairs = place.run(&format!("eval {files} --similarity {similarity}")).code(0);
        assert_eq!(equal(&pairs, &expected[similarity]), 11, "{}", pairs.stdout);
        let classes = place.run(&format!("eval {files} --similarity {similarity} --labels labels.txt")).code(0);
        assert_eq!(equal(&classes, &expected[similarity]), 2, "{}", classes.stdout);
    }
}

#[test]
fn a_table_says_protocol_and_numbers_of_items_and_becomes_latex() {
    let place = place();
    let output =
        place.run("eval --images images.npy --texts texts.npy --latex t.tex --json t.json --name Wine").code(0);
    for text in [
        "| Wine ",
        "gallery the whole test split",
        "ties: expected value over all orders",
        "nothing is selected",
        "60 images, 60 texts, 1 text an image; cosine",
        "xmbench eval --images images.npy",
    ] {
        assert!(output.stdout.contains(text), "`{text}` is not in\n{}", output.stdout);
    }
    let tex = fs::read_to_string(place.path("t.tex")).unwrap();
    assert!(tex.contains("\\begin{tabular}") && tex.contains("Wine &") && tex.contains("\\bottomrule"), "{tex}");
    let json: Value = serde_json::from_slice(&fs::read(place.path("t.json")).unwrap()).unwrap();
    assert_eq!((&json["images"], &json["captions"]), (&60.into(), &1.into()));
    // A random order finds one of 60 at first.
    assert!((json["chance"]["i2t R@1"].as_f64().unwrap() - 100.0 / 60.0).abs() < 1e-9);
}

/// Three captions an image, in closed form: images are unit vectors, and of each image's captions the second is its own vector, the
/// others are those of the next image and of none.
#[test]
fn captions_belong_to_the_images_in_their_order() {
    let place = Place::new();
    let unit = |at: usize| (0..5).map(move |axis| f32::from(axis == at));
    fs::write(place.path("i.npy"), floats([4, 5], (0..4).flat_map(unit))).unwrap();
    let captions = (0..4).flat_map(|image| [(image + 1) % 4, image, 4]);
    fs::write(place.path("t.npy"), floats([12, 5], captions.flat_map(unit))).unwrap();
    let json = place.run("eval --images i.npy --texts t.npy --captions 3 --cutoffs 1,2 --json -").code(0).json();
    let metric = |name: &str| json["metrics"][name].as_f64().unwrap();
    // An image's own second caption ties with its predecessor's first one: half a hit at 1, a hit at 2.
    assert_eq!((metric("i2t R@1"), metric("i2t R@2")), (50.0, 100.0));
    // First captions rank another image first and tie with two more; third ones tie with all four.
    let at = |k: f64| 100.0 * (1.0 + (k - 1.0) / 3.0 + k / 4.0) / 3.0;
    assert!((metric("t2i R@1") - at(1.0)).abs() < 1e-9 && (metric("t2i R@2") - at(2.0)).abs() < 1e-9, "{json}");
    assert_eq!(json["envelope"]["i2t R@1"], serde_json::json!([0.0, 100.0]));
    // The same scores as a matrix.
    let score = |image: usize, text: usize| f32::from([(text / 3 + 1) % 4, text / 3, 4][text % 3] == image);
    let scores = (0..4).flat_map(|image| (0..12).map(move |text| score(image, text)));
    fs::write(place.path("s.npy"), floats([4, 12], scores)).unwrap();
    let same = place.run("eval --scores s.npy --cutoffs 1,2 --json -").code(0).json();
    assert_eq!(same["metrics"], json["metrics"]);
}

#[test]
fn files_that_do_not_fit_together_are_told_with_a_line() {
    let place = Place::new();
    fs::write(place.path("i.npy"), floats([4, 2], (0..8).map(|i| i as f32))).unwrap();
    fs::write(place.path("t.npy"), floats([8, 2], (0..16).map(|i| i as f32))).unwrap();
    fs::write(place.path("odd.npy"), floats([7, 2], (0..14).map(|i| i as f32))).unwrap();
    fs::write(place.path("wide.npy"), floats([8, 3], (0..24).map(|i| i as f32))).unwrap();
    place.write("l.txt", "a\nb\n");
    let said = |arguments: &str, texts: &[&str]| drop(place.run(&format!("eval {arguments}")).code(2).says(texts));
    said(
        "--images i.npy --texts t.npy --captions 5",
        &["t.npy: expected 20 texts, 5 for each of 4 images (--captions), found 8"],
    );
    said("--images i.npy --texts odd.npy", &["expected as many texts for each of 4 images, found 7"]);
    said("--images i.npy --texts wide.npy", &["wide.npy: expected 2 columns, as in", "i.npy, found 3"]);
    said("--images i.npy --texts none.npy", &["none.npy"]);
    said("--images i.npy --texts t.npy --labels l.txt", &["l.txt: expected 4 lines", "found 2"]);
    said("--images i.npy --texts t.npy --similarity cos", &["`similarity`", "cos"]);
    said("--images i.npy --texts t.npy --cutoffs 0", &["cutoffs"]);
    said("--images i.npy", &["--texts"]);
    said("--images i.npy --texts t.npy --scores s.npy", &["cannot be used with"]);
}
