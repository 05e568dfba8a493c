use std::fs;

use super::*;
use crate::{Error, npy};

fn vocabulary(words: &[&str]) -> Vec<String> {
    crate::text::SPECIAL.iter().chain(words).map(|&word| word.to_owned()).collect()
}

/// Reads a file of that name and content for the words `red`, `ice cream` and `plum`.
fn read(name: &str, content: &[u8]) -> std::result::Result<WordVectors, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    let text = |error: Error| error.to_string().replace(&folder.path().display().to_string(), "DIR");
    files::read(&path, name, &vocabulary(&["red", "ice cream", "plum"])).map_err(text)
}

#[test]
fn texts_in_every_dialect_give_the_same_vectors() {
    let glove = read("a.txt", b"the 9 9\nice cream 0.5 -2e-1\nred 1 2\nred 7 7\n").unwrap();
    assert_eq!(glove.known, [false, false, false, false, true, true, false]);
    assert_eq!((glove.rows.row(4), glove.rows.row(5)), ([1.0, 2.0].as_slice(), [0.5, -0.2].as_slice()));
    assert_eq!((glove.rows.row(6), glove.count()), ([0.0, 0.0].as_slice(), 2));
    let same = |name: &str, content: &[u8]| assert_eq!(read(name, content).unwrap().rows, glove.rows, "{name}");
    // fastText: a line of counts first, and a blank behind the last value. A word in Latin-1 is skipped.
    same("a.vec", b"4 2\nthe 9 9 \nr\xe9d 3 3\nice cream 0.5 -0.2 \nred 1 2 \n");
    let mut binary = b"3 2\n".to_vec();
    for (word, values) in [("the", [9.0f32, 9.0]), ("ice_", [0.0, 0.0]), ("red", [1.0, 2.0])] {
        binary.extend(format!("{word} ").bytes());
        values.iter().for_each(|value| binary.extend(value.to_le_bytes()));
        binary.push(b'\n');
    }
    let word2vec = read("a.bin", &binary).unwrap();
    assert_eq!((word2vec.rows.row(4), word2vec.count()), ([1.0, 2.0].as_slice(), 1));
}

#[test]
fn a_table_has_its_words_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("v.npy");
    npy::tests::write(&path, &[3, 2], npyz::Order::C, &[9.0f32, 9.0, 1.0, 2.0, 0.5, -0.2]);
    fs::write(folder.path().join("v.txt"), "the\nred\nice cream\n").unwrap();
    let words = vocabulary(&["red", "plum"]);
    let read = files::read(&path, "v.npy", &words).unwrap();
    assert_eq!((read.rows.row(4), read.count()), ([1.0, 2.0].as_slice(), 1));
    fs::write(folder.path().join("v.txt"), "the\nred\n").unwrap();
    let error = files::read(&path, "v.npy", &words).unwrap_err().to_string();
    assert!(error.contains("v.txt: expected a word a line for each of the 3 rows of"), "{error}");
    assert!(error.contains("found 2 lines"), "{error}");
}

#[test]
fn errors_name_line_and_word() {
    let error = |name: &str, content: &[u8]| read(name, content).unwrap_err();
    insta::assert_snapshot!(error("a.txt", b"the 1 2\nred 1\n"), @"DIR/a.txt, line 2: expected a word and 2 values as in the lines before, found 2 fields; get the file again");
    insta::assert_snapshot!(error("a.txt", b"the 1 2\nred 1 x\n"), @"DIR/a.txt, line 2: expected 2 numbers behind `red`, found something else; get the file again");
    insta::assert_snapshot!(error("a.txt", b"red 1 nan\n"), @"DIR/a.txt, word `red`: expected finite numbers, found NaN; get the file again");
    insta::assert_snapshot!(error("a.txt", b"Red 1 2\n"), @"DIR/a.txt: expected vectors of some of the 3 words of the dataset, found none of them; take vectors of the captions' language, with words in lower case");
    insta::assert_snapshot!(error("a.txt", b""), @"DIR/a.txt: expected vectors of some of the 3 words of the dataset, found none of them; take vectors of the captions' language, with words in lower case");
    insta::assert_snapshot!(error("a.txt", b"red\n"), @"DIR/a.txt, line 1: expected a word and 1 to 4096 values, found 1 fields; get the file again");
    insta::assert_snapshot!(error("a.bin", b"9 9\nred "), @"DIR/a.bin, line 1: expected numbers that the file's length bears out, found 9 words of 9 values in 8 bytes; get the file again, or convert it to text");
    insta::assert_snapshot!(error("a.bin", b"1 1\nred 12"), @"DIR/a.bin, word 1 of 1: expected its values, found the end of the file; get the file again, or convert it to text");
    insta::assert_snapshot!(error("a.bin", b"red 1\n"), @"DIR/a.bin, line 1: expected the numbers of words and of values, found `red 1`; get the file again, or convert it to text");
    insta::assert_snapshot!(error("a.json", b"{}"), @"word_vectors: expected a file .txt, .vec, .bin or .npy, found `a.json`; name a file that ends so, or `none`");
}

#[test]
fn the_vectors_inside_the_program_are_those_of_glove() {
    let words = vocabulary(&["apple", "pear", "screwdriver", "xyzzyx"]);
    let vectors = glove(&words);
    assert_eq!(vectors.known, [false, false, false, false, true, true, true, false]);
    // The first values of `apple` in glove.6B.100d.txt.
    let expected = [-0.5985, -0.46321, 0.13001, -0.019576];
    assert!(vectors.rows.row(4).iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 3e-4));
    let cosine = |a: usize, b: usize| {
        let dot = |a: usize, b: usize| -> f32 {
            vectors.rows.row(a).iter().zip(vectors.rows.row(b)).map(|(a, b)| a * b).sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    assert!(cosine(4, 5) > cosine(4, 6) + 0.1, "{} {}", cosine(4, 5), cosine(4, 6));
    assert_eq!((VALUES.len(), WORDS.lines().count()), (2 * WIDTH * WORDS.lines().count(), WORDS.lines().count()));
    assert!(WORDS.lines().is_sorted());
}

#[test]
fn vectors_enter_the_checksum_and_every_split() {
    let open = |table: toml::Table| crate::open("emoji", &table, None).unwrap();
    let (with, without) = (open(toml::Table::new()), open(toml::toml! { word_vectors = "none" }));
    assert_ne!(with.checksum, without.checksum);
    assert!(without.train.texts.word_vectors.is_none());
    for (_, split) in with.splits() {
        let vectors = split.texts.word_vectors.as_ref().unwrap();
        assert_eq!((vectors.rows.rows, vectors.rows.cols), (with.words.len(), 100));
        assert!(vectors.count() * 10 > with.words.len() * 8, "{vectors:?}");
    }
    let missing = crate::open("emoji", &toml::toml! { word_vectors = "v.txt" }, None).unwrap_err().to_string();
    assert!(missing.contains("--data-dir"), "{missing}");
    let away = crate::open("emoji", &toml::toml! { word_vectors = "../v.txt" }, Some(Path::new("/data"))).unwrap_err();
    assert!(away.to_string().starts_with("word_vectors: expected a path within the data folder"), "{away}");
}
