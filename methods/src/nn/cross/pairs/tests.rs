use candle_core::Var;
use xmbench_datasets::random::Seed;

use super::{
    super::{Aggregation, Attention, Norm, Relevance, relevance_from_grams, similarities},
    *,
};
use crate::loss::{Relations, hinge};

const ATTENTION: Attention = Attention { norm: Norm::ClippedL2norm, lambda_softmax: 9.0 };
const MEAN: Relevance = Relevance { aggregation: Aggregation::Mean, lambda_lse: 1.0 };

/// Cross attention after a layer on the words.
#[derive(Clone)]
struct Turned {
    direction: Direction,
    layer: Tensor,
}

impl Interaction for Turned {
    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        Ok(vec![images.grams()?])
    }

    fn texts(&self, texts: &Padded) -> Result<Vec<Tensor>> {
        let (n, most, d) = texts.vectors().dims3()?;
        let turned = texts.vectors().reshape((n * most, d))?.matmul(&self.layer)?.reshape((n, most, d))?;
        Ok(vec![turned])
    }

    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let turned = Side { items: texts.items.with(&texts.made[0])?, made: Vec::new() };
        let block = Block::new(self.direction, images, &turned, pairing)?;
        let s = similarities(&block.contexts.items, &block.queries)?;
        let weights = ATTENTION.weights(&s, block.asked.as_ref(), block.seen.as_ref())?;
        let grams = match self.direction {
            Direction::T2i => images.made[0].clone(),
            Direction::I2t => turned.items.grams()?,
        };
        let r = relevance_from_grams(&s, &weights, &grams, &super::super::norms(&block.queries)?)?;
        block.scores(&MEAN.aggregate(&r, block.asked.as_ref())?)
    }

    fn weights(&self) -> Vec<Tensor> {
        vec![self.layer.clone()]
    }
}

fn drawn(label: &str, shape: &[usize]) -> Var {
    let mut stream = Seed(7).stream(&[label]);
    let values: Vec<f64> = (0..shape.iter().product()).map(|_| stream.normal()).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap()
}

/// The largest difference.
fn apart(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn tiles_and_recomputed_pairs_give_what_one_graph_gives() {
    // More than a tile of both sides, and texts of one word to nine.
    let lengths = Lengths::new((0..20).map(|j| 1 + (5 * j) % 9)).unwrap();
    let (images, words) = (drawn("images", &[20, 5, 6]), drawn("words", &[lengths.total(), 6]));
    let layer = drawn("layer", &[6, 6]);
    for direction in [Direction::T2i, Direction::I2t] {
        let turned = Turned { direction, layer: layer.as_tensor().clone() };
        let whole = {
            let images = Side::images(&turned, Padded::full(&images).unwrap()).unwrap();
            let texts = Side::texts(&turned, Padded::packed(&words, &lengths).unwrap()).unwrap();
            turned.scores(&images, &texts, Pairing::Every).unwrap()
        };
        let tiled = interact(&turned, &images, &words, &lengths).unwrap();
        assert_eq!(tiled.dims(), [20, 20]);
        assert!(apart(&whole, &tiled) < 1e-12, "{direction:?}");
        let dense = drawn("cotangent", &[20, 20]);
        let losses = [
            |scores: &Tensor, dense: &Tensor| (scores * dense).unwrap().sum_all().unwrap(),
            // All scores of the first tiles, and one image's of the next ones.
            |scores: &Tensor, dense: &Tensor| {
                let first = |all: &Tensor| all.narrow(0, 0, 5).unwrap();
                (first(scores) * first(dense)).unwrap().sum_all().unwrap()
            },
            |scores: &Tensor, _: &Tensor| hinge(scores, 0.2, true, &Relations::diagonal(20)).unwrap(),
        ];
        for loss in losses {
            let expected = loss(&whole, &dense).backward().unwrap();
            let found = loss(&tiled, &dense).backward().unwrap();
            for var in [&images, &words, &layer] {
                let (expected, found) = (expected.get(var).unwrap(), found.get(var).unwrap());
                assert!(expected.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap() > 1e-3);
                assert!(apart(expected, found) < 1e-11, "{direction:?}: {:?}", var.dims());
            }
        }
    }
}

#[test]
fn a_scorer_gives_every_block_of_the_gallery() {
    let turned = Turned { direction: Direction::T2i, layer: drawn("layer", &[6, 6]).to_dtype(DType::F32).unwrap() };
    let scorer = InteractionScorer { interaction: turned, device: Device::Cpu };
    let make = |label: &str, counts: &[usize]| {
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(counts.iter().scan(0, |end, n| {
                *end += n;
                Some(*end)
            }))
            .collect();
        let data = drawn(label, &[offsets[counts.len()] * 6]).to_vec1::<f64>().unwrap();
        Codes::Fragments(Fragments { dim: 6, offsets, data: data.into_iter().map(|x| x as f32).collect() })
    };
    let images = make("images", &[3, 1, 4, 2, 3, 3, 3, 3, 2, 1, 3]);
    let texts = make("texts", &(0..40).map(|j| 1 + j % 6).collect::<Vec<_>>());
    let mut all = vec![0.0; 11 * 40];
    scorer.score(&images, 0..11, &texts, 0..40, &mut all).unwrap();
    for (i, j) in [(0, 0), (1, 39), (9, 17), (10, 5)] {
        let mut one = [0.0];
        scorer.score(&images, i..i + 1, &texts, j..j + 1, &mut one).unwrap();
        assert!((one[0] - all[i * 40 + j]).abs() < 1e-6, "{i}, {j}: {} and {}", one[0], all[i * 40 + j]);
    }
    let mut part = vec![0.0; 3 * 7];
    scorer.score(&images, 4..7, &texts, 20..27, &mut part).unwrap();
    assert!((part[8] - all[5 * 40 + 21]).abs() < 1e-6);
    let error = scorer.score(&images, 0..1, &texts, 0..2, &mut [0.0]).unwrap_err().to_string();
    assert!(error.contains("room for 1 times 2 scores, found 1"), "{error}");
}
