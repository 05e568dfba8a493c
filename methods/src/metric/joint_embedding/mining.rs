//! Which negatives of a batch count.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use crate::{
    Result,
    loss::{DistanceWeighted, Relation, Relations},
};

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mining {
    /// Every one.
    All,
    /// The hardest.
    Hardest,
    /// The hardest that scores below the positive; the easiest if none does.
    SemiHard,
    /// One drawn with a probability against the density of its distance on the sphere.
    DistanceWeighted,
}

impl Mining {
    /// The hinge over one chosen negative an image and one a text, summed over the batch; negatives that are drawn are drawn by
    /// `distances` of vectors of the given length. Items without negatives cost nothing.
    pub fn hinge(
        self,
        scores: &Tensor,
        margin: f64,
        relations: &Relations,
        distances: (DistanceWeighted, usize),
        stream: &mut Stream,
    ) -> Result<Tensor> {
        let b = scores.dim(0)?;
        let values = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
        let (mut negatives, mut positives) = (Vec::new(), Vec::new());
        for texts in [true, false] {
            for query in 0..b {
                let place = |other: usize| if texts { (query, other) } else { (other, query) };
                let candidates = (0..b).filter(|&other| {
                    let (i, j) = place(other);
                    relations.get(i, j) == Relation::Negative
                });
                let candidates: Vec<(usize, f64)> = candidates
                    .map(|other| {
                        let (i, j) = place(other);
                        (i * b + j, values[i][j])
                    })
                    .collect();
                if let Some(chosen) = self.choose(&candidates, values[query][query], distances, stream) {
                    negatives.push(chosen as u32);
                    positives.push((query * b + query) as u32);
                }
            }
        }
        if negatives.is_empty() {
            return Ok((scores.sum_all()? * 0.0)?);
        }
        let flat = scores.flatten_all()?;
        let pick = |at: Vec<u32>| -> Result<Tensor> {
            let n = at.len();
            Ok(flat.index_select(&Tensor::from_vec(at, n, flat.device())?, 0)?)
        };
        Ok(((pick(negatives)? - pick(positives)?)? + margin)?.relu()?.sum_all()?)
    }

    /// Position of the negative that counts, of `(position, score)`.
    fn choose(
        self,
        candidates: &[(usize, f64)],
        positive: f64,
        (distances, width): (DistanceWeighted, usize),
        stream: &mut Stream,
    ) -> Option<usize> {
        let hardest =
            |some: &mut dyn Iterator<Item = &(usize, f64)>| some.max_by(|a, b| a.1.total_cmp(&b.1)).map(|c| c.0);
        match self {
            Self::All | Self::Hardest => hardest(&mut candidates.iter()),
            Self::SemiHard => hardest(&mut candidates.iter().filter(|c| c.1 < positive))
                .or_else(|| candidates.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|c| c.0)),
            Self::DistanceWeighted => {
                let cosines: Vec<f64> = candidates.iter().map(|&(_, score)| score).collect();
                match distances.draw(&cosines, width, stream) {
                    Some(drawn) => Some(candidates[drawn].0),
                    // All are beyond the cutoff; the nearest of them may still cost something.
                    None => hardest(&mut candidates.iter()),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use xmbench_datasets::random::Seed;

    use super::*;

    /// The usual range, on vectors of 3 dimensions.
    const SPHERE: (DistanceWeighted, usize) = (DistanceWeighted { nearest: 0.5, cutoff: 1.4 }, 3);

    fn hinge(mining: Mining, scores: &[[f64; 3]; 3]) -> (f64, Vec<Vec<f64>>) {
        let scores = Var::new(scores, &Device::Cpu).unwrap();
        let loss = mining.hinge(&scores, 0.5, &Relations::diagonal(3), SPHERE, &mut Seed(1).stream(&["m"])).unwrap();
        let grads = loss.backward().unwrap();
        (loss.to_scalar().unwrap(), grads.get(&scores).unwrap().to_vec2().unwrap())
    }

    #[test]
    fn semi_hard_takes_the_hardest_below_the_positive() {
        // Row 0 (0.6): 0.5 below, 0.9 above. Row 1 (0.1): both above, the easiest is 0.2. Row 2 (0.8): 0.7.
        // Column 0 (0.6): 0.3. Column 1 (0.1): none below 0.1, the easiest is 0.5. Column 2 (0.8): 0.2.
        let scores = [[0.6, 0.5, 0.9], [0.3, 0.1, 0.2], [0.7, 0.7, 0.8]];
        let (loss, grad) = hinge(Mining::SemiHard, &scores);
        let expected =
            (0.5 + 0.5 - 0.6) + (0.5 + 0.2 - 0.1) + (0.5 + 0.7 - 0.8) + (0.5 + 0.3 - 0.6) + (0.5 + 0.5 - 0.1);
        // Column 2: 0.5 + 0.2 - 0.8 < 0.
        assert!((loss - expected).abs() < 1e-12, "{loss} {expected}");
        assert_eq!(grad[0], [-2.0, 2.0, 0.0]);
        assert_eq!(grad[1], [1.0, -2.0, 1.0]);
    }

    #[test]
    fn draws_follow_the_weights_and_spare_what_is_ignored() {
        let candidates = [(0, 0.875), (1, 0.5), (2, 0.0)];
        let mut stream = Seed(3).stream(&["draw"]);
        let mut counts = [0; 3];
        for _ in 0..30_000 {
            counts[Mining::DistanceWeighted.choose(&candidates, 0.9, SPHERE, &mut stream).unwrap()] += 1;
        }
        // Distances 0.5, 1 and sqrt 2 (out of reach): 2 to 1 to 0.
        assert!((counts[0] as f64 / counts[1] as f64 - 2.0).abs() < 0.1 && counts[2] == 0, "{counts:?}");
        let relations = Relations::new(2, 2, |i, j| if i == j { Relation::Positive } else { Relation::Ignored });
        let scores = Tensor::new(&[[0.1f32, 0.9], [0.9, 0.1]], &Device::Cpu).unwrap();
        let loss = Mining::SemiHard.hinge(&scores, 0.5, &relations, SPHERE, &mut stream).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
    }
}
