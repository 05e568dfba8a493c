//! Embeddings, codes and scores that "another program" made: our own methods, fitted in this process and written to files. A row
//! of such files is the method's own row to the last bit, and files that are not what they should be are told with a line.

use std::{fs, path::Path, sync::atomic::AtomicBool};

use crate::common::{self, Place, cells, floats, npy};
use xmbench::{
    protocol::Protocol,
    record::{Recording, Trial},
    run::validate,
};
use xmbench_datasets::{Dataset, random::Seed};
use xmbench_methods::{Bits, Codes, Matcher, Run, Similarity, Training, method::Silent, registry};

/// Codes as files have them: real numbers, or packed bits with the highest bit of a byte first.
fn file(codes: &Codes) -> Vec<u8> {
    match codes {
        Codes::Dense(matrix) => floats([matrix.rows, matrix.cols], matrix.data.iter().copied()),
        Codes::Binary(bits) => {
            let bytes = bits.bits.div_ceil(8);
            let item = |i: usize| bits.item(i).iter().flat_map(|word| word.to_le_bytes()).take(bytes);
            let data: Vec<u8> = (0..bits.len()).flat_map(item).map(u8::reverse_bits).collect();
            npy("|u1", [bits.len(), bytes], &data)
        }
        Codes::Fragments(_) => panic!("fragments are compared by scores"),
    }
}

const DATASET: &str = "{ name = 'planted-fragments', train = 120, val = 30, test = 40 }";

fn dataset() -> Dataset {
    xmbench_datasets::open("planted-fragments", &toml::toml! { train = 120 val = 30 test = 40 }, None).unwrap()
}

const METHODS: [(&str, &str); 4] = [
    ("cca", "components = 6"),
    ("vse", "embedding = 32\nword = 16\nepochs = 2\nbatch = 32"),
    ("scan", "embedding = 32\nword = 16\nepochs = 1\nbatch = 32"),
    ("djsrh", "bits = 20\ntext_hidden = 64\nepochs = 2"),
];

/// A method fitted as the harness fits it.
fn fitted(name: &str, params: &str, seed: u64, dataset: &Dataset) -> Box<dyn Matcher> {
    let method = registry::find(name).unwrap();
    let params = method.resolve(&params.parse().unwrap()).unwrap();
    let (stop, mut silent, protocol) = (AtomicBool::new(false), Silent, Protocol::pairs());
    let val = dataset.val.as_ref().unwrap();
    let judge = |matcher: &dyn Matcher| validate(matcher, val, &protocol);
    let mut run = Run { judge: Some(&judge), ..Run::new(Seed(seed), &mut silent, &stop) };
    method.fit(&Training::of(dataset), &params, &mut run).unwrap()
}

/// Writes what a method makes of the test split, images and texts in these orders.
fn export(matcher: &dyn Matcher, dataset: &Dataset, folder: &Path, stem: &str) {
    let (images, texts) = (&dataset.test.images, &dataset.test.texts);
    let (i, t) = (matcher.encode_images(images).unwrap(), matcher.encode_texts(texts).unwrap());
    if let Similarity::Pairwise(scorer) = matcher.similarity() {
        let mut scores = vec![0.0; i.len() * t.len()];
        scorer.score(&i, 0..i.len(), &t, 0..t.len(), &mut scores).unwrap();
        return fs::write(folder.join(format!("{stem}-s.npy")), floats([i.len(), t.len()], scores)).unwrap();
    }
    fs::write(folder.join(format!("{stem}-i.npy")), file(&i)).unwrap();
    fs::write(folder.join(format!("{stem}-t.npy")), file(&t)).unwrap();
}

fn row<'a>(recording: &'a Recording, label: &str, seed: u64) -> &'a Trial {
    let found = recording.trials.iter().find(|trial| trial.label == label && trial.seed == seed);
    found.unwrap_or_else(|| panic!("no row {label}"))
}

