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
//! `form = "released"` takes plain distances and the centres of classes in the batch only, as released code does. Pairs play no
//! part: an image and its text meet because they share a class. Of an item's several classes each step draws one.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::embedding::{Batch, Embedded, Loss};
use crate::{
    Error, Result,
    card::Card,
    loss::{CenterForm, cross_entropy, triplet_center},
    nn::{Encoders, Finish, Shape, Weights},
    params::out_of_range,
    train::{Schedule, Step},
};

/// The method.
pub struct TripletCenter;

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
    /// The encoders.
    #[serde(flatten)]
    pub encoders: Encoders,
    /// How the model is trained.
    #[serde(flatten)]
    pub schedule: Schedule,
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
            encoders: Encoders::default(),
            schedule: Schedule::default(),
        }
    }
}

impl Loss for Params {
    const NAME: &'static str = "triplet_center";

    fn check(&self) -> Result<()> {
        for (key, value) in [("lambda", self.lambda), ("softmax_weight", self.softmax_weight)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(Self::NAME, key, "a number from 0 up", value));
            }
        }
        for (key, value) in [("margin", self.margin), ("center_rate", self.center_rate)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(Self::NAME, key, "a number above 0", value));
            }
        }
        if self.lambda == 0.0 && self.softmax_weight == 0.0 {
            return Err(out_of_range(Self::NAME, "lambda", "above 0 where `softmax_weight` is 0", self.lambda));
        }
        Ok(())
    }

    fn encoders(&self) -> &Encoders {
        &self.encoders
    }

    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn finish(&self) -> Finish {
        if self.normalise { Finish::UNIT } else { Finish::PLAIN }
    }

    /// Centres, the classifier's weights and its bias.
    fn learnt(&self, weights: &mut Weights, shape: &Shape) -> Result<Vec<Tensor>> {
        let (classes, width) = (shape.classes, self.encoders.embedding);
        if classes < 2 {
            return Err(Error::Numeric(format!(
                "triplet_center: expected at least 2 classes, found {classes}; choose a dataset with labels"
            )));
        }
        let bound = 1.0 / (width as f64).sqrt();
        Ok(vec![
            weights.normal(CENTERS, &[classes, width], 1.0)?,
            weights.uniform("classifier.weight", &[width, classes], bound)?,
            weights.zeros("classifier.bias", &[classes])?,
        ])
    }

    fn rate(&self, weight: &str) -> f64 {
        if weight == CENTERS { self.center_rate / self.schedule.learning_rate } else { 1.0 }
    }

    fn loss(&self, learnt: &[Tensor], batch: &Batch<'_>, step: &mut Step) -> Result<Tensor> {
        let [centers, weight, bias] = learnt else { unreachable!("three tensors are learnt") };
        let mut loss = Tensor::zeros((), batch.v.dtype(), batch.v.device())?;
        for (features, classes) in [&batch.v, &batch.t].into_iter().zip(batch.classes(&mut step.stream)?) {
            if self.lambda > 0.0 {
                let hinges = triplet_center(features, centers, &classes, self.margin, self.form)?;
                loss = (loss + (hinges.mean_all()? * self.lambda)?)?; // (1)
            }
            if self.softmax_weight > 0.0 {
                let scores = features.matmul(weight)?.broadcast_add(bias)?;
                loss = (loss + (cross_entropy(&scores, &classes)? * self.softmax_weight)?)?;
            }
        }
        Ok(loss) // (2)
    }
}

const CENTERS: &str = "centers";

impl Embedded for TripletCenter {
    type Loss = Params;

    fn card() -> &'static Card {
        crate::card!("triplet_center.toml")
    }
}
