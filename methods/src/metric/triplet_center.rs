//! Triplet-center loss (He, Zhou, Zhou, Bai, Bai, CVPR 2018), across modalities: images and texts of a class gather around one
//! learnt centre, and keep a margin from the nearest other one.
//!
//! With features `f_i` of either modality, classes `y_i`, centres `c_k` and `D(f, c) = 1/2 |f - c|^2`:
//!
//! ```text
//! L_tc = 1/n sum_i [D(f_i, c_{y_i}) + margin - min_{k != y_i} D(f_i, c_k)]+                 (1)
//! L    = lambda (L_tc(images) + L_tc(texts)) + softmax_weight (CE(images) + CE(texts))       (2)
//! ```
//!
//! CE is the cross entropy of one linear classifier over both modalities. Departures: the paper has one modality and sums (1)
//! over the batch; centres move with the optimiser of the networks at a rate of their own (the paper: SGD, averaged by class).
//! `form = "released"` takes plain distances and the centres of classes in the batch only, as
//! xlliu7/Shrec2018_TripletCenterLoss.pytorch@36fa434 does. Pairs play no part: an image and its text meet because they share a
//! class. Of an item's several classes each step draws one. Codes are compared by cosine, although (1) trains Euclidean distances:
//! with `normalise` the two order alike, without it they need not.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use crate::{
    Result,
    card::Card,
    loss::{CenterForm, triplet_center},
    nn::{Finish, Joint, Scaling},
    params::out_of_range,
    trained::{Batch, Classifier, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "triplet_center";

/// The method.
pub static TRIPLET_CENTER: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Margin of (1).
    pub margin: f64,
    /// Weight lambda of (1) in (2).
    pub lambda: f64,
    /// Weight of the classifier in (2); 0 leaves it out.
    pub softmax_weight: f64,
    /// Learning rate of the centres.
    pub center_rate: f64,
    /// Which distances and centres (1) has.
    pub form: CenterForm,
    /// Whether vectors are scaled to unit length.
    pub normalise: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            margin: 5.0,
            lambda: 0.1,
            softmax_weight: 1.0,
            center_rate: 0.1,
            form: CenterForm::Paper,
            normalise: false,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("triplet_center.toml")
    }

    fn shared() -> Shared<Joint> {
        Shared { negatives: None, ..Shared::default() }
    }

    fn check(&self, _: &Shared<Joint>) -> Result<()> {
        for (key, value) in [("lambda", self.lambda), ("softmax_weight", self.softmax_weight)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        for (key, value) in [("margin", self.margin), ("center_rate", self.center_rate)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        if self.lambda == 0.0 && self.softmax_weight == 0.0 {
            return Err(out_of_range(NAME, "lambda", "above 0 where `softmax_weight` is 0", self.lambda));
        }
        Ok(())
    }

    fn ends(&self) -> Finish {
        Finish::both(if self.normalise { Scaling::Unit } else { Scaling::None })
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Head> {
        let (classes, width) = (fitting.body.shape().classes, fitting.shared.options.embedding);
        let classifier = Classifier::new(fitting, "classifier", width, classes, "its centres")?;
        Ok(Head { centers: fitting.weights.normal(CENTERS, &[classes, width], 1.0)?, classifier })
    }

    fn rate(&self, weight: &str, shared: &Shared<Joint>) -> f64 {
        if weight == CENTERS { self.center_rate / shared.schedule.learning_rate } else { 1.0 }
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let features = [batch.v()?, batch.t()?];
        let mut loss = Tensor::zeros((), features[0].dtype(), features[0].device())?;
        for (features, classes) in features.into_iter().zip(batch.classes()?) {
            if self.lambda > 0.0 {
                let hinges = triplet_center(features, &head.centers, &classes, self.margin, self.form)?;
                loss = (loss + (hinges.mean_all()? * self.lambda)?)?; // (1)
            }
            if self.softmax_weight > 0.0 {
                loss = (loss + (head.classifier.loss(features, &classes)? * self.softmax_weight)?)?;
            }
        }
        Ok(loss) // (2)
    }

    fn remark(&self) -> Option<String> {
        (self.lambda > 0.0).then(|| "trained on Euclidean distances to centres, retrieved by cosine".into())
    }
}

const CENTERS: &str = "centers";

/// What is learnt beside the encoders.
pub struct Head {
    /// `[classes, d]`.
    centers: Tensor,
    classifier: Classifier,
}
