use std::{fs, sync::atomic::AtomicBool};

use xmbench_datasets::random::Seed;

use super::*;
use crate::{method::Silent, registry};

/// A NumPy file of one type, two axes.
fn npy(descr: &str, shape: [usize; 2], data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}, {}), }}", shape[0], shape[1]);
    let mut out = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    out.extend(format!("{header:<117}\n").bytes());
    out.extend(data);
    out
}

fn floats(shape: [usize; 2], values: &[f32]) -> Vec<u8> {
    npy("<f4", shape, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>())
}

fn items(n: usize, split: Option<Split>) -> (Images, Texts) {
    let ids: Vec<String> = (0..n).map(|i| format!("{i}")).collect();
    (Images { ids: ids.clone(), split, ..Images::default() }, Texts { ids, split, ..Texts::default() })
}

fn fit(table: &toml::Table, seed: u64) -> Result<Box<dyn Matcher>> {
    let dataset = xmbench_datasets::open("planted-linear", &toml::toml! { train = 8 val = 0 test = 4 }, None)?;
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    Given.fit(&Training::of(&dataset), &Given.resolve(table)?, &mut Run::new(Seed(seed), &mut silent, &stop))
}

fn table(pairs: &[(&str, &str)]) -> toml::Table {
    pairs.iter().map(|(key, value)| (key.to_string(), toml::Value::from(*value))).collect()
}

#[test]
fn it_is_found_by_name_and_not_among_what_is_fitted() {
    assert!(registry::find("given").is_some());
    assert!(registry::methods().all(|method| method.card().name != "given"));
    let card = Given.card();
    let known = Given.resolve(&toml::Table::new()).unwrap();
    let mut keys: Vec<&String> = known.keys().collect();
    keys.sort();
    assert!(keys.into_iter().eq(card.parameters.keys()));
    for (key, parameter) in &card.parameters {
        assert!(!parameter.doc.is_empty() && !parameter.range.is_empty() && !parameter.paper.is_empty(), "{key}");
    }
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let said = |pairs: &[(&str, &str)]| Given.resolve(&table(pairs)).unwrap_err().to_string();
    for (pairs, expected) in [
        (vec![("images", "i")], "`texts`: expected a file beside `images`, found none"),
        (vec![("texts", "t")], "`images`: expected a file beside `texts`"),
        (vec![("similarity", "dot")], "`images`: expected files of `images` and `texts`, or of `scores`"),
        (vec![("images", "i"), ("scores", "s")], "`scores`: expected nothing beside"),
        (vec![("scores", "{split}.npy")], "`scores`: expected one matrix"),
        (vec![("scores", "s"), ("similarity", "euclid")], "`similarity`"),
        (vec![("image", "i")], "did you mean `images`?"),
    ] {
        let found = said(&pairs);
        assert!(found.contains(expected), "{pairs:?}: {found}");
    }
    let mut bits = table(&[("images", "i"), ("texts", "t")]);
    bits.insert("code_bits".into(), 4.into());
    assert!(Given.resolve(&bits).unwrap_err().to_string().contains("`code_bits`"));
    assert!(Given.resolve(&toml::Table::new()).is_ok());
}

#[test]
fn a_seed_has_its_own_file_and_a_saved_matcher_knows_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for seed in [1, 2] {
        fs::write(at(&format!("i{seed}.npy")), floats([2, 2], &[seed as f32, 0.0, 0.0, 1.0])).unwrap();
    }
    fs::write(at("t.npy"), floats([2, 2], &[1.0, 0.0, 0.0, 1.0])).unwrap();
    let place = |name: &str| at(name).to_str().unwrap().to_owned();
    let table = table(&[("images", &place("i{seed}.npy")), ("texts", &place("t.npy"))]);
    let (images, texts) = items(2, Some(Split::Test));
    let first = |matcher: &dyn Matcher| match matcher.encode_images(&images).unwrap() {
        Codes::Dense(matrix) => matrix.data[0],
        other => panic!("{other:?}"),
    };
    let matcher = fit(&table, 2).unwrap();
    assert_eq!((first(&*fit(&table, 1).unwrap()), first(&*matcher)), (1.0, 2.0));
    assert_eq!(matcher.encode_texts(&texts).unwrap().len(), 2);
    let saved = at("saved");
    fs::create_dir(&saved).unwrap();
    matcher.save(&saved).unwrap();
    let loaded = Given.load(&saved, &Device::Cpu).unwrap();
    assert_eq!(loaded.encode_images(&images).unwrap(), matcher.encode_images(&images).unwrap());
    fs::write(at("i2.npy"), floats([2, 2], &[3.0, 0.0, 0.0, 1.0])).unwrap();
    let error = Given.load(&saved, &Device::Cpu).err().unwrap().to_string();
    assert!(
        error.contains("expected files as they were when it was saved") && error.contains("i2.npy changed"),
        "{error}"
    );
}

