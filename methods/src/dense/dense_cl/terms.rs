//! The terms of the loss: wholes, parts against words, parts against those of another view.

use candle_core::Tensor;
use xmbench_datasets::Matrix;

use super::{
    FOURTH, Head, IMAGE, NAME, Params, TEXT, THIRD,
    negatives::{Mask, Negatives},
    views::Views,
};
use crate::{
    Result,
    dense::{
        nce,
        parts::{self, Parts, select},
    },
    loss::matching,
    nn::{Joint, Lengths, unit},
    trained::Batch,
};

impl Params {
    /// (5) of unit vectors `[q, k]`, row by row a pair; `lane` is that of the keys.
    pub(super) fn whole(&self, [q, k]: [&Tensor; 2], head: &Head, lane: usize, mask: &Mask) -> Result<Tensor> {
        let negatives = head.negatives(lane, k);
        nce::common([q, k, &negatives], self.temperature, |r, j| mask.counts(r, j))
    }

    /// (4) both ways, if it `counts`, and the keys of the wholes.
    pub(super) fn words(
        &self,
        head: &Head,
        [images, texts]: [&Parts; 2],
        negatives: &Negatives,
        counts: bool,
    ) -> Result<(Option<Tensor>, [Tensor; 2])> {
        let image = head.dense(THIRD, &images.fragments, &images.lengths)?; // (3)
        let text = head.dense(FOURTH, &texts.fragments, &texts.lengths)?;
        let pooled = [image.pooled.clone(), text.pooled.clone()];
        if !counts {
            return Ok((None, pooled));
        }
        let space = |lane: usize, parts: &Parts| unit(&head.fast.forward(lane, &parts.fragments.detach())?.detach());
        let (a, b) = (space(IMAGE, images)?, space(TEXT, texts)?);
        let of_words = matching::within(&b, &texts.lengths, &a, &images.lengths)?;
        let of_regions = matching::turned(&of_words, &texts.lengths, &images.lengths);
        let of_words = matches(&of_words, &texts.lengths, &images.lengths); // (2)
        let of_regions = matches(&of_regions, &images.lengths, &texts.lengths);
        let toward = |q: &Dense, k: &Dense, matched: &[usize], lane: usize, of: &Parts, mask: &Mask| {
            let owners = of.owners();
            let others = head.negatives(lane, &k.pooled);
            dense(&q.queries, &k.keys, matched, &others, self.temperature, |r, j| mask.counts(owners[r], j))
        };
        let toward_images = toward(&text, &image, &of_words, THIRD, texts, &negatives.images)?; // (4)
        let toward_texts = toward(&image, &text, &of_regions, FOURTH, images, &negatives.texts)?;
        Ok((Some(((toward_images + toward_texts)? * 0.5)?), pooled))
    }

    /// The bracket of (8), and the keys of the second view.
    pub(super) fn image(
        &self,
        head: &Head,
        batch: &Batch<'_, Joint>,
        negatives: &Negatives,
        lambda: f64,
    ) -> Result<(Option<Tensor>, [Tensor; 2])> {
        let table = batch.training.train.images.fragments.as_ref();
        let table = table.ok_or_else(|| batch.training.missing(NAME, "images.fragments"))?;
        let (each, cols) = (table.fragments(), table.width());
        let rows =
            Matrix { rows: batch.items.images.len() * each, cols, data: table.gather(&batch.items.images)?.data };
        let views = Views { window: self.view_window, noise: self.view_noise, drop: self.view_drop };
        let view = || -> Result<(Tensor, Lengths)> {
            let (rows, lengths) = views.draw(&rows, each, &mut batch.stream())?;
            Ok((batch.body().fragments(rows, Some(&mut batch.stream()))?, lengths))
        };
        let ((first, first_lengths), (second, second_lengths)) = (view()?, view()?);
        let whole = [first_lengths.mean(&first)?, second_lengths.mean(&second)?];
        let q = unit(&head.fast.forward(THIRD, &whole[0])?)?;
        let fresh = unit(&head.fast.forward(THIRD, &whole[1])?)?;
        let k = head.key(THIRD, &whole[1], &fresh)?;
        let single = self.whole([&q, &k], head, THIRD, &negatives.views)?;
        let (from, to) = (head.dense(FOURTH, &first, &first_lengths)?, head.dense(FOURTH, &second, &second_lengths)?);
        let pooled = [k, to.pooled.clone()];
        if lambda == 0.0 {
            return Ok((Some(single), pooled));
        }
        let space = [unit(&first.detach())?, unit(&second.detach())?];
        let rows = matching::within(&space[0], &first_lengths, &space[1], &second_lengths)?;
        let matched = matches(&rows, &first_lengths, &second_lengths); // (2)
        let owners = parts::owners(&first_lengths);
        let others = head.negatives(FOURTH, &to.pooled);
        let counts = |r: usize, j: usize| negatives.views.counts(owners[r], j);
        let dense = dense(&from.queries, &to.keys, &matched, &others, self.temperature, counts)?;
        Ok((Some(((single * (1.0 - lambda))? + (dense * lambda)?)?), pooled))
    }
}

/// (2) of rows of similarities, as rows of the other side.
pub(super) fn matches(rows: &[Vec<f64>], of: &Lengths, to: &Lengths) -> Vec<usize> {
    let owners = parts::owners(of);
    rows.iter().zip(owners).map(|(row, item)| to.range(item).start + matching::first_largest(row)).collect()
}

/// (4) of unit rows `q [m, d]` with their matches among `keys`.
pub(super) fn dense(
    q: &Tensor,
    keys: &Tensor,
    matched: &[usize],
    negatives: &Tensor,
    temperature: f64,
    counts: impl Fn(usize, usize) -> bool + Sync,
) -> Result<Tensor> {
    nce::common([q, &select(keys, matched)?, negatives], temperature, counts)
}

/// (3) of one side.
pub(super) struct Dense {
    /// Rows as queries.
    pub queries: Tensor,
    /// Rows as keys.
    pub keys: Tensor,
    /// Keys of wholes.
    pub pooled: Tensor,
}
