//! How far a number may move when one program trains the same trial on two devices.
//!
//! Both start from the same bits: initial weights, order of pairs and every other random number are drawn on the processor.
//! What differs is rounding, by about 1e-7 of a sum in f32. Closed forms compute in f64 on the processor wherever the run is, and
//! must be equal. What training makes of the rounding was measured on the processor before any run on a GPU, by changing the
//! learning rate by factors of 0.99999, 1.00001 and 1.0001:
//!
//! - a softmax over the batch (InfoNCE), hashing (DJSRH) and DCCA stay within 0.1 % of every number;
//! - a hinge moves R@K by up to 12 % of its value after 24 epochs, since negatives enter and leave it one by one;
//! - SCAN moves most: its loss by 1 % within one epoch of the smoke profile and by up to 17 % after 24 epochs on planted data, R@K by
//!   up to 13 %, rsum by 8 %, the mean rank by 24 %.
//!
//! The bounds are about twice the largest of these, so that they refuse what does not learn and not what learns another way; that
//! single operations agree is for the golden files to show, within their own tolerances.
//!
//! | number | may differ by | of a trial |
//! |---|---|---|
//! | any | nothing | without training |
//! | loss of the first epoch | 3 % | with training |
//! | loss of a later epoch | 30 % | |
//! | R@K | 25 %, or 3 queries if those are more | |
//! | rsum | 20 %, or 6 queries if those are more | |
//! | MAP and other fractions | 10 % | |
//! | MedR, MeanR | 40 %, or 2 ranks if those are more | |
//! | correlation | 5 % | |

use super::metric::{Kind, Metric};
use crate::{protocol::Direction, record::Trial};

/// The largest difference of a metric between two devices that rounding explains, in the metric's unit.
pub fn allowed(metric: &Metric, a: &Trial, b: &Trial) -> f64 {
    // What is made of other rows has no history, and may be made of trained ones.
    if [a, b].iter().all(|trial| trial.history.is_empty() && !trial.is_made_of_others()) {
        return 0.0;
    }
    let value = |trial: &Trial| trial.metrics.get(&metric.name).map_or(0.0, |value| value.abs());
    let share = |share: f64| share * value(a).max(value(b));
    // Points that one query is worth; without stored queries nothing is known of it.
    let query = |direction| {
        let asked = a.queries.iter().filter(|query| Some(query.direction) == direction).count();
        if asked == 0 { 0.0 } else { 100.0 / asked as f64 }
    };
    match metric.kind {
        Kind::Recall(_) | Kind::Share => share(0.25).max(3.0 * query(metric.direction)),
        Kind::RecallSum => {
            let both = [Direction::I2t, Direction::T2i].map(|direction| query(Some(direction)));
            share(0.2).max(6.0 * both[0].max(both[1]))
        }
        Kind::MeanAveragePrecision | Kind::Fraction => share(0.1),
        Kind::Rank => share(0.4).max(2.0),
        Kind::Time => f64::INFINITY,
        Kind::Threshold | Kind::Other => share(0.05),
    }
}

/// The largest difference between the mean losses of an epoch, counted from 1, that rounding explains.
pub fn allowed_loss(epoch: usize, a: f64, b: f64) -> f64 {
    let share = if epoch == 1 { 0.03 } else { 0.3 };
    share * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::synthetic;

    #[test]
    fn each_metric_has_its_bound() {
        let recording = synthetic::recording();
        let of = |label: &str| recording.trials.iter().find(|trial| trial.label == label).unwrap();
        // 200 images and 1000 texts ask.
        let bound = |name: &str, value: f64| {
            let mut trial = of("VSE++").clone();
            trial.metrics.insert(name.into(), value);
            allowed(&Metric::parse(name), &trial, &trial)
        };
        // A share of the value, but three queries at least.
        assert_eq!(["i2t R@1", "t2i R@1"].map(|name| bound(name, 4.0)), [1.5, 1.0]);
        assert_eq!((bound("i2t R@1", 40.0), bound("rsum", 400.0)), (10.0, 80.0));
        assert_eq!((bound("MAP@all", 0.5), bound("t2i nDCG@50", 0.25)), (0.05, 0.025));
        assert_eq!((bound("i2t MedR", 4.0), bound("t2i MeanR", 100.0)), (2.0, 40.0));
        assert_eq!(bound("correlation", 40.0), 2.0);
        let mut low = of("VSE++").clone();
        low.metrics.insert("rsum".into(), 10.0);
        assert_eq!(allowed(&Metric::parse("rsum"), &low, &low), 3.0);
        assert_eq!(allowed(&Metric::parse("i2t R@1"), of("CCA"), of("CCA")), 0.0);
        let mut made = low.clone();
        made.history.clear();
        made.method = crate::record::ENSEMBLE.into();
        assert_eq!(allowed(&Metric::parse("rsum"), &made, &made), 3.0);
        assert_eq!((allowed_loss(1, 2.0, -3.0), allowed_loss(2, 2.0, 1.0)), (0.09, 0.6));
    }
}