#[test]
fn scores_are_looked_up_by_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.npy");
    let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
    fs::write(&path, floats([3, 4], &values)).unwrap();
    let matcher = fit(&table(&[("scores", path.to_str().unwrap())]), 1).unwrap();
    let images = matcher.encode_images(&items(3, None).0).unwrap();
    let texts = matcher.encode_texts(&items(4, None).1).unwrap();
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("scores are of pairs") };
    let mut out = [0.0; 4];
    scorer.score(&images, 1..3, &texts, 2..4, &mut out).unwrap();
    assert_eq!(out, [6.0, 7.0, 10.0, 11.0]);
    // Columns in another order, as a shortlist has them.
    let listed = Codes::Fragments(Fragments { dim: 1, offsets: vec![0, 1, 2], data: vec![3.0, 0.0] });
    scorer.score(&images, 0..2, &listed, 0..2, &mut out).unwrap();
    assert_eq!(out, [3.0, 0.0, 7.0, 4.0]);
    let far = Codes::Fragments(Fragments { dim: 1, offsets: vec![0, 1], data: vec![4.0] });
    assert!(scorer.score(&images, 0..1, &far, 0..1, &mut [0.0]).unwrap_err().to_string().contains("below 4, found 4"));
}

#[test]
fn row_numbers_are_exact_or_refused() {
    let most = Fragments::LARGEST;
    let Codes::Fragments(fragments) = numbers(&[0, most - 1, most]).unwrap() else { panic!("fragments") };
    assert_eq!(fragments.data.iter().map(|&number| number as usize).collect::<Vec<_>>(), [0, most - 1, most]);
    assert!(numbers(&[most + 1]).unwrap_err().to_string().ends_with("up to 16777216, found 16777217"));
}

#[test]
fn bits_are_packed_from_either_end_and_signs_are_told_from_other_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let read = |bytes: Vec<u8>, bits: usize| {
        fs::write(&path, bytes).unwrap();
        let array = Array::open(path.to_str().unwrap()).unwrap();
        codes::binary(&array, &[0, 1], bits).map_err(|error| error.to_string())
    };
    // 12 bits: 1100 0000 1010 and 0011 1111 0101, the highest bit first, then the lowest.
    let high = read(npy("|u1", [2, 2], &[0b1100_0000, 0b1010_0000, 0b0011_1111, 0b0101_0000]), 12).unwrap();
    let low = read(npy("|u1", [2, 2], &[0b0000_0011, 0b0000_0101, 0b1111_1100, 0b0000_1010]), 12).unwrap();
    assert_eq!(high, low);
    assert_eq!((high.bits, high.words), (12, vec![0b0101_0000_0011, 0b1010_1111_1100]));
    let signs = [1.0, 1.0, -1.0, -1.0, -1.0, 1.0];
    assert_eq!(read(floats([2, 3], &signs), 0).unwrap().words, [0b011, 0b100]);
    assert_eq!(read(npy("|i1", [2, 3], &[1, 1, 0, 0, 0, 1]), 3).unwrap().words, [0b011, 0b100]);
    let said = |bytes: Vec<u8>, bits: usize| read(bytes, bits).unwrap_err();
    assert!(
        said(floats([2, 2], &[1.0, -1.0, 0.0, 1.0]), 0)
            .contains("row 1, column 0: expected codes of +1 and -1, or of 1 and 0, found 0 beside -1")
    );
    assert!(said(floats([2, 1], &[1.0, 0.25]), 0).contains("found 0.25"));
    assert!(said(npy("|u1", [2, 2], &[1, 0, 0, 1]), 0).contains("look like single bits"));
    assert!(
        said(npy("|u1", [2, 2], &[9, 3, 3, 9]), 24).contains("expected 3 bytes for codes of 24 bits, found 2 bytes")
    );
    assert!(said(npy("|u1", [2, 1], &[0xff, 3]), 5).contains("spare bits"));
}

#[test]
fn which_rows_are_meant_is_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("i.npy"), floats([2, 1], &[1.0, 2.0])).unwrap();
    fs::write(at("val.npy"), floats([2, 1], &[3.0, 4.0])).unwrap();
    fs::write(at("ids.txt"), "1\n0\n").unwrap();
    let one = fit(&table(&[("images", &at("i.npy")), ("texts", &at("i.npy"))]), 1).unwrap();
    let said = one.encode_images(&items(2, Some(Split::Val)).0).unwrap_err().to_string();
    assert!(said.contains("that the protocol asks for the val split") && said.contains("`image_ids`"), "{said}");
    let ids = ("image_ids", &*at("ids.txt"));
    let by_id = fit(&table(&[("images", &at("i.npy")), ("texts", &at("i.npy")), ids]), 1).unwrap();
    let data = |codes: Codes| match codes {
        Codes::Dense(matrix) => matrix.data,
        other => panic!("{other:?}"),
    };
    // By id in any split, in the order that is asked for, some or all.
    assert_eq!(data(by_id.encode_images(&items(2, Some(Split::Val)).0).unwrap()), [2.0, 1.0]);
    assert_eq!(data(by_id.encode_images(&items(1, None).0).unwrap()), [2.0]);
    let split = fit(&table(&[("images", &at("{split}.npy")), ("texts", &at("i.npy"))]), 1).unwrap();
    assert_eq!(data(split.encode_images(&items(2, Some(Split::Val)).0).unwrap()), [3.0, 4.0]);
    assert!(split.encode_images(&items(2, Some(Split::Test)).0).unwrap_err().to_string().contains("test.npy"));
}
