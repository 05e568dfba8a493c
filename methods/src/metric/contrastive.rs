//! Contrastive loss (Hadsell, Chopra, LeCun, CVPR 2006), across modalities: pairs are drawn together, other pairs of the batch
//! are pushed apart until they are a margin away.
//!
//! With image vectors `v_i` and text vectors `t_j` of unit length, `P` the pairs that belong together and `N` those that do not:
//!
//! ```text
//! D_ij = |v_i - t_j|                                                                             (1)
//! hadsell  mean over P of 1/2 D_ij^2  +  mean over N of 1/2 [margin - D_ij]+^2                     (2)
//! linear   mean over P of [D_ij - positive_margin]+  +  mean over N of [margin - D_ij]+            (3)
//! ```
//!
//! The paper sums (2) over given pairs; with all `b^2 - b` negatives of a batch those would drown the `b` positives, so that
//! each side is averaged for itself (`reduction = "sum"` is the paper's). (3) is the form of pytorch-metric-learning 2.9.0. (1) is
//! the plain root, as in the paper; at distance 0 its gradient is taken to be 0 (adambielski/siamese-triplet@0c719f9 adds
//! 1e-9 below the root instead). With `positives = "classes"` all pairs of one class are drawn together.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::Labels;

use crate::{
    Result,
    card::Card,
    loss::{Margins, PairLoss, Reduction, Relation, Relations, contrastive, squared_distances},
    nn::Joint,
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "contrastive";

/// The method.
pub static CONTRASTIVE: Trained<Params> = Trained::new();

/// Its parameters; encoders and schedule are those of VSE++, because the paper has no text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Equation (2) or (3).
    pub form: PairLoss,
    /// Distance beyond which a negative costs nothing; vectors of unit length are at most 2 apart.
    pub margin: f64,
    /// Distance below which a positive costs nothing, equation (3).
    pub positive_margin: f64,
    /// How the parts of (2) or (3) are summed.
    pub reduction: Reduction,
    /// Which pairs belong together.
    pub positives: Positives,
}

/// What belongs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Positives {
    /// The pairs.
    Pairs,
    /// Whatever shares a class, and the pairs.
    Classes,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            form: PairLoss::Hadsell,
            margin: 1.0,
            positive_margin: 0.0,
            reduction: Reduction::Mean,
            positives: Positives::Pairs,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = ();

    fn card() -> &'static Card {
        crate::card!("contrastive.toml")
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        if !(self.margin > 0.0 && self.margin <= 2.0) {
            let expected = "above 0 and at most 2, the largest distance of unit vectors";
            return Err(out_of_range(NAME, "margin", expected, self.margin));
        }
        if !(0.0..2.0).contains(&self.positive_margin) {
            return Err(out_of_range(NAME, "positive_margin", "from 0 to below 2", self.positive_margin));
        }
        if self.positive_margin > 0.0 && self.form == PairLoss::Hadsell {
            let expected = "0 with `form = \"hadsell\"`, which has none";
            return Err(out_of_range(NAME, "positive_margin", expected, self.positive_margin));
        }
        Ok(())
    }

    fn head(&self, _: &mut Fitting<'_, Joint>) -> Result<()> {
        Ok(())
    }

    fn loss(&self, (): &(), batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let squared = squared_distances(batch.v()?, batch.t()?)?; // (1)
        let margins = Margins { positive: self.positive_margin, negative: self.margin };
        contrastive(&squared, &self.relations(batch)?, self.form, margins, 0.0, self.reduction) // (2), (3)
    }
}

impl Params {
    fn relations(&self, batch: &Batch<'_, Joint>) -> Result<Relations> {
        let relations = batch.relations()?;
        if self.positives == Positives::Pairs {
            return Ok(relations);
        }
        let (images, texts) = batch.labels()?;
        let items = &batch.items;
        let [rows, columns] = relations.shape();
        Ok(Relations::new(rows, columns, |i, j| {
            match Labels::share(&images.of[items.images[i]], &texts.of[items.texts[j]]) {
                true => Relation::Positive,
                false => relations.get(i, j),
            }
        }))
    }
}
