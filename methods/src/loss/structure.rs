//! Structure-preserving embedding: two-way ranking, and neighbours of one modality kept together.
//!
//! With `d(a, b) = sqrt(|a - b|² + 1e-4)`, images `x`, sentences `y`, and the mean over the rows of the mean of the `top_k`
//! largest hinges of each row, zeros included:
//!
//! ```text
//! image               row y_i     [m + d(y_i, x_j) - d(y_i, x_k)]+     x_j its image, x_k any other            (1)
//! sentence            row y_i     [m + d(x_j, y_i) - d(x_j, y_k)]+     x_j its image, y_k of any other         (2)
//! sentence structure  row y_i     [m + max_j d(y_i, y_j) - d(y_i, y_k)]+    y_j of its image, y_k of another   (3)
//! image structure     row x_i     [m + max_j d(x_i, x_j) - d(x_i, x_k)]+    x_j of its class, x_k of another   (4)
//! ```
//!
//! Wang, Li and Lazebnik, "Learning Deep Structure-Preserving Image-Text Embeddings", CVPR 2016. The paper sums over all
//! triplets; farthest neighbour, largest hinges, means and the 1e-4 are those of the code released with it
//! (lwwang/Two_branch_network@03f106f), which has (1) to (3) for an equal number of sentences an image. In (3) a sentence is its own
//! neighbour, at `d = 0.01`, so that it is defined for an image with one sentence. Here the numbers may differ, and (4), the
//! paper's, is built like (3): an image without another image of its class adds 0. Where a row has fewer than `top_k` negatives, its
//! mean is over those; without negatives it is 0.
//!
//! The largest hinges of a row are the nearest negatives: no array of triplets exists. Of equal distances the first counts; equal
//! farthest neighbours share the gradient. At exactly 0 a hinge has none.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::{distance::squared_distances, rows::by_row};
use crate::{Error, Result};

/// Added to the square under the root.
const EPSILON: f64 = 1e-4;

/// Margin, weights and the number of negatives; the defaults are those of lwwang/Two_branch_network@03f106f.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Structure {
    /// `m`.
    pub margin: f64,
    /// Weight of (1).
    pub image_weight: f64,
    /// Weight of (2).
    pub sentence_weight: f64,
    /// Weight of (3).
    pub sentence_structure: f64,
    /// Weight of (4).
    pub image_structure: f64,
    /// Negatives of a row that count, from 1.
    pub top_k: usize,
}

impl Default for Structure {
    fn default() -> Self {
        Self {
            margin: 0.05,
            image_weight: 1.5,
            sentence_weight: 1.0,
            sentence_structure: 0.05,
            image_structure: 0.0,
            top_k: 10,
        }
    }
}

/// The loss and its terms before they are weighted, scalars.
#[derive(Debug, Clone)]
pub struct StructureTerms {
    /// The weighted sum.
    pub loss: Tensor,
    /// Equation (1): each sentence against the wrong images.
    pub image: Tensor,
    /// Equation (2): each sentence's image against the wrong sentences.
    pub sentence: Tensor,
    /// Equation (3).
    pub sentence_structure: Tensor,
    /// Equation (4); 0 without classes.
    pub image_structure: Tensor,
}

