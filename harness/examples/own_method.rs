//! A method of another crate: this file and the card beside it, handed to xmbench's own `main`.
//!
//! ```text
//! cargo run -p xmbench --example own_method -- list methods
//! cargo run -p xmbench --example own_method -- run harness/examples/own_method_emoji.toml --profile smoke --out results/own
//! ```
//!
//! The method is the least squares map from image vectors to text vectors (ridge: Hoerl and Kennard 1970). With `S` the
//! covariances of the training pairs, image vectors `x [p]` and text vectors `y [q]`:
//!
//! ```text
//! W = (Sxx + r (tr Sxx / p) I)^-1 Sxy                          (1)
//! u = (x - mean_x) W,   v = y - mean_y                         (2)
//! s(x, y) = u v / (|u| |v|)                                    (3)
//! ```
//!
//! Departures: the ridge is relative to the mean variance of an image value, because an absolute one means something else for
//! every feature; every caption of an image makes a pair; a bag of words goes through latent semantic analysis first, as for CCA.

use std::path::Path;

use candle_core::Device;
use faer::Mat;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Matrix, Texts};
use xmbench_methods::{
    Codes, Error, Matcher, Method, Result, Run, Similarity, Training,
    card::Card,
    linalg::{
        Cholesky,
        inputs::{Inputs, Views, dense},
        multiply,
        store::Store,
    },
    params,
};

fn main() -> std::process::ExitCode {
    xmbench::cli::main_with(&[&LeastSquares])
}

/// The method.
pub struct LeastSquares;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Ridge `r` of equation (1).
    pub ridge: f64,
    /// Which vectors stand for images and texts.
    #[serde(flatten)]
    pub views: Views,
}

impl Default for Params {
    fn default() -> Self {
        Self { ridge: 1.0, views: Views::auto(256) }
    }
}

const NAME: &str = "least_squares";
const FILE: &str = "least_squares.safetensors";

impl Params {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let read: Self = params::parse(NAME, table)?;
        if !(read.ridge > 0.0 && read.ridge.is_finite()) {
            return Err(params::out_of_range(NAME, "ridge", "a number above 0", read.ridge));
        }
        Ok(read)
    }
}

impl Method for LeastSquares {
    fn card(&self) -> &Card {
        xmbench_methods::card!("own_method.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        let inputs = Inputs::fit(NAME, training, params.views, run.seed)?;
        let (images, texts) = (inputs.images(&training.train.images)?, inputs.texts(&training.train.texts)?);
        let pairs = training.train.pairs.all();
        let (mean_x, x) = centred(&images, pairs.iter().map(|pair| pair.0 as usize), "images")?;
        let (mean_y, y) = centred(&texts, pairs.iter().map(|pair| pair.1 as usize), "texts")?;
        run.check_stop()?;
        let mut covariance = multiply(x.transpose(), x.as_ref());
        let width = covariance.nrows();
        let trace: f64 = (0..width).map(|i| covariance[(i, i)]).sum();
        (0..width).for_each(|i| covariance[(i, i)] += params.ridge * trace / width as f64);
        let mut map = multiply(x.transpose(), y.as_ref());
        Cholesky::new(covariance.as_ref())?.solve(map.as_mut()); // (1); the number of pairs cancels
        Ok(Box::new(Fitted { inputs, mean_x, mean_y, map }))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let store = Store::load(&from.join(FILE))?;
        let (mean_x, mean_y, map) = (store.vector("x.mean")?, store.vector("y.mean")?, store.matrix("map")?);
        store.expect("map", "rows", mean_x.len(), map.nrows())?;
        store.expect("map", "columns", mean_y.len(), map.ncols())?;
        Ok(Box::new(Fitted { inputs: Inputs::load(NAME, &store)?, mean_x, mean_y, map }))
    }
}

/// The mean of the given rows, and the rows minus it, `[chosen, columns]`.
fn centred(rows: &Matrix, chosen: impl Iterator<Item = usize>, kind: &str) -> Result<(Vec<f64>, Mat<f64>)> {
    if let Some(at) = rows.data.iter().position(|value| !value.is_finite()) {
        let (row, column, value) = (at / rows.cols, at % rows.cols, rows.data[at]);
        return Err(Error::Numeric(format!(
            "{NAME}: expected finite features, found {value} in row {row}, column {column} of the training {kind}; check the features"
        )));
    }
    let chosen: Vec<usize> = chosen.collect();
    if chosen.len() < 2 {
        return Err(Error::Numeric(format!("{NAME}: expected at least 2 training pairs, found {}", chosen.len())));
    }
    let mut mean = vec![0.0; rows.cols];
    for &i in &chosen {
        mean.iter_mut().zip(rows.row(i)).for_each(|(sum, &value)| *sum += f64::from(value) / chosen.len() as f64);
    }
    let out = Mat::from_fn(chosen.len(), rows.cols, |i, j| f64::from(rows.row(chosen[i])[j]) - mean[j]);
    Ok((mean, out))
}

struct Fitted {
    inputs: Inputs,
    mean_x: Vec<f64>,
    mean_y: Vec<f64>,
    map: Mat<f64>,
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        let rows = less(&self.inputs.images(images)?, &self.mean_x)?;
        Ok(dense(&multiply(rows.as_ref(), self.map.as_ref()))) // (2)
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        Ok(dense(&less(&self.inputs.texts(texts)?, &self.mean_y)?)) // (2)
    }

