//! Codes that training items have of both their modalities, equation (6) of [`super`].

use std::{collections::BTreeMap, path::Path};

use faer::Mat;
use xmbench_datasets::{Images, Matrix, Texts};

use super::super::linear::{self, Linear};
use crate::{Bits, Codes, Error, Matcher, Result, Similarity, linalg::store::Store};

/// Entry of the file that names the items of a modality.
const KEYS: [&str; 2] = ["unified.image", "unified.text"];

/// The codes of the training items of one modality. An item is known by its identifier and by its features: other splits
/// may count from 0, too.
pub(super) struct Unified {
    /// Row of `codes` by identifier and check sum of the features.
    rows: BTreeMap<(String, u64), usize>,
    /// `[items, bits]` of -1 and 1.
    codes: Mat<f64>,
}

impl Unified {
    /// The signs of the mean `factor [pairs, bits]` of each item's pairs; items without a pair have none.
    pub fn of(ids: &[String], vectors: &Matrix, paired: impl Iterator<Item = u32>, factor: &Mat<f64>) -> Self {
        let mut sums = Mat::<f64>::zeros(ids.len(), factor.ncols());
        let mut known = vec![false; ids.len()];
        for (pair, item) in paired.enumerate() {
            known[item as usize] = true;
            (0..factor.ncols()).for_each(|j| sums[(item as usize, j)] += factor[(pair, j)]);
        }
        let codes = Mat::from_fn(sums.nrows(), sums.ncols(), |i, j| if sums[(i, j)] > 0.0 { 1.0 } else { -1.0 });
        let rows = ids.iter().enumerate().filter(|(i, _)| known[*i]);
        Self { rows: rows.map(|(i, id)| ((id.clone(), sum_of(vectors.row(i))), i)).collect(), codes }
    }

    /// Puts the codes of known items in place of theirs.
    fn set(&self, bits: &mut Bits, ids: &[String], vectors: &Matrix) {
        let words = bits.words_per_item();
        for (i, id) in ids.iter().enumerate() {
            let Some(&row) = self.rows.get(&(id.clone(), sum_of(vectors.row(i)))) else { continue };
            let item = &mut bits.words[i * words..][..words];
            item.fill(0);
            (0..bits.bits).for_each(|b| item[b / 64] |= u64::from(self.codes[(row, b)] > 0.0) << (b % 64));
        }
    }

    fn write(&self, store: Store, key: &str) -> Store {
        let rows: Vec<(&str, String, usize)> =
            self.rows.iter().map(|((id, sum), &row)| (id.as_str(), format!("{sum:016x}"), row)).collect();
        let text = serde_json::to_string(&rows).expect("strings and numbers are JSON");
        store.with_matrix(key, self.codes.as_ref()).with_text(key, text)
    }

    /// Those of both modalities, if the file has any.
    pub fn read(store: &Store) -> Result<Option<[Self; 2]>> {
        match store.has(KEYS[0]) {
            true => Ok(Some([Self::read_one(store, KEYS[0])?, Self::read_one(store, KEYS[1])?])),
            false => Ok(None),
        }
    }

    fn read_one(store: &Store, key: &str) -> Result<Self> {
        let (codes, text) = (store.matrix(key)?, store.text(key)?);
        let wrong = |found: String| Error::Format {
            file: "a saved cmfh matcher".into(),
            expected: format!("`{key}` as a list of identifier, check sum and row"),
            found,
        };
        let listed: Vec<(String, String, usize)> = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        let mut rows = BTreeMap::new();
        for (id, sum, row) in listed {
            let sum = u64::from_str_radix(&sum, 16).map_err(|error| wrong(error.to_string()))?;
            if row >= codes.nrows() {
                return Err(wrong(format!("row {row} of {}", codes.nrows())));
            }
            rows.insert((id, sum), row);
        }
        Ok(Self { rows, codes })
    }
}

/// FNV-1a over the bytes of a vector: the same on every machine.
fn sum_of(vector: &[f32]) -> u64 {
    vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A matcher that knows its training items.
pub(super) struct Collective {
    pub linear: Linear,
    pub unified: [Unified; 2],
}

impl Matcher for Collective {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        let vectors = self.linear.inputs.images(images)?;
        let mut bits = linear::signs(&self.linear.images.apply(&vectors)?);
        self.unified[0].set(&mut bits, &images.ids, &vectors);
        Ok(Codes::Binary(bits))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        let vectors = self.linear.inputs.texts(texts)?;
        let mut bits = linear::signs(&self.linear.texts.apply(&vectors)?);
        self.unified[1].set(&mut bits, &texts.ids, &vectors);
        Ok(Codes::Binary(bits))
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Hamming
    }

    fn unified(&self) -> bool {
        true
    }

    fn save(&self, to: &Path) -> Result<()> {
        let [images, texts] = &self.unified;
        let store = images.write(self.linear.write(Store::default()), KEYS[0]);
        linear::close(&texts.write(store, KEYS[1]), to)
    }
}
