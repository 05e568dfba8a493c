//! Two views of one latent vector: `x = A diag(s) z + noise e`, `y = B diag(s) z + noise f`.
//!
//! `z`, `e` and `f` are standard normal, the columns of `A` and `B` orthonormal, `s_i^2 = 1 - i / (2 k)` for the `i`-th of
//! `k` latent dimensions. So `cov(x) = A S A' + noise^2 I`, `cov(x, y) = A S B'` with `S = diag(s^2)`, and the canonical
//! correlations of the population are `s_i^2 / (s_i^2 + noise^2)`, then zeros. The class of an item is its largest latent
//! coordinate.

use std::path::Path;

use crate::{
    Dataset, Labels, Matrix, OptionSpec, OptionValue, Result, Source,
    draft::twins,
    options::Options,
    random::{Seed, Stream},
    source::BUILT_IN,
};

pub(crate) const SOURCE: Source = Source {
    name: "planted-linear",
    doc: "two linear views of one latent vector; the canonical correlations are known",
    options: &[
        OptionSpec {
            name: "image_width",
            doc: "length of an image vector, at least `latent`",
            default: OptionValue::Integer(32),
        },
        OptionSpec { name: "latent", doc: "latent dimensions, from 1 to 64", default: OptionValue::Integer(8) },
        OptionSpec {
            name: "noise",
            doc: "standard deviation of the noise of each coordinate",
            default: OptionValue::Float(0.3),
        },
        super::SEED,
        super::TEST,
        OptionSpec {
            name: "text_width",
            doc: "length of a text vector, at least `latent`",
            default: OptionValue::Integer(24),
        },
        super::TRAIN,
        super::VAL,
    ],
    representations: &["image global", "image labels", "text global", "text labels"],
    get: BUILT_IN,
    load,
};

/// Canonical correlations of the population of `planted-linear`, descending, for the given options.
pub fn correlations(latent: usize, noise: f64) -> Vec<f64> {
    (0..latent).map(|i| variance(i, latent) / (variance(i, latent) + noise * noise)).collect()
}

fn variance(i: usize, latent: usize) -> f64 {
    1.0 - i as f64 / (2 * latent) as f64
}

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    let latent = options.integer("latent", 1..=64)?;
    let widths = [options.integer("image_width", latent..=4096)?, options.integer("text_width", latent..=4096)?];
    let noise = options.float("noise", 0.0..=100.0)?;
    let seed = options.seed()?;
    let [a, b] = [("image", widths[0]), ("text", widths[1])]
        .map(|(side, width)| orthonormal(width, latent, seed.stream(&["planted-linear", "basis", side])));
    let splits = super::runs(super::sizes(options)?).map(|items| {
        let mut image = Matrix::zeros(items.len(), widths[0]);
        let mut text = Matrix::zeros(items.len(), widths[1]);
        let mut labels = Labels { classes: latent, of: Vec::new() };
        for (position, &item) in items.iter().enumerate() {
            let z = latent_vector(seed, item, latent);
            labels.of.push(vec![(0..latent).max_by(|&i, &j| z[i].total_cmp(&z[j])).unwrap_or(0) as u32]);
            view(&a, &z, noise, seed, "image", item, image.row_mut(position));
            view(&b, &z, noise, seed, "text", item, text.row_mut(position));
        }
        twins(super::ids(&items), image, text, Some(labels))
    });
    let classes = (0..latent).map(|i| format!("latent {i}")).collect();
    super::dataset(SOURCE.name, options, [].into(), classes, splits)
}

fn latent_vector(seed: Seed, item: usize, latent: usize) -> Vec<f64> {
    let mut stream = seed.stream(&["planted-linear", "latent", &item.to_string()]);
    (0..latent).map(|_| stream.normal()).collect()
}

fn view(basis: &[Vec<f64>], z: &[f64], noise: f64, seed: Seed, side: &str, item: usize, out: &mut [f32]) {
    let mut stream = seed.stream(&["planted-linear", "noise", side, &item.to_string()]);
    for (j, value) in out.iter_mut().enumerate() {
        let signal: f64 = (0..z.len()).map(|i| basis[i][j] * variance(i, z.len()).sqrt() * z[i]).sum();
        *value = (signal + noise * stream.normal()) as f32;
    }
}

/// `count` orthonormal vectors of length `width`, by Gram-Schmidt (twice, against rounding) on normal ones.
fn orthonormal(width: usize, count: usize, mut stream: Stream) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    while basis.len() < count {
        let mut next: Vec<f64> = (0..width).map(|_| stream.normal()).collect();
        for other in basis.iter().chain(&basis) {
            let along: f64 = next.iter().zip(other).map(|(a, b)| a * b).sum();
            next.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let norm = next.iter().map(|a| a * a).sum::<f64>().sqrt();
        if norm > 1e-6 {
            basis.push(next.into_iter().map(|a| a / norm).collect());
        }
    }
    basis
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With one latent dimension the first canonical pair is along `A` and `B`, so its correlation can be read off a large
    /// sample without solving anything.
    #[test]
    fn sample_correlation_is_that_of_the_population() {
        let table = toml::toml! { latent = 1 train = 40000 noise = 0.5 };
        let dataset = crate::open("planted-linear", &table, None).unwrap();
        let seed = Seed(0);
        let project = |table: &crate::FeatureTable, side: &str, width| -> Vec<f64> {
            let basis = orthonormal(width, 1, seed.stream(&["planted-linear", "basis", side]));
            let all = table.all().unwrap();
            (0..all.rows).map(|i| all.row(i).iter().zip(&basis[0]).map(|(&x, b)| f64::from(x) * b).sum()).collect()
        };
        let u = project(dataset.train.images.global.as_ref().unwrap(), "image", 32);
        let v = project(dataset.train.texts.global.as_ref().unwrap(), "text", 24);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let correlation = dot(&u, &v) / (dot(&u, &u) * dot(&v, &v)).sqrt();
        assert!((correlation - 0.8).abs() < 0.01, "{correlation}");
        assert_eq!(correlations(1, 0.5), [0.8]);
    }

    #[test]
    fn splits_and_seeds_are_as_asked() {
        let open = |table| crate::open("planted-linear", &table, None).unwrap();
        let a = open(toml::toml! { val = 0 });
        assert!(a.val.is_none());
        assert_eq!((a.train.images.len(), a.test.texts.len()), (240, 100));
        assert_eq!(a.checksum, open(toml::toml! { val = 0 }).checksum);
        assert_ne!(a.checksum, open(toml::toml! { val = 0 seed = 1 }).checksum);
    }
}
