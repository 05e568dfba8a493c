//! The page's data, unpacked again, say what was kept; and nothing that others wrote is markup.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;
use crate::{protocol::Query, record::synthetic};

/// Four queries of texts for three images, three of images for four texts; the second text ties two images.
fn found() -> Vec<Found> {
    let one = |direction, query, item, score, rank, own| Found { direction, query, item, score, rank, own };
    let (i2t, t2i) = (Direction::I2t, Direction::T2i);
    vec![
        one(i2t, 0, 2, 0.5, 1.0, false),
        one(i2t, 0, 0, 0.25, 2.0, true),
        one(i2t, 0, 1, -1.5, 4.0, true),
        one(t2i, 1, 0, 2.5, 1.5, true),
        one(t2i, 1, 2, 2.5, 1.5, false),
        one(t2i, 1, 1, 0.0, 3.0, false),
    ]
}

fn trial(label: &str, folder: &Path) -> Trial {
    let mut trial = synthetic::trial("01-recall", 0, label, "f8k", 1);
    let standing = |direction, query, better, tied, own| Query {
        direction,
        query,
        cluster: 0,
        better,
        tied,
        own,
        average_precision: f64::NAN,
    };
    trial.queries = vec![
        standing(Direction::I2t, 0, 1, 1, 1),
        standing(Direction::I2t, 1, 0, 1, 1),
        standing(Direction::I2t, 2, 0, 1, 1),
        standing(Direction::T2i, 0, 0, 1, 1),
        standing(Direction::T2i, 1, 0, 2, 1),
        standing(Direction::T2i, 2, 0, 1, 1),
        standing(Direction::T2i, 3, 0, 1, 1),
    ];
    trial.kept = Some(kept::write(folder, &trial.id, &found()).unwrap());
    trial
}

fn unpacked<const N: usize>(text: &Value) -> Vec<[u8; N]> {
    let bytes = STANDARD.decode(text.as_str().unwrap()).unwrap();
    bytes.chunks_exact(N).map(|chunk| chunk.try_into().unwrap()).collect()
}

#[test]
fn packed_lists_say_what_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let trial = trial("CCA", folder.path());
    let sizes = ([3, 4], [3, 4]);
    let own = own_items(&found(), sizes.0);
    assert_eq!((own[0][0].as_slice(), own[1][1].as_slice()), (&[0, 1][..], &[0][..]));
    let row = row(&trial, &found(), Some(&own), sizes);
    let [i2t, t2i] = [0, 1].map(|at| &row["sides"][at]);
    // A gallery of three has lists of three.
    assert_eq!((i2t["shown"].as_u64(), t2i["shown"].as_u64()), (Some(4), Some(3)));
    let items: Vec<u16> = unpacked(&t2i["items"]).into_iter().map(u16::from_le_bytes).collect();
    assert_eq!(items, [[u16::MAX; 3], [0, 2, 1], [u16::MAX; 3], [u16::MAX; 3]].concat());
    let scores: Vec<u16> = unpacked(&i2t["scores"]).into_iter().map(u16::from_le_bytes).collect();
    // From -1.5 to 0.5: 0.25 is seven eighths of the way.
    assert_eq!(scores[..3], [65535, 57343, 0]);
    assert_eq!((i2t["low"].as_f64(), i2t["high"].as_f64()), (Some(-1.5), Some(0.5)));
    assert_eq!(STANDARD.decode(i2t["marks"].as_str().unwrap()).unwrap(), [0b110, 0, 0]);
    let reals = |text: &Value| unpacked(text).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
    assert_eq!(reals(&i2t["ranks"]), [2.0, 1.0, 1.0]);
    assert_eq!(reals(&t2i["ranks"]), [1.0, 1.5, 1.0, 1.0]);
    assert_eq!(reals(&i2t["each"]), [2.0, 4.0]);
    let lists = packed_lists(&own[0]);
    let starts: Vec<u32> = unpacked(&lists["starts"]).into_iter().map(u32::from_le_bytes).collect();
    assert_eq!(starts, [0, 2, 2, 2]);
}

#[test]
fn the_page_is_the_recording_s_and_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let mut recording = synthetic::recording();
    let source = Source { folder: folder.path(), data: None };
    // Nothing was kept: no page.
    assert!(page(&recording, source).unwrap().is_none());
    recording.trials = ["CCA", "</script><script>alert(1)</script>"].map(|label| trial(label, folder.path())).to_vec();
    recording.manifest.experiments.get_mut("01-recall").unwrap().title = "<img src=x onerror=alert(2)>\u{202e}".into();
    let text = page(&recording, source).unwrap().unwrap();
    assert_eq!(text, page(&recording, source).unwrap().unwrap());
    // What is written by others stands in one block, in which nothing ends it.
    assert_eq!(text.matches("</script>").count(), 2);
    assert!(!text.contains("<img") && !text.contains('\u{202e}') && text.contains("\\u003c/script\\u003e"));
    let (_, rest) = text.split_once("id=\"data\">").unwrap();
    let data: Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    assert_eq!(data["sets"][0]["rows"][1]["name"], "</script><script>alert(1)</script>");
    assert_eq!(data["sets"][0]["absent"], "the recording does not say how its dataset was opened");
    // The addresses of the page's text: the policy lets nothing be asked for, and links wait for a click.
    assert!(text.contains("default-src &#39;none&#39;"));
    // A file that is not what its trial promises.
    let path = kept::path(folder.path(), &recording.trials[0].id);
    std::fs::write(&path, b"PAR1").unwrap();
    let error = page(&recording, source).unwrap_err().to_string();
    assert!(error.contains("is damaged: expected the SHA-256 of the trial"), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(page(&recording, source).unwrap_err().to_string().contains("cannot read"));
}

#[test]
fn equations_are_those_of_the_sources() {
    let (_, path, line, text) = EQUATIONS.iter().find(|(name, ..)| *name == "scan").expect("a method with equations");
    assert_eq!(*path, "methods/src/attention/scan.rs");
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap();
    let first = text.lines().next().unwrap();
    assert_eq!(source.lines().nth(line - 1), Some(format!("//! {first}").as_str()));
    assert!(text.contains("(1)") && !text.contains("```"));
    // Every method that is fitted here has some, or says so here.
    let without: Vec<&str> = xmbench_methods::registry::methods()
        .map(|method| method.card().name.as_str())
        .filter(|name| !EQUATIONS.iter().any(|(known, ..)| known == name))
        .collect();
    assert_eq!(without, Vec::<&str>::new());
}
