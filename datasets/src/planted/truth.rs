//! What a planted dataset knows of its fragments: where each concept is, and how well anybody could find it.

use std::ops::Range;

use crate::{Images, Matrix, Result};

/// Where the concepts of the test items are.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The word of each concept.
    pub words: Vec<String>,
    /// What a fragment that shows a concept looks like, `[concepts, width]`, beside noise.
    pub prototypes: Matrix,
    /// Standard deviation of that noise; fragments that show nothing are normal vectors of deviation 1.
    pub noise: f64,
    /// Concepts of each test item.
    pub items: Vec<Vec<Shown>>,
}

/// A concept in an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its number.
    pub concept: usize,
    /// The fragments that show it.
    pub fragments: Range<usize>,
}

impl Truth {
    /// Share of concepts that a guess among `fragments` finds.
    pub fn chance(&self, fragments: usize) -> f64 {
        self.share(|_, shown| shown.fragments.len() as f64 / fragments as f64)
    }

    /// Share of concepts for which `guess(item, concept)` is one of its fragments.
    pub fn accuracy(&self, mut guess: impl FnMut(usize, usize) -> usize) -> f64 {
        self.share(|item, shown| f64::from(u8::from(shown.fragments.contains(&guess(item, shown.concept)))))
    }

    /// The share that is found by who knows prototypes and noise: the fragment where the likelihood of the concept exceeds that of
    /// a fragment that shows nothing by most. With fragments of `w` values that is `|x|^2 / 2 - |x - p|^2 / (2 noise^2)`; without
    /// noise, where `x` is `p`. Other concepts of the item are not taken into account: each word is placed by itself.
    ///
    /// # Errors
    /// If fragments cannot be read.
    ///
    /// # Panics
    /// If these are not the images that the truth is of.
    pub fn optimum(&self, images: &Images) -> Result<f64> {
        let table = images.fragments.as_ref().expect("planted images have fragments");
        let width = self.prototypes.cols;
        let mut fragments = vec![0.0; table.fragments() * width];
        let mut best = Vec::new();
        for (item, shown) in self.items.iter().enumerate() {
            table.read(item, &mut fragments)?;
            let guess = |concept: usize| {
                let evidence: Vec<f64> =
                    fragments.chunks_exact(width).map(|x| self.evidence(x, self.prototypes.row(concept))).collect();
                (0..evidence.len()).fold(0, |best, at| if evidence[at] > evidence[best] { at } else { best })
            };
            best.push(shown.iter().map(|shown| guess(shown.concept)).collect::<Vec<_>>());
        }
        Ok(self.accuracy(|item, concept| {
            let place = self.items[item].iter().position(|shown| shown.concept == concept);
            best[item][place.expect("a concept of the item")]
        }))
    }

    fn evidence(&self, x: &[f32], prototype: &[f32]) -> f64 {
        let (mut own, mut apart) = (0.0, 0.0);
        for (&x, &p) in x.iter().zip(prototype) {
            own += f64::from(x).powi(2);
            apart += (f64::from(x) - f64::from(p)).powi(2);
        }
        if self.noise > 0.0 { own / 2.0 - apart / (2.0 * self.noise * self.noise) } else { -apart }
    }

    fn share(&self, mut value: impl FnMut(usize, &Shown) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0);
        for (item, shown) in self.items.iter().enumerate() {
            for shown in shown {
                sum += value(item, shown);
                count += 1;
            }
        }
        sum / f64::from(count.max(1))
    }
}
