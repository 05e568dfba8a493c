//! Which keys are negatives of which query.

use super::queue::Queue;
use crate::{
    Result,
    loss::Relation,
    nn::Joint,
    params::out_of_range,
    trained::{Batch, Negatives as Rule},
};

/// Negatives of the queries of a step, among the keys of the batch or of a queue.
pub(super) struct Negatives {
    /// Of texts, among images.
    pub images: Mask,
    /// Of images, among texts.
    pub texts: Mask,
    /// Of views, among views.
    pub views: Mask,
}

/// A row for each pair of the batch, a column for each key.
pub(super) struct Mask {
    columns: usize,
    counts: Vec<bool>,
}

impl Mask {
    fn new(rows: usize, columns: usize, counts: impl Fn(usize, usize) -> bool) -> Self {
        let counts = (0..rows * columns).map(|at| counts(at / columns, at % columns)).collect();
        Self { columns, counts }
    }

    /// Whether key `j` is a negative of pair `b`.
    pub fn counts(&self, b: usize, j: usize) -> bool {
        self.counts[b * self.columns + j]
    }
}

/// Refuses a rule that a queue cannot follow.
pub(super) fn check(method: &str, rule: Option<Rule>, queue: usize) -> Result<()> {
    if queue > 0 && rule == Some(Rule::Classes) {
        return Err(out_of_range(method, "negatives", "others or paper with a `queue`", "classes"));
    }
    Ok(())
}

impl Negatives {
    pub fn new(batch: &Batch<'_, Joint>, queue: Option<&Queue>) -> Result<Self> {
        let relations = batch.relations()?;
        let (images, texts) = (&batch.items.images, &batch.items.texts);
        let b = images.len();
        let Some(queue) = queue else {
            return Ok(Self {
                images: Mask::new(b, b, |r, j| relations.get(j, r) == Relation::Negative),
                texts: Mask::new(b, b, |r, j| relations.get(r, j) == Relation::Negative),
                views: Mask::new(b, b, |r, j| relations.get(r, j) == Relation::Negative),
            });
        };
        // Under the rule of released code every key is a negative, also one of the same image.
        let all = batch.negatives() == Rule::Paper;
        let (ids, pairs) = (queue.ids()?, &batch.training.train.pairs);
        let belongs = |image: usize, text: usize| pairs.texts_of(image).binary_search(&(text as u32)).is_ok();
        let free = |j: usize, own: &dyn Fn([usize; 2]) -> bool| all || !ids[j].is_some_and(own);
        Ok(Self {
            images: Mask::new(b, ids.len(), |r, j| free(j, &|[image, _]| belongs(image, texts[r]))),
            texts: Mask::new(b, ids.len(), |r, j| free(j, &|[_, text]| belongs(images[r], text))),
            views: Mask::new(b, ids.len(), |r, j| free(j, &|[image, _]| image == images[r])),
        })
    }
}
