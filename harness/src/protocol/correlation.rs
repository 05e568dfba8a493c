//! Total canonical correlation on held-out pairs: the measure of the deep CCA papers.
//!
//! ```text
//! total = sum over k = 1..d of Pearson(u_k, v_k)
//! ```
//!
//! where `u_k` and `v_k` hold dimension `k` of the image's and the text's code of every pair of the split. An item of several pairs
//! counts once a pair. What a scale or a shift of a dimension does not change, neither do they here; a dimension that is constant on
//! the split correlates with nothing and counts 0.

use std::collections::BTreeMap;

use xmbench_datasets::{Collection, Error, Matrix};
use xmbench_methods::{Codes, Result};

use super::{Evaluation, Side};

/// The metric.
pub const METRIC: &str = "correlation";

/// Scores a matcher.
pub fn evaluate(dimensions: usize, side: Side<'_>) -> Result<Evaluation> {
    let pairs = paired(side.collection)?;
    let ([images], [texts]) = (side.images, side.texts) else {
        let next = "evaluate each matcher alone, or choose another task";
        let found = side.images.len().to_string();
        return Err(Error::option("matchers", "one: correlation compares codes and no scores", found, next).into());
    };
    let (images, texts) = (dense("images", images)?, dense("texts", texts)?);
    if images.cols != texts.cols || images.cols < dimensions {
        let expected = format!("one width for images and texts, at least the {dimensions} dimensions of the protocol");
        let found = format!("{} and {}", images.cols, texts.cols);
        return Err(Error::option("codes", expected, found, "fit with more components, or lower `dimensions`").into());
    }
    Ok(summary(&correlations(images, texts, pairs, dimensions)))
}

/// The expectation for codes that know nothing of the pairs.
pub fn chance(dimensions: usize, collection: &Collection) -> Result<Evaluation> {
    paired(collection)?;
    Ok(summary(&vec![0.0; dimensions]))
}

fn summary(correlations: &[f64]) -> Evaluation {
    let points = correlations.iter().enumerate().map(|(k, &rho)| [(k + 1) as f64, rho]).collect();
    Evaluation {
        metrics: BTreeMap::from([(METRIC.to_string(), correlations.iter().sum())]),
        curves: BTreeMap::from([("correlation by dimension".to_string(), points)]),
        ..Evaluation::default()
    }
}

fn paired(collection: &Collection) -> Result<&[(u32, u32)]> {
    let pairs = collection.pairs.all();
    if pairs.len() < 2 {
        let found = pairs.len().to_string();
        return Err(Error::option("pairs of the scored split", "at least two", found, "choose another split").into());
    }
    Ok(pairs)
}

fn dense<'a>(kind: &str, codes: &'a Codes) -> Result<&'a Matrix> {
    let found = match codes {
        Codes::Dense(matrix) => return Ok(matrix),
        Codes::Binary(_) => "packed bits",
        Codes::Fragments(_) => "fragments",
    };
    let next = "choose a method with dense codes, or another task";
    Err(Error::option(format!("codes of the {kind}"), "one real vector an item, to correlate", found, next).into())
}

/// Pearson correlation of each of the first dimensions over the pairs.
fn correlations(images: &Matrix, texts: &Matrix, pairs: &[(u32, u32)], dimensions: usize) -> Vec<f64> {
    let rows = || pairs.iter().map(|&(image, text)| (images.row(image as usize), texts.row(text as usize)));
    let mut means = vec![[0.0; 2]; dimensions];
    for (image, text) in rows() {
        for (k, mean) in means.iter_mut().enumerate() {
            mean[0] += f64::from(image[k]) / pairs.len() as f64;
            mean[1] += f64::from(text[k]) / pairs.len() as f64;
        }
    }
    let mut moments = vec![[0.0; 3]; dimensions];
    for (image, text) in rows() {
        for (k, [xx, yy, xy]) in moments.iter_mut().enumerate() {
            let (x, y) = (f64::from(image[k]) - means[k][0], f64::from(text[k]) - means[k][1]);
            *xx += x * x;
            *yy += y * y;
            *xy += x * y;
        }
    }
    // The mean of equal numbers is rounded, so that their variance is not quite 0.
    let varies = |sum: f64, mean: f64| sum > pairs.len() as f64 * (1e-12 * mean).powi(2);
    let correlation = |([xx, yy, xy], [x, y]): (&[f64; 3], &[f64; 2])| {
        if varies(*xx, *x) && varies(*yy, *y) { (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0) } else { 0.0 }
    };
    moments.iter().zip(&means).map(correlation).collect()
}
