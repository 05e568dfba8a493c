//! What a matcher makes of items, and how two codes are compared.

use std::ops::Range;

use candle_core::{D, DType, Tensor};
use xmbench_datasets::Matrix;

use crate::{Error, Result, nn::cross::Direction};

/// The codes of a list of items.
#[derive(Debug, Clone, PartialEq)]
pub enum Codes {
    /// One real vector an item.
    Dense(Matrix),
    /// One binary code an item.
    Binary(Bits),
    /// A varying number of vectors an item.
    Fragments(Fragments),
}

/// Binary codes, packed: bit `b` of item `i` is bit `b % 64` of word `i * words_per_item + b / 64`; spare bits are zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bits {
    /// Code length in bits.
    pub bits: usize,
    /// `rows * words_per_item` words.
    pub words: Vec<u64>,
}

/// Vectors of items with different numbers of them; item `i` owns vectors `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fragments {
    /// Length of a vector.
    pub dim: usize,
    /// `items + 1` positions, counted in vectors; the first is 0.
    pub offsets: Vec<usize>,
    /// All vectors, one after another.
    pub data: Vec<f32>,
}

/// How the codes of an image and a text are compared; higher scores are better.
#[derive(Clone, Copy)]
pub enum Similarity<'a> {
    /// Cosine of dense codes; the cosine with a zero vector is 0.
    Cosine,
    /// Dot product of dense codes.
    Dot,
    /// Negative Hamming distance of binary codes.
    Hamming,
    /// A function of the pair that no index can precompute.
    Pairwise(&'a dyn PairScorer),
}

/// Scores image-text pairs shard by shard.
pub trait PairScorer: Send + Sync {
    /// Writes the scores of `images[rows]` against `texts[columns]` into `out`, row after row.
    ///
    /// # Errors
    /// If the codes are not of the kind that this scorer compares.
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()>;

    /// What else a table may say of these items' comparison, by name: shares in percent of what was left out, and the like.
    ///
    /// # Errors
    /// As [`PairScorer::score`].
    fn measures(&self, _images: &Codes, _texts: &Codes) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    /// What it looked at to compare an image with a text, step after step; nothing if it has no attention to show.
    ///
    /// # Errors
    /// As [`PairScorer::score`].
    fn attention(&self, _images: &Codes, _image: usize, _texts: &Codes, _text: usize) -> Result<Vec<AttentionMap>> {
        Ok(Vec::new())
    }
}

/// Checks that there is room for the scores of so many images and texts.
///
/// # Errors
/// If there is not.
pub fn has_room(out: &[f32], images: usize, texts: usize) -> Result<()> {
    if out.len() == images * texts {
        return Ok(());
    }
    Err(Error::Numeric(format!("expected room for {images} times {texts} scores, found {}", out.len())))
}

/// How much each vector of one side saw of each of the other, for one image and one text.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionMap {
    /// Which step, of which branch; empty where there is only one.
    pub title: String,
    /// Which side asks.
    pub asks: Direction,
    /// Vectors that answer.
    pub answers: usize,
    /// Weights, a row of [`AttentionMap::answers`] for each vector that asks.
    pub weights: Vec<f32>,
}

impl AttentionMap {
    /// Of weights `[.., q, c]` of one pair.
    ///
    /// # Errors
    /// If the tensor cannot be read.
    pub fn of(title: impl Into<String>, asks: Direction, weights: &Tensor) -> Result<Self> {
        let answers = weights.dim(D::Minus1)?;
        let weights = weights.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { title: title.into(), asks, answers, weights })
    }
}

impl Codes {
    /// Number of items.
    pub fn len(&self) -> usize {
        match self {
            Self::Dense(matrix) => matrix.rows,
            Self::Binary(bits) => bits.len(),
            Self::Fragments(fragments) => fragments.len(),
        }
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the codes of one item take on average.
    pub fn bytes_per_item(&self) -> f64 {
        let bytes = match self {
            Self::Dense(matrix) => matrix.data.len() * 4,
            Self::Binary(bits) => bits.len() * bits.bits.div_ceil(8),
            Self::Fragments(fragments) => fragments.data.len() * 4,
        };
        bytes as f64 / self.len().max(1) as f64
    }
}

impl Bits {
    /// Words that one code of this length takes.
    pub fn words_per_item(&self) -> usize {
        self.bits.div_ceil(64)
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.words.len() / self.words_per_item()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Packs the signs of real codes: a bit is set where the value is above zero.
    pub fn from_signs(real: &Matrix) -> Self {
        let per_item = real.cols.div_ceil(64);
        let mut words = vec![0u64; real.rows * per_item];
        for i in 0..real.rows {
            for (b, &value) in real.row(i).iter().enumerate() {
                words[i * per_item + b / 64] |= u64::from(value > 0.0) << (b % 64);
            }
        }
        Self { bits: real.cols, words }
    }

    /// The packed code of an item.
    pub fn item(&self, i: usize) -> &[u64] {
        let per_item = self.words_per_item();
        &self.words[i * per_item..(i + 1) * per_item]
    }
}

impl Fragments {
    /// The largest number that [`Fragments::numbers`] takes: up to it every whole number is an f32.
    pub const LARGEST: usize = 1 << 24;

    /// Items that are numbers: fragments of width 1, one an item; none if a number is larger than [`Fragments::LARGEST`].
    pub fn numbers(numbers: impl IntoIterator<Item = usize>) -> Option<Self> {
        let exact = |number: usize| (number <= Self::LARGEST).then_some(number as f32);
        let data: Vec<f32> = numbers.into_iter().map(exact).collect::<Option<_>>()?;
        Some(Self { dim: 1, offsets: (0..=data.len()).collect(), data })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of vectors of an item.
    pub fn count(&self, i: usize) -> usize {
        self.offsets[i + 1] - self.offsets[i]
    }

    /// The vectors of an item, one after another.
    pub fn item(&self, i: usize) -> &[f32] {
        &self.data[self.offsets[i] * self.dim..self.offsets[i + 1] * self.dim]
    }
}