    fn similarity(&self) -> Similarity<'_> {
        Similarity::Cosine // (3)
    }

    fn save(&self, to: &Path) -> Result<()> {
        self.inputs
            .save(Store::default())
            .with_vector("x.mean", &self.mean_x)
            .with_vector("y.mean", &self.mean_y)
            .with_matrix("map", self.map.as_ref())
            .save(&to.join(FILE))
    }
}

/// Rows minus the mean of training, `[rows, columns]`.
fn less(rows: &Matrix, mean: &[f64]) -> Result<Mat<f64>> {
    if rows.cols != mean.len() {
        let (expected, found) = (mean.len(), rows.cols);
        return Err(Error::Numeric(format!(
            "{NAME}: expected vectors of {expected} values as in training, found {found}"
        )));
    }
    Ok(Mat::from_fn(rows.rows, rows.cols, |i, j| f64::from(rows.row(i)[j]) - mean[j]))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use xmbench_datasets::random::Seed;
    use xmbench_methods::method::Silent;

    use super::*;

    #[test]
    fn the_card_documents_every_parameter() {
        let defaults = LeastSquares.resolve(&toml::Table::new()).unwrap();
        let documented: Vec<&String> = LeastSquares.card().parameters.keys().collect();
        let mut known: Vec<&String> = defaults.keys().collect();
        known.sort();
        assert_eq!(documented, known);
    }

    /// Without noise a text vector is a linear function of the image's, so that the map finds it and every pair has cosine 1.
    #[test]
    fn an_exact_linear_map_is_found() {
        let options = toml::toml! { noise = 0.0 latent = 4 image_width = 4 text_width = 6 };
        let dataset = xmbench_datasets::open("planted-linear", &options, None).unwrap();
        let stop = AtomicBool::new(false);
        let mut silent = Silent;
        let mut run = Run::new(Seed(1), &mut silent, &stop);
        let params = toml::toml! { ridge = 1e-9 };
        let matcher = LeastSquares.fit(&Training::of(&dataset), &params, &mut run).unwrap();
        let codes = (matcher.encode_images(&dataset.test.images), matcher.encode_texts(&dataset.test.texts));
        let (Ok(Codes::Dense(u)), Ok(Codes::Dense(v))) = codes else { panic!("codes are dense") };
        for i in 0..u.rows {
            assert!(u.row(i).iter().zip(v.row(i)).all(|(u, v)| (u - v).abs() < 1e-4));
        }
    }
}