#[test]
fn files_of_our_own_methods_give_their_rows_to_the_last_bit() {
    let place = Place::new();
    let dataset = dataset();
    let mut text = format!(
        "title = 'x'\nseeds = [1, 2]\ncolumns = ['i2t R@1', 'rsum']\nprotocol = {{ task = {{ kind = 'pairs' }} }}\ndatasets = [{DATASET}]\n"
    );
    fs::create_dir(place.path("ours")).unwrap();
    for (name, params) in METHODS {
        for seed in [1, 2] {
            let matcher = fitted(name, params, seed, &dataset);
            export(&*matcher, &dataset, &place.path("ours"), &format!("{name}{seed}"));
        }
        text += &format!("[[methods]]\nmethod = '{name}'\nlabel = '{name}'\n{params}\n");
        let files = match name {
            "scan" => "scores = 'ours/scan{seed}-s.npy'".to_string(),
            _ => format!("images = 'ours/{name}{{seed}}-i.npy'\ntexts = 'ours/{name}{{seed}}-t.npy'"),
        };
        let similarity = if name == "djsrh" { "similarity = 'hamming'\ncode_bits = 20" } else { "" };
        text += &format!("[[methods]]\nmethod = 'given'\nlabel = 'given {name}'\n{files}\n{similarity}\n");
    }
    for of in ["", "given "] {
        text += &format!("[[ensembles]]\nlabel = '{of}both'\nof = ['{of}vse', '{of}scan']\n");
        text += &format!("[[rerank]]\nlabel = '{of}stages'\nfirst = '{of}vse'\nsecond = '{of}scan'\nshortlist = 5\n");
    }
    place.write("a.toml", &text);
    place.run("run a.toml --profile smoke --out out").code(0);
    let recording = place.recording("out");
    for name in METHODS.map(|(name, _)| name).into_iter().chain(["both", "stages"]) {
        for seed in [1, 2] {
            let (own, given) = (row(&recording, name, seed), row(&recording, &format!("given {name}"), seed));
            assert_eq!(cells(own), cells(given), "{name}, seed {seed}");
            assert_ne!(own.id, given.id);
        }
    }
    let given = row(&recording, "given vse", 2);
    assert!(given.remark.contains("made elsewhere"), "{}", given.remark);
    assert_eq!(given.params["images"], "ours/vse{seed}-i.npy");
    assert_eq!(given.params["sha256"]["images"].as_str().map(str::len), Some(64));
    assert_ne!(given.params["sha256"]["images"], row(&recording, "given vse", 1).params["sha256"]["images"]);
    // Nothing changed: nothing runs. A file changed: its rows run again, and those that are made of them.
    let again = place.run("run a.toml --profile smoke --out out --no-report --json").code(0).json();
    assert_eq!(again["done"], 0, "{again}");
    fs::copy(place.path("ours/vse1-i.npy"), place.path("ours/vse2-i.npy")).unwrap();
    let again = place.run("run a.toml --profile smoke --out out --no-report --json").code(0).json();
    assert_eq!(again["done"], 3, "{again}");
}

/// Embeddings of `rows` items in the plane: small whole numbers, some rows equal.
fn embeddings(rows: usize) -> Vec<f32> {
    (0..2 * rows).map(|i| ((i * i + 3 * i) % 17) as f32 - 8.0).collect()
}

/// A place with embeddings of the 40 images and 80 texts of the test split, and `given` on them as the entry says.
fn given(entry: &str) -> Place {
    let place = Place::new();
    for (name, rows) in [("i.npy", 40), ("t.npy", 80)] {
        fs::write(place.path(name), floats([rows, 2], embeddings(rows))).unwrap();
    }
    let text = format!(
        "title = 'x'\nseeds = [1]\nprotocol = {{ task = {{ kind = 'pairs' }} }}\ndatasets = [{DATASET}]\n[[methods]]\nmethod = 'given'\n{entry}\n"
    );
    place.write("a.toml", &text);
    place
}

const FILES: &str = "images = 'i.npy'\ntexts = 't.npy'";

