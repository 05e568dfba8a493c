//! How NAAF finds its thresholds, text by text.
//!
//! Text `j` is scored against all images of the batch with the threshold `t` of that moment. If its own image is the best, the
//! largest similarity of each of its words with that image joins the matching samples, and with the image of the lowest score the
//! others. Once there are more than `threshold_samples` of either,
//! ```text
//! t      <- r t* + (1 - r) t,   t* from equation (3) of `nn::cross::threshold`, in the released form
//! t_safe <- r (m+ - 3 d+) + (1 - r) t_safe
//! ```
//! with the rate `r`; both new values are 0 where they leave `[0, 1]`, and none changes where the discriminant is not above 0. As long
//! as there are fewer samples, both thresholds go back to 0 after each text.

use candle_core::{Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{NegativeAware, with_thresholds};
use crate::{
    Result,
    nn::{
        Lengths,
        cross::{
            Direction, Interaction, Padded, Pairing, Side,
            golden::values,
            threshold::{Normal, peaks, released_boundary},
        },
    },
    params::out_of_range,
};

/// Images that a thread scores at a time.
const IMAGES: usize = 32;

/// Parameters of the search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mining {
    /// How much worse it is to take a word without a counterpart for one with, than the reverse.
    pub alpha: f64,
    /// Share of a new estimate in a threshold, `r`.
    pub threshold_rate: f64,
    /// An estimate needs more words than these.
    pub threshold_samples: usize,
    /// Whether thresholds go back to 0 while there are fewer.
    pub reset: bool,
}

impl Default for Mining {
    fn default() -> Self {
        Self { alpha: 2.0, threshold_rate: 0.7, threshold_samples: 200, reset: true }
    }
}

/// The two thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Boundaries {
    /// Of training, `t`.
    pub training: f64,
    /// Of scores afterwards, `t_safe`.
    pub safe: f64,
}

impl Boundaries {
    /// Those that a state holds, `[2]`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(state: &Var) -> Result<Self> {
        let values = values(state)?;
        Ok(Self { training: values[0], safe: values[1] })
    }

    /// Writes them into a state.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(self, state: &Var) -> Result<()> {
        Ok(state.set(&Tensor::new(&[self.training as f32, self.safe as f32], state.device())?)?)
    }
}

/// What a batch showed.
#[derive(Debug, Clone, PartialEq)]
pub struct Mined {
    /// The threshold that each text was scored with.
    pub of_texts: Vec<f64>,
    /// Those after the last text.
    pub end: Boundaries,
    /// Matching and other samples at the last estimate, if there was one.
    pub samples: Option<[Normal; 2]>,
}

impl Mining {
    /// Checks every value; `method` is named in the error.
    ///
    /// # Errors
    /// A value out of range.
    pub fn check(&self, method: &str) -> Result<()> {
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(out_of_range(method, "alpha", "a number above 0", self.alpha));
        }
        if !(0.0..=1.0).contains(&self.threshold_rate) {
            return Err(out_of_range(method, "threshold_rate", "a number in [0, 1]", self.threshold_rate));
        }
        if self.threshold_samples == 0 {
            return Err(out_of_range(method, "threshold_samples", "at least 1", self.threshold_samples));
        }
        Ok(())
    }

    /// Goes through the texts of a batch in an order; `images [images, regions, d]` and `words [total, d]` have no gradient, and image
    /// `j` belongs to text `j`.
    ///
    /// # Errors
    /// If the widths differ, or a tensor operation fails.
    pub fn run(
        &self,
        interaction: &NegativeAware,
        images: &Tensor,
        words: &Tensor,
        lengths: &Lengths,
        order: &[usize],
        start: Boundaries,
    ) -> Result<Mined> {
        let count = images.dim(0)?;
        // In the order of the texts, which decides between equal scores.
        let rows: Vec<usize> = order.iter().copied().filter(|&at| at < count).chain(lengths.len()..count).collect();
        let places: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let tiled = images.index_select(&Tensor::new(places, images.device())?, 0)?.contiguous()?;
        let step = if images.device().is_cpu() { IMAGES } else { count.max(1) };
        let tiles: Vec<Side> = (0..count)
            .step_by(step)
            .map(|first| {
                let tile = tiled.narrow(0, first, step.min(count - first))?;
                Side::images(interaction, Padded::full(&tile.contiguous()?)?)
            })
            .collect::<Result<_>>()?;
        let mut now = start;
        let (mut of_texts, mut samples) = (vec![0.0; lengths.len()], None);
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        for &text in order {
            of_texts[text] = now.training;
            let range = lengths.range(text);
            let own = words.narrow(0, range.start, range.len())?;
            let asked = with_thresholds(&own, &Lengths::new([range.len()])?, &[now.training])?.unsqueeze(0)?;
            let asked = Side::texts(interaction, Padded::full(&asked)?)?;
            let score = |tile: &Side| values(&interaction.scores(tile, &asked, Pairing::Every)?);
            let scores: Vec<Vec<f64>> = match tiles.len() {
                1 => vec![score(&tiles[0])?],
                _ => tiles.par_iter().map(score).collect::<Result<_>>()?,
            };
            let scores = scores.concat();
            let best = first(&scores, |a, b| a > b);
            if let Some(best) = best.filter(|&best| rows[best] == text) {
                let worst = first(&scores, |a, b| a < b).unwrap_or(best);
                let found = |at: usize| peaks(Direction::T2i, images, words, lengths, &[(rows[at], text)]);
                matching.extend(found(best)?);
                others.extend(found(worst)?);
                if matching.len() > self.threshold_samples {
                    let normals = [Normal::of(&matching), Normal::of(&others)];
                    now = self.update(now, &normals);
                    samples = Some(normals);
                }
            }
            if self.reset && matching.len() < self.threshold_samples {
                now = Boundaries::default();
            }
        }
        Ok(Mined { of_texts, end: now, samples })
    }

    /// The thresholds after an estimate.
    fn update(&self, before: Boundaries, [matching, others]: &[Normal; 2]) -> Boundaries {
        let within = |x: f64| if (0.0..=1.0).contains(&x) { x } else { 0.0 };
        let found = released_boundary(matching, others, self.alpha);
        let after =
            found.map_or(before, |training| Boundaries { training, safe: matching.mean - 3.0 * matching.deviation() });
        let mix = |after: f64, before: f64| self.threshold_rate * within(after) + (1.0 - self.threshold_rate) * before;
        Boundaries { training: mix(after.training, before.training), safe: mix(after.safe, before.safe) }
    }
}

/// The first position whose value comes before all others.
fn first(values: &[f64], before: impl Fn(f64, f64) -> bool) -> Option<usize> {
    let mut positions = 0..values.len();
    let start = positions.next()?;
    Some(positions.fold(start, |best, at| if before(values[at], values[best]) { at } else { best }))
}
