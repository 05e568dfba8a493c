//! Random Fourier features (Rahimi, Recht, NIPS 2007): `phi(a) phi(b)` is the Gaussian kernel on average.
//!
//! ```text
//! phi(a) = sqrt(2 / M) cos(a W + b),   W ~ N(0, 2 gamma) [p, M],   b ~ U[0, 2 pi)
//! ```

use std::f64::consts::{PI, TAU};

use faer::Mat;
use xmbench_datasets::{Matrix, random::Stream};

use super::{BLOCK, columns, narrow};
use crate::{
    Error, Result,
    linalg::{accumulate, each_column, store::Store},
};

/// A drawn map.
#[derive(Debug, Clone, PartialEq)]
pub struct Fourier {
    /// `[p, M]`.
    frequencies: Mat<f64>,
    /// `M` of them.
    phases: Vec<f64>,
}

impl Fourier {
    /// Draws `features` cosines for vectors of `width` values.
    pub fn draw(gamma: f64, width: usize, features: usize, stream: &mut Stream) -> Self {
        let deviation = (2.0 * gamma).sqrt();
        let mut frequencies = Mat::zeros(width, features);
        for j in 0..features {
            frequencies.col_as_slice_mut(j).iter_mut().for_each(|value| *value = deviation * stream.normal());
        }
        Self { frequencies, phases: (0..features).map(|_| stream.uniform(0.0, TAU)).collect() }
    }

    /// The features of rows, `[rows, M]`.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn apply(&self, rows: &Matrix) -> Result<Matrix> {
        if rows.cols != self.frequencies.nrows() {
            return Err(Error::Numeric(format!(
                "random Fourier features: expected vectors of {} values as in training, found {}",
                self.frequencies.nrows(),
                rows.cols
            )));
        }
        let mut out = Matrix::zeros(rows.rows, self.phases.len());
        let scale = (2.0 / self.phases.len() as f64).sqrt();
        for start in (0..rows.rows).step_by(BLOCK) {
            let block = columns(rows, start, BLOCK.min(rows.rows - start));
            let mut angles = Mat::zeros(self.phases.len(), block.ncols());
            accumulate(angles.as_mut(), self.frequencies.transpose(), block.as_ref());
            each_column(angles.as_mut(), |_, column| {
                column.iter_mut().zip(&self.phases).for_each(|(angle, phase)| *angle = scale * cosine(*angle + phase));
            });
            narrow(&angles, &mut out, start);
        }
        Ok(out)
    }

    /// Adds the map under a name.
    #[must_use]
    pub fn save(&self, store: Store, name: &str) -> Store {
        store
            .with_matrix(&format!("{name}.frequencies"), self.frequencies.as_ref())
            .with_vector(&format!("{name}.phases"), &self.phases)
    }

    /// Reads what [`Fourier::save`] added.
    ///
    /// # Errors
    /// If it is not there, or frequencies and phases do not belong together.
    pub fn load(store: &Store, name: &str) -> Result<Self> {
        let frequencies = store.matrix(&format!("{name}.frequencies"))?;
        let phases = store.vector(&format!("{name}.phases"))?;
        if frequencies.ncols() != phases.len() {
            return Err(Error::Numeric(format!(
                "saved features `{name}`: expected a phase for each of {} frequencies, found {}",
                frequencies.ncols(),
                phases.len()
            )));
        }
        Ok(Self { frequencies, phases })
    }
}

/// The cosine to 1e-10, of which f32 keeps 6e-8: in arithmetic that vectorises, and the same on every machine.
fn cosine(angle: f64) -> f64 {
    // Adding and taking away a number without fraction bits rounds to the nearest whole turn.
    const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;
    let turns = angle / TAU;
    let half = (turns - ((turns + WHOLE) - WHOLE)) * PI;
    // cos a = 1 - 2 sin²(a / 2), with |a / 2| <= pi / 2.
    let square = half * half;
    let sine = COEFFICIENTS.iter().fold(0.0, |sum, coefficient| sum * square + coefficient) * half;
    1.0 - 2.0 * sine * sine
}

/// Taylor's of `sin(x) / x` in `x²`, from `x^16` to 1.
const COEFFICIENTS: [f64; 9] = [
    1.0 / 355_687_428_096_000.0,
    -1.0 / 1_307_674_368_000.0,
    1.0 / 6_227_020_800.0,
    -1.0 / 39_916_800.0,
    1.0 / 362_880.0,
    -1.0 / 5040.0,
    1.0 / 120.0,
    -1.0 / 6.0,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_that_of_the_library() {
        for step in -40_000..40_000 {
            let angle = f64::from(step) * 0.00731;
            assert!((cosine(angle) - angle.cos()).abs() < 1e-10, "{angle}");
        }
    }
}
