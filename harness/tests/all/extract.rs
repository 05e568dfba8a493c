//! `data extract` from the command line, with a network of Lite0's form whose weights mean nothing.

use std::{fs, path::Path};

use crate::common::{Output, Place};
use xmbench_datasets::random::Seed;
use xmbench_encoders::lite::LITE0;

/// Writes weights of Lite0 from a seed: names and shapes of `efficientnet_lite_pytorch`.
fn weights(path: &Path) {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut layer = |conv: &str, norm: &str, shape: [usize; 4]| {
        shapes.push((format!("{conv}.weight"), shape.to_vec()));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            shapes.push((format!("{norm}.{part}"), vec![shape[0]]));
        }
    };
    layer("_conv_stem", "_bn0", [LITE0.stem, 3, 3, 3]);
    let (mut channels, mut number) = (LITE0.stem, 0);
    for stage in &LITE0.stages {
        for _ in 0..stage.repeat {
            let at = |part: &str| format!("_blocks.{number}.{part}");
            let inner = channels * stage.expand;
            if stage.expand > 1 {
                layer(&at("_expand_conv"), &at("_bn0"), [inner, channels, 1, 1]);
            }
            layer(&at("_depthwise_conv"), &at("_bn1"), [inner, 1, stage.kernel, stage.kernel]);
            layer(&at("_project_conv"), &at("_bn2"), [stage.channels, inner, 1, 1]);
            (channels, number) = (stage.channels, number + 1);
        }
    }
    layer("_conv_head", "_bn1", [LITE0.head, channels, 1, 1]);
    shapes.push(("_fc.weight".into(), vec![LITE0.classes, LITE0.head]));
    shapes.push(("_fc.bias".into(), vec![LITE0.classes]));
    let mut stream = Seed(1).stream(&["weights"]);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, shape) in shapes {
        let begin = data.len();
        let fan: usize = shape[1..].iter().product();
        for _ in 0..shape.iter().product::<usize>() {
            let value = match shape.len() {
                1 if name.ends_with("var") => 1.0,
                1 => stream.unit(),
                _ => stream.normal() / (fan as f64).sqrt(),
            };
            data.extend((value as f32).to_le_bytes());
        }
        let entry = serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name, entry);
    }
    let header = serde_json::to_vec(&header).unwrap();
    fs::write(path, [(header.len() as u64).to_le_bytes().as_slice(), &header, &data].concat()).unwrap();
}

/// Twelve pictures, of which one is none.
fn pictures(place: &Place) {
    fs::create_dir(place.path("pictures")).unwrap();
    let mut captions = String::from("image,caption\n");
    for i in 0..12u32 {
        let mut stream = Seed(u64::from(i)).stream(&["picture"]);
        let colours: Vec<u8> = (0..48).map(|_| stream.below(256) as u8).collect();
        let colour = |x: u32, y: u32| std::array::from_fn(|c| colours[(x / 10 % 4 * 12 + y / 8 % 4 * 3) as usize + c]);
        let image = image::RgbImage::from_fn(40, 32, |x, y| image::Rgb(colour(x, y)));
        image.save(place.path(&format!("pictures/{i}.png"))).unwrap();
        captions += &format!("{i}.png,picture number {i}\n{i}.png,the {i} th\n");
    }
    fs::write(place.path("pictures/3.png"), "no picture").unwrap();
    fs::write(place.path("pictures/captions.csv"), captions).unwrap();
}