#[test]
fn rows_are_found_by_their_ids_in_any_order_and_number() {
    let dataset = dataset();
    let (images, texts) = (&dataset.test.images.ids, &dataset.test.texts.ids);
    assert_eq!((images.len(), texts.len()), (40, 80));
    let place = given(&format!("label = 'in order'\n{FILES}"));
    let (u, v) = (embeddings(40), embeddings(80));
    // Backwards, behind a row of nobody.
    let back = |values: &[f32]| [vec![9.0, 9.0], values.chunks(2).rev().flatten().copied().collect()].concat();
    let ids = |ids: &[String]| format!("nobody\n{}\n", ids.iter().rev().cloned().collect::<Vec<_>>().join("\n"));
    fs::write(place.path("iback.npy"), floats([41, 2], back(&u))).unwrap();
    fs::write(place.path("tback.npy"), floats([81, 2], back(&v))).unwrap();
    place.write("i.txt", &ids(images)).write("t.txt", &ids(texts));
    // The same as scores of pairs: dot products, which are exact here.
    let dots = |u: &[f32], v: &[f32]| -> Vec<f32> {
        u.chunks(2).flat_map(|u| v.chunks(2).map(move |v| u[0] * v[0] + u[1] * v[1])).collect()
    };
    fs::write(place.path("s.npy"), floats([40, 80], dots(&u, &v))).unwrap();
    fs::write(place.path("sback.npy"), floats([41, 81], dots(&back(&u), &back(&v)))).unwrap();
    let ids = "image_ids = 'i.txt'\ntext_ids = 't.txt'";
    let text = fs::read_to_string(place.path("a.toml")).unwrap()
        + &[
            format!("label = 'by id'\nimages = 'iback.npy'\ntexts = 'tback.npy'\n{ids}"),
            format!("label = 'dot'\n{FILES}\nsimilarity = 'dot'"),
            "label = 'scores'\nscores = 's.npy'".into(),
            format!("label = 'scores by id'\nscores = 'sback.npy'\n{ids}"),
            format!("label = 'l2'\n{FILES}\nsimilarity = 'l2'"),
        ]
        .map(|entry| format!("[[methods]]\nmethod = 'given'\n{entry}\n"))
        .concat();
    place.write("a.toml", &text);
    place.run("run a.toml --profile smoke --no-report --out out").code(0);
    let recording = place.recording("out");
    let cells = |label: &str| common::cells(row(&recording, label, 1));
    assert_eq!(cells("in order"), cells("by id"));
    assert_eq!(cells("dot"), cells("scores"));
    assert_eq!(cells("dot"), cells("scores by id"));
    assert_ne!(cells("dot"), cells("in order"));
    // R@1 of l2, counted: of the texts that are nearest to an image, the share that is its own.
    let nearest = |image: usize| {
        let far = |text: usize| (u[2 * image] - v[2 * text]).powi(2) + (u[2 * image + 1] - v[2 * text + 1]).powi(2);
        let least = (0..80).map(far).fold(f32::INFINITY, f32::min);
        let first: Vec<usize> = (0..80).filter(|&text| far(text) == least).collect();
        let own = dataset.test.pairs.texts_of(image);
        first.iter().filter(|&&text| own.contains(&(text as u32))).count() as f64 / first.len() as f64
    };
    let expected = 100.0 * (0..40).map(nearest).sum::<f64>() / 40.0;
    let found = row(&recording, "l2", 1).metrics["i2t R@1"];
    assert!(expected > 0.0 && (found - expected).abs() < 1e-9, "{found}, expected {expected}");
}

/// What a run says of a spoilt place, with the place's name taken out.
fn failure(entry: &str, code: i32, spoil: impl FnOnce(&Place)) -> String {
    let place = given(entry);
    spoil(&place);
    let output = place.run("run a.toml --profile smoke --no-report --out out").code(code);
    let said = format!("{}{}", output.stderr, output.stdout);
    let line = said.lines().rfind(|line| line.contains("expected")).unwrap_or_else(|| panic!("{said}"));
    // Without the name of the trial and the time that it took.
    let line = line.split_once("failed: ").map_or(line, |(_, reason)| reason);
    line.rsplit_once(" (").filter(|(_, time)| time.ends_with(" s)")).map_or(line, |(reason, _)| reason).to_owned()
}

#[test]
fn files_that_are_not_what_they_should_be_are_told_with_a_line() {
    let write = |name: &'static str, bytes: Vec<u8>| move |place: &Place| fs::write(place.path(name), bytes).unwrap();
    let ids = "images = 'i.npy'\ntexts = 't.npy'\nimage_ids = 'ids.txt'";
    let all = dataset().test.images.ids;
    let lines = |ids: &[String]| (ids.join("\n") + "\n").into_bytes();
    let mut said = String::new();
    let mut case = |what: &str, entry: &str, code: i32, spoil: &dyn Fn(&Place)| {
        said += &format!("{what}: {}\n", failure(entry, code, spoil));
    };
    let short: Vec<f32> = vec![1.0; 78];
    case("a row too few", FILES, 1, &|place| write("i.npy", floats([39, 2], short.clone()))(place));
    let mut nan = vec![1.0; 160];
    nan[13] = f32::NAN;
    case("NaN", FILES, 1, &|place| write("t.npy", floats([80, 2], nan.clone()))(place));
    case("whole numbers", FILES, 1, &|place| write("i.npy", npy("<i8", [40, 2], &[0; 640]))(place));
    case("bytes", FILES, 1, &|place| write("i.npy", npy("|u1", [40, 2], &[7; 80]))(place));
    let mut fortran = floats([40, 2], [1.0; 80]);
    let at = fortran.windows(5).position(|word| word == b"False").unwrap();
    fortran[at..at + 5].copy_from_slice(b"True ");
    case("Fortran order", FILES, 1, &|place| write("i.npy", fortran.clone())(place));
    case("another width", FILES, 1, &|place| write("i.npy", floats([40, 3], [1.0; 120]))(place));
    let mut other = all.clone();
    other[7] = "another".into();
    case("an id that is missing", ids, 1, &|place| write("ids.txt", lines(&other))(place));
    let mut twice = all.clone();
    twice[7] = twice[3].clone();
    case("an id twice", ids, 1, &|place| write("ids.txt", lines(&twice))(place));
    case("an id too few", ids, 1, &|place| write("ids.txt", lines(&all[1..]))(place));
    case("no file", "images = 'i.npy'\ntexts = 'u.npy'", 2, &|_| {});
    case("no file of a seed", "images = 'i{seed}.npy'\ntexts = 't.npy'", 2, &|_| {});
    case("one side", "images = 'i.npy'", 2, &|_| {});
    case("a control", &format!("{FILES}\nshuffled = true"), 1, &|_| {});
    case("turned scores", "scores = 's.npy'", 1, &|place| write("s.npy", floats([80, 40], [0.5; 3200]))(place));
    case("half codes", &format!("{FILES}\nsimilarity = 'hamming'"), 1, &|_| {});
    insta::assert_snapshot!(said);
}

