use anyhow::Result;
use candle_core::{Device, Tensor};
use xmbench_datasets::random::Seed;
use xmbench_methods::{
    Codes, Fragments, PairScorer,
    nn::{
        Lengths,
        cross::{
            Aggregation, Attention, Contexts, CrossAttention, CrossScorer, Direction, Norm, Relevance, batch_scores,
        },
    },
};

use super::{Row, Sizes};
use crate::run::timing::{Effort, sample};

/// Regions of every image.
const REGIONS: usize = 36;

/// Images and texts of a block of tensors, as many as a training step compares.
const BLOCK: usize = 128;

/// Words ask regions, with the released code's settings.
const SETTINGS: CrossAttention = CrossAttention {
    direction: Direction::T2i,
    attention: Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 },
    relevance: Relevance { aggregation: Aggregation::LogSumExp, lambda_lse: 6.0 },
};

/// What is scored: vectors one after another, and how many each text has, from 8 to 18.
struct Items {
    regions: Vec<f32>,
    words: Vec<f32>,
    lengths: Vec<usize>,
}

impl Items {
    fn new(sizes: &Sizes) -> Self {
        let [images, texts] = sizes.scored;
        let lengths: Vec<usize> = (0..texts).map(|text| 8 + (text * 7) % 11).collect();
        let vectors = |label, count| unit_vectors(label, count, sizes.dim);
        Self { regions: vectors("regions", images * REGIONS), words: vectors("words", lengths.iter().sum()), lengths }
    }
}

/// Vectors of unit length, as the encoders make them.
fn unit_vectors(label: &str, count: usize, dim: usize) -> Vec<f32> {
    let mut stream = Seed(5).stream(&["speed", label]);
    let mut data: Vec<f32> = (0..count * dim).map(|_| stream.normal() as f32).collect();
    for vector in data.chunks_exact_mut(dim) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    data
}

/// Scoring as search and evaluation do it: a function of the pair, on the processor.
pub fn matcher(sizes: &Sizes, effort: Effort) -> Result<Row> {
    let ([images, texts], Items { regions, words, lengths }) = (sizes.scored, Items::new(sizes));
    let fragments = |data: Vec<f32>, lengths: &[usize]| {
        let mut offsets = vec![0];
        lengths.iter().for_each(|length| offsets.push(offsets[offsets.len() - 1] + length));
        Codes::Fragments(Fragments { dim: sizes.dim, data, offsets })
    };
    let (left, right) = (fragments(regions, &vec![REGIONS; images]), fragments(words, &lengths));
    let scorer = CrossScorer { settings: SETTINGS, form: Contexts::Gram };
    let mut out = vec![0f32; images * texts];
    let samples = sample(effort, |_| scorer.score(&left, 0..images, &right, 0..texts, &mut out))?;
    Ok(Row::new(format!("SCAN scoring, {images} x {texts}, as a matcher"), "cpu", (images * texts, "pairs"), samples))
}

/// The same scores as a training step makes them, block by block on the device: one operation on the processor, composed of
/// tensor operations elsewhere.
pub fn tensors((device, name): (&Device, &str), sizes: &Sizes, effort: Effort) -> Result<Row> {
    let ([images, texts], Items { regions, words, lengths }) = (sizes.scored, Items::new(sizes));
    let regions = Tensor::from_vec(regions, (images, REGIONS, sizes.dim), device)?;
    let words = Tensor::from_vec(words, ((), sizes.dim), device)?;
    let lengths = Lengths::new(lengths)?;
    let score = |_: usize| -> Result<()> {
        for from in (0..images).step_by(BLOCK) {
            let some = regions.narrow(0, from, BLOCK.min(images - from))?;
            for first in (0..texts).step_by(BLOCK) {
                let last = (first + BLOCK).min(texts);
                let (start, end) = (lengths.range(first).start, lengths.range(last - 1).end);
                let part = Lengths::new(lengths.as_slice()[first..last].iter().copied())?;
                batch_scores(&SETTINGS, &some, &words.narrow(0, start, end - start)?, &part)?;
            }
        }
        Ok(device.synchronize()?)
    };
    let samples = sample(effort, score)?;
    Ok(Row::new(format!("SCAN scoring, {images} x {texts}, as in training"), name, (images * texts, "pairs"), samples))
}
