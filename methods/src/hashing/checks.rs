//! What the tests of this family share.

use std::sync::{Arc, atomic::AtomicBool};

use candle_core::Device;
use xmbench_datasets::{Collection, Images, Matrix, Pairs, Texts, random::Seed};

use crate::{Bits, Codes, Matcher, Method, Result, Run, Training, method::Silent};

/// Image `i` and text `i` belong together.
pub(super) fn collection(images: Matrix, texts: Matrix) -> Collection {
    let n = images.rows;
    let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(images)), ..Images::default() },
        texts: Texts { ids, global: Some(Arc::new(texts)), ..Texts::default() },
        pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
    }
}

/// A matrix of values by row and column.
pub(super) fn matrix(rows: usize, cols: usize, value: impl Fn(usize, usize) -> f64) -> Matrix {
    let data = (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))).map(|(i, j)| value(i, j) as f32).collect();
    Matrix { rows, cols, data }
}

/// Standard normal numbers.
pub(super) fn noise(label: &str, rows: usize, cols: usize) -> Matrix {
    let mut stream = Seed(11).stream(&["hashing", label]);
    Matrix { rows, cols, data: (0..rows * cols).map(|_| stream.normal() as f32).collect() }
}

pub(super) fn fitted(method: &dyn Method, train: &Collection, table: &toml::Table) -> Result<Box<dyn Matcher>> {
    let training = Training { dataset: "toy", train, val: None, vocabulary: 0, classes: 0 };
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    method.fit(&training, table, &mut Run::new(Seed(1), &mut silent, &stop))
}

/// Codes of images and of texts.
pub(super) fn codes(matcher: &dyn Matcher, items: &Collection) -> [Bits; 2] {
    [matcher.encode_images(&items.images), matcher.encode_texts(&items.texts)].map(|codes| match codes.unwrap() {
        Codes::Binary(bits) => bits,
        _ => panic!("binary codes"),
    })
}

/// Bit `b` of item `i`.
pub(super) fn bit(bits: &Bits, i: usize, b: usize) -> bool {
    bits.item(i)[b / 64] >> (b % 64) & 1 == 1
}

/// What is saved and loaded encodes to the same bits.
pub(super) fn saving_keeps_every_bit(method: &dyn Method, matcher: &dyn Matcher, items: &Collection) {
    let folder = tempfile::tempdir().unwrap();
    matcher.save(folder.path()).unwrap();
    let loaded = method.load(folder.path(), &Device::Cpu).unwrap();
    assert_eq!(codes(matcher, items), codes(&*loaded, items));
}