#[test]
fn packed_codes_and_signs_give_the_same_distances() {
    let sign = |i: usize| if (i * i / 3 + i / 7).is_multiple_of(2) { 1.0 } else { -1.0 };
    for bits in [16, 21, 70] {
        let place = given(&format!("label = 'packed'\n{FILES}\nsimilarity = 'hamming'\ncode_bits = {bits}"));
        for (side, rows) in [("i", 40), ("t", 80)] {
            let signs: Vec<f32> = (0..rows * bits).map(sign).collect();
            let zeros = signs.iter().map(|sign| (sign + 1.0) / 2.0);
            let matrix = xmbench_datasets::Matrix { rows, cols: bits, data: signs.clone() };
            let packed = file(&Codes::Binary(Bits::from_signs(&matrix)));
            fs::write(place.path(&format!("{side}.npy")), packed).unwrap();
            fs::write(place.path(&format!("zeros-{side}.npy")), floats([rows, bits], zeros)).unwrap();
            fs::write(place.path(&format!("signs-{side}.npy")), floats([rows, bits], signs)).unwrap();
        }
        let mut text = fs::read_to_string(place.path("a.toml")).unwrap();
        for name in ["signs", "zeros"] {
            text += &format!(
                "[[methods]]\nmethod = 'given'\nlabel = '{name}'\nimages = '{name}-i.npy'\ntexts = '{name}-t.npy'\nsimilarity = 'hamming'\n"
            );
        }
        place.write("a.toml", &text);
        place.run("run a.toml --profile smoke --no-report --out out").code(0);
        let recording = place.recording("out");
        let cells = |label: &str| common::cells(row(&recording, label, 1));
        assert_eq!(cells("packed"), cells("signs"), "{bits} bits");
        assert_eq!(cells("packed"), cells("zeros"), "{bits} bits");
    }
}

/// A protocol that searches another split than it scores reads a file of each.
#[test]
fn a_file_a_split_serves_a_protocol_that_searches_another() {
    let place = Place::new();
    let options = toml::toml! { train = 60 val = 10 test = 20 };
    let dataset = xmbench_datasets::open("planted-clusters", &options, None).unwrap();
    let matcher = fitted("cca", "components = 4", 1, &dataset);
    for (split, collection) in dataset.splits() {
        let codes = [
            ("i", matcher.encode_images(&collection.images).unwrap()),
            ("t", matcher.encode_texts(&collection.texts).unwrap()),
        ];
        for (name, codes) in codes {
            fs::write(place.path(&format!("{split}-{name}.npy")), file(&codes)).unwrap();
        }
    }
    let text = "title = 'x'\nseeds = [1]\nprotocol = { task = { kind = 'category', gallery = 'train' } }\n\
                datasets = [{ name = 'planted-clusters', train = 60, val = 10, test = 20 }]\n\
                [[methods]]\nmethod = 'cca'\ncomponents = 4\n\
                [[methods]]\nmethod = 'given'\nimages = '{split}-i.npy'\ntexts = '{split}-t.npy'\n\
                [[methods]]\nmethod = 'given'\nlabel = 'one'\nimages = 'test-i.npy'\ntexts = 'test-t.npy'\n";
    place.write("a.toml", text);
    let output = place.run("run a.toml --profile smoke --no-report --out out").code(1);
    let recording = place.recording("out");
    assert_eq!(cells(row(&recording, "CCA", 1)), cells(row(&recording, "Given", 1)));
    output.says(&["that the protocol asks for the train split", "write {split} into the path"]);
}