/// The loss of `images [b, d]` and `sentences [m, d]`. `owner` is the image of each sentence, `classes` the class of each image;
/// without classes an image is its only neighbour and (4) is 0.
///
/// # Errors
/// If the widths differ, a sentence has no owner or one that is not there, there is not one class an image, or `top_k` is 0.
pub fn structure_preserving(
    images: &Tensor,
    sentences: &Tensor,
    owner: &[usize],
    classes: Option<&[u32]>,
    settings: &Structure,
) -> Result<StructureTerms> {
    let squared = squared_distances(images, sentences)?;
    let (b, m) = squared.dims2()?;
    check(b, m, owner, classes, settings)?;
    let owned = groups(owner);
    let image = by_row("image term", &squared.t()?, |i, squared, slope| {
        let nearest = settings.nearest(squared, |j| j != owner[i]);
        settings.hinges(squared, &[owner[i]], &nearest, slope)
    })?; // (1)
    let sentence = by_row("sentence term", &squared, |i, squared, slope| {
        // All sentences of the image have the same negatives.
        let nearest = settings.nearest(squared, |j| owner[j] != i);
        let own = owned.get(&i).map_or(&[][..], |own| own);
        own.iter().map(|&positive| settings.hinges(squared, &[positive], &nearest, slope)).sum()
    })?; // (2)
    let sentence_structure =
        by_row("sentence structure", &squared_distances(sentences, sentences)?, |i, squared, slope| {
            let nearest = settings.nearest(squared, |j| owner[j] != owner[i]);
            settings.hinges(squared, &farthest(squared, &owned[&owner[i]]), &nearest, slope)
        })?; // (3)
    let image_structure = match classes {
        Some(classes) => {
            let alike = groups(classes);
            by_row("image structure", &squared_distances(images, images)?, |i, squared, slope| {
                let neighbours: Vec<usize> = alike[&classes[i]].iter().copied().filter(|&j| j != i).collect();
                let nearest = settings.nearest(squared, |j| classes[j] != classes[i]);
                settings.hinges(squared, &farthest(squared, &neighbours), &nearest, slope)
            })?
            .mean_all()? // (4)
        }
        None => Tensor::zeros((), images.dtype(), images.device())?,
    };
    let (image, sentence) = (image.mean_all()?, (sentence.sum_all()? / m as f64)?);
    let sentence_structure = sentence_structure.mean_all()?;
    let ranking = ((&image * settings.image_weight)? + (&sentence * settings.sentence_weight)?)?;
    let structure =
        ((&image_structure * settings.image_structure)? + (&sentence_structure * settings.sentence_structure)?)?;
    Ok(StructureTerms { loss: (ranking + structure)?, image, sentence, sentence_structure, image_structure })
}

fn check(b: usize, m: usize, owner: &[usize], classes: Option<&[u32]>, settings: &Structure) -> Result<()> {
    let wrong = |what: String| Err(Error::Numeric(format!("structure-preserving loss: {what}")));
    if owner.len() != m {
        return wrong(format!("expected an owner for each of {m} sentences, found {}", owner.len()));
    }
    if let Some(owner) = owner.iter().find(|&&owner| owner >= b) {
        return wrong(format!("expected owners below {b}, the number of images, found {owner}"));
    }
    if let Some(classes) = classes.filter(|classes| classes.len() != b) {
        return wrong(format!("expected a class for each of {b} images, found {}", classes.len()));
    }
    if settings.top_k == 0 {
        return wrong("expected top_k of at least 1, found 0".into());
    }
    Ok(())
}

/// The members of each group, in order.
fn groups<K: Copy + Ord>(group: &[K]) -> BTreeMap<K, Vec<usize>> {
    let mut groups = BTreeMap::<K, Vec<usize>>::new();
    group.iter().enumerate().for_each(|(i, &k)| groups.entry(k).or_default().push(i));
    groups
}

/// The members at the largest distance; those at NaN if there is one.
fn farthest(squared: &[f64], members: &[usize]) -> Vec<usize> {
    let distances = || members.iter().map(|&j| squared[j]);
    let most = distances().fold(f64::NEG_INFINITY, |most, x| if x > most || x.is_nan() { x } else { most });
    members.iter().copied().filter(|&j| squared[j] == most || squared[j].is_nan()).collect()
}

impl Structure {
    /// The `top_k` negatives of a row at the smallest distances; NaN first, so that it is not lost.
    fn nearest(&self, squared: &[f64], negative: impl Fn(usize) -> bool) -> Vec<usize> {
        let mut negatives: Vec<usize> = (0..squared.len()).filter(|&j| negative(j)).collect();
        let key = |j: usize| if squared[j].is_nan() { f64::NEG_INFINITY } else { squared[j] };
        if negatives.len() > self.top_k {
            negatives.select_nth_unstable_by(self.top_k, |&a, &b| key(a).total_cmp(&key(b)).then(a.cmp(&b)));
            negatives.truncate(self.top_k);
        }
        negatives
    }

    /// The mean hinge of a positive, equal ones taken as one, against the nearest negatives; its derivatives are added to `slope`.
    fn hinges(&self, squared: &[f64], positives: &[usize], nearest: &[usize], slope: &mut [f64]) -> f64 {
        let Some(&positive) = positives.first() else { return 0.0 };
        let (own, count) = ((squared[positive] + EPSILON).sqrt(), nearest.len() as f64);
        let mut sum = 0.0;
        for &j in nearest {
            let other = (squared[j] + EPSILON).sqrt();
            let cost = self.margin + own - other;
            // Written so that NaN is not lost.
            if cost <= 0.0 {
                continue;
            }
            sum += cost / count;
            slope[j] -= 0.5 / (other * count);
            for &positive in positives {
                slope[positive] += 0.5 / (own * count * positives.len() as f64);
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests;