/// Asserts that what was printed, on either stream, holds each of the texts, whatever the spaces between words.
#[track_caller]
fn prints(output: &Output, texts: &[&str]) {
    let both = format!("{}\n{}", output.stdout, output.stderr);
    let words = both.split_whitespace().collect::<Vec<_>>().join(" ");
    for text in texts {
        assert!(words.contains(text), "`{text}` is not in:\n{both}");
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_folder_of_pictures_becomes_a_dataset() {
    let place = Place::new();
    weights(&place.path("w.safetensors"));
    pictures(&place);
    let extract = "data extract pictures --weights w.safetensors --grid 2 --test 0.3 --val 0.2 --near 1";
    let output = place.run(&format!("{extract} --out one --threads 1")).code(1);
    prints(
        &output,
        &[
            "one is written",
            "train 6 12",
            "dev 2 4",
            "test 3 6",
            "near duplicates (cosine 1) stay together in 11 groups",
            "1 pictures could not be used",
            "skipped: 3.png: expected a PNG, JPEG or WebP picture, found another file",
            "next: xmbench data audit precomp path=. --data-dir one",
        ],
    );
    place.run(&format!("{extract} --out two --threads 2")).code(1);
    assert_eq!(files(&place.path("one")), files(&place.path("two")));
    prints(&place.run(&format!("{extract} --out one")).code(1), &["one holds these features already"]);
    prints(
        &place.run("data show precomp path=. min_count=1 --data-dir one").code(0),
        &[
            "image global 1280",
            "image fragments 4x1280",
            "frozen efficientnet-lite0: 2x2 grid cells, not detector boxes",
        ],
    );
    let other = place.run(&format!("{extract} --out one --dtype f32")).code(2);
    other.says(&["expected a folder without features", "--fresh"]);
    let output = place.run(&format!("{extract} --out one --dtype f32 --fresh --json")).code(1);
    let manifest: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(manifest["precision"], "f32");
    assert_eq!(manifest["recipe"]["encoder"], "efficientnet-lite0");
    assert_eq!(manifest["skipped"][0]["image"], "3.png");
}

#[test]
fn wrong_usage_says_what_to_do() {
    let place = Place::new();
    weights(&place.path("w.safetensors"));
    pictures(&place);
    let run = |arguments: &str| place.run(&format!("data extract {arguments} --out out"));
    run("pictures --weights nothing.pth").code(2).says(&["cannot read nothing.pth"]);
    run("pictures --weights pictures/captions.csv").code(2).says(&["expected a .safetensors file, or a PyTorch"]);
    run("pictures --weights w.safetensors --encoder efficientnet-lite9")
        .code(2)
        .says(&["did you mean `efficientnet-lite0`?"]);
    run("pictures --weights w.safetensors --grid 8").code(2).says(&["grid: expected 0 to 7 cells a side, found 8"]);
    run("pictures --weights w.safetensors --split test").code(2).says(&["expected SPLIT=FILE"]);
    run("pictures --weights w.safetensors --split test=a --seed 2").code(2).says(&["cannot be used with"]);
    run("nowhere --weights w.safetensors").code(2).says(&["expected a folder of pictures"]);
    fs::write(place.path("captions.csv"), "image,caption\n0.png,one,two\n").unwrap();
    run("pictures --weights w.safetensors --captions captions.csv")
        .code(2)
        .says(&["captions.csv, line 2: expected 2 columns"]);
    assert!(!place.path("out").exists(), "nothing is made before there is something to write");
    prints(&place.run("data extract --help").code(0), &["captions, as people have them", "--max-megapixels"]);
}

/// The small networks of the hub that the encoders' tests have.
fn network(name: &str) -> String {
    format!("{}/../encoders/tests/transformers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A pair of towers writes both sides of the space; MiniLM's kind writes captions alone; a program without them says how to build one.
#[test]
fn networks_of_the_hub_are_a_feature() {
    let place = Place::new();
    weights(&place.path("w.safetensors"));
    pictures(&place);
    let clip = format!("data extract pictures --weights {} --grid 2 --near 1 --test 0.3 --val 0.2", network("clip"));
    let texts = format!(
        "data extract pictures --weights w.safetensors --grid 0 --near 1 --test 0.3 --val 0.2 --text-weights {}",
        network("bert")
    );
    if !cfg!(feature = "transformers") {
        for command in [clip, texts] {
            place.run(&format!("{command} --out out")).code(2).says(&["--features transformers"]);
        }
        return;
    }
    let output = place.run(&format!("{clip} --out pair")).code(1);
    prints(
        &output,
        &["captions are vectors of 16 values by clip, in the space of the pictures' in SPLIT_ims_vectors.npy"],
    );
    prints(
        &place.run("data show precomp path=. min_count=1 --data-dir pair").code(0),
        &["image global 16", "image fragments 4x32", "text global 16"],
    );
    assert!(place.path("pair/test_ims_vectors.npy").exists() && place.path("pair/test_caps_vectors.npy").exists());
    let output = place.run(&format!("{texts} --out beside")).code(1);
    prints(&output, &["captions are vectors of 32 values by bert: SPLIT_caps_vectors.npy"]);
    assert!(!place.path("beside/test_ims_vectors.npy").exists());
    let named = place.run(&format!("{clip} --encoder vit --out other")).code(2);
    named.says(&["encoder: expected the weights of `vit`, found those of `clip`"]);
}
