//! What the program says to bad input: each message names what is wrong, what was expected, what was found and what to do.
//! Together they stand in one snapshot, to be read as a user would.

use std::fmt::Write as _;

use crate::common::{EXPERIMENT, Place};

/// A NumPy file of little-endian f32.
fn npy(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

const WIDTH: usize = 4;
const COUNTS: [(&str, usize); 3] = [("train", 12), ("dev", 4), ("test", 4)];

/// Features of `images` images, no two alike.
fn features(images: usize) -> Vec<f32> {
    (0..images * WIDTH).map(|i| ((i * i + 3 * i) % 17) as f32 - 8.0).collect()
}

/// A folder `features` that is sound.
fn sound(place: &Place) {
    for (split, images) in COUNTS {
        std::fs::create_dir_all(place.path("features")).unwrap();
        std::fs::write(place.path(&format!("features/{split}_ims.npy")), npy(&[images, WIDTH], &features(images)))
            .unwrap();
        let captions: String = (0..images).map(|i| format!("{split} picture of {} things\n", i % 4)).collect();
        place.write(&format!("features/{split}_caps.txt"), &captions);
    }
}

const PRECOMP: &str = r#"
title = "Own features"
seeds = [1]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "precomp", path = "features", min_count = 1 }]
methods = [{ method = "cca", components = 2 }]
"#;

/// A case of its own place: spoils what is sound, and runs a command.
struct Log(String);

impl Log {
    fn case(&mut self, what: &str, command: &str, code: i32, spoil: impl FnOnce(&Place)) {
        let place = Place::new();
        sound(&place);
        place.write("own.toml", PRECOMP).write("planted.toml", EXPERIMENT);
        spoil(&place);
        let output = place.run(command).code(code);
        let said = [output.stdout, output.stderr].concat();
        // Progress tells nothing about the input, unless it is of a failure.
        let said: Vec<&str> = said.lines().filter(|line| !line.starts_with('[') || line.contains("failed")).collect();
        writeln!(self.0, "# {what}\n$ xmbench {command}   -> {code}\n{}\n", said.join("\n")).unwrap();
    }
}

#[test]
fn messages_to_bad_input() {
    let mut log = Log(String::new());
    let file =
        |name: &'static str, bytes: Vec<u8>| move |place: &Place| std::fs::write(place.path(name), bytes).unwrap();
    let own = "run own.toml --data-dir . --no-report --out out";

    let whole = npy(&[12, WIDTH], &features(12));
    let cut = whole[..whole.len() - 10].to_vec();
    log.case("a feature file that ends early", own, 2, file("features/train_ims.npy", cut));
    log.case("a file that is none", own, 2, file("features/train_ims.npy", b"hello, world".to_vec()));
    let hostile = npy(&[1 << 40, 1 << 30], &features(1));
    log.case("a header that promises more than there is", own, 2, file("features/train_ims.npy", hostile));
    let narrow = npy(&[4, 3], &features(3));
    log.case("another width in another split", own, 2, file("features/test_ims.npy", narrow));
    let mut values = features(12);
    values[5 * WIDTH + 2] = f32::NAN;
    let nan = npy(&[12, WIDTH], &values);
    log.case("NaN in the features", own, 1, file("features/train_ims.npy", nan.clone()));
    let audit = "data audit precomp path=features --data-dir .";
    log.case("NaN in the features, looked for", audit, 1, file("features/train_ims.npy", nan));
    let mut values = features(4);
    values[..WIDTH].fill(0.0);
    log.case("a zero vector", audit, 1, file("features/test_ims.npy", npy(&[4, WIDTH], &values)));
    log.case("an empty caption", own, 2, file("features/dev_caps.txt", b"one\n\nthree\nfour\n".to_vec()));
    log.case("captions that no image has", own, 2, file("features/dev_caps.txt", b"one\ntwo\nthree\n".to_vec()));
    log.case("text of another encoding", own, 2, file("features/dev_caps.txt", b"caf\xe9\n2\n3\n4\n".to_vec()));
    log.case("a split that is missing", own, 2, |place| {
        std::fs::remove_file(place.path("features/test_ims.npy")).unwrap();
    });
    log.case("a gallery of one", own, 0, |place| {
        file("features/test_ims.npy", npy(&[1, WIDTH], &features(1)))(place);
        place.write("features/test_caps.txt", "one thing\n");
    });
    log.case("a split of another size than the literature's", &format!("{audit} --expect test=1000"), 1, |_| ());
    log.case("data that are not there", "run 03-wiki-correlation --out out", 2, |_| ());
    log.case("a damaged MAT file", "run 03-wiki-correlation --data-dir . --out out", 2, |place| {
        for name in ["trainset_txt_img_cat.list", "testset_txt_img_cat.list", "categories.list"] {
            place.write(&format!("wiki/{name}"), "text\timage\t1\n");
        }
        place.write("wiki/raw_features.mat", "MATLAB 5.0 MAT-file");
    });

    let planted = "run planted.toml --out out";
    let toml = |from: &'static str, to: &'static str| {
        move |place: &Place| {
            place.write("planted.toml", &EXPERIMENT.replace(from, to));
        }
    };
    log.case("an experiment that is no TOML", planted, 2, toml("seeds = [1, 2, 3]", "seeds = [1, 2"));
    log.case("an unknown key", planted, 2, toml("seeds =", "seds ="));
    log.case("an unknown parameter", planted, 2, toml("components", "dimensions"));
    log.case("a parameter of another type", planted, 2, toml("components = [2, 8]", "components = \"many\""));
    log.case("a parameter out of range", planted, 2, toml("components = [2, 8]", "ridge = -1.0"));
    log.case("an option of a dataset that it does not have", planted, 2, |place| {
        place.write("planted.toml", &EXPERIMENT.replace("\"planted-linear\"", "\"planted-linear\"\nlatents = 3"));
    });
    log.case("labels that the dataset lacks", own, 1, |place| {
        place.write("own.toml", &PRECOMP.replace("\"pairs\"", "\"category\""));
    });

    log.case("a golden file that ends early", "verify --golden golden", 1, |place| {
        place.write("golden/cca.linear__cut.safetensors", "\u{40}\0\0\0\0\0\0\0{\"__metadata__\":");
    });
    log.case("a folder without golden files", "verify --golden features", 2, |_| ());
    log.case("a recording that is not there", "report --recording nowhere", 2, |_| ());
    log.case("a claim that nobody makes", "claims gain-flickr3k", 2, |_| ());
    log.case("a folder that is a file", "run planted.toml --out planted.toml", 2, |_| ());
    insta::assert_snapshot!(log.0);
}
