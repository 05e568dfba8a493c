//! What the name of a metric says: direction, unit, precision, which end is better.

use super::time::{QUERY, STEP};
use crate::protocol::{Direction, IN_SHORTLIST};

/// A metric by its stored name: `i2t R@1`, `t2i MAP@all`, `rsum`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The stored name.
    pub name: String,
    /// Who asks; none for metrics over both directions.
    pub direction: Option<Direction>,
    /// What it measures.
    pub kind: Kind,
}

/// What a metric measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// R@K, percent.
    Recall(usize),
    /// The sum of every R@K of the protocol, percent.
    RecallSum,
    /// MAP over the whole gallery, a fraction.
    MeanAveragePrecision,
    /// Median or mean rank: less is better.
    Rank,
    /// A share in percent in which rows do not compete: of queries that a shortlist holds, a bound on a second stage; of vectors that
    /// a mask keeps.
    Share,
    /// Milliseconds by the clock: less is better, and a gain is a share of the other row's time in percent.
    Time,
    /// A number in which rows do not compete: a threshold that was learnt.
    Threshold,
    /// Another fraction: MAP@k, precision@k, nDCG@k.
    Fraction,
    /// A number of which nothing is known but that more is better.
    Other,
}

impl Metric {
    /// Reads a stored name.
    pub fn parse(name: &str) -> Self {
        let (direction, short) = match name.split_once(' ') {
            Some(("i2t", rest)) => (Some(Direction::I2t), rest),
            Some(("t2i", rest)) => (Some(Direction::T2i), rest),
            _ => (None, name),
        };
        let lower = short.to_lowercase();
        let fraction = ["map", "p@", "precision", "ndcg", "mrr"].iter().any(|start| lower.starts_with(start));
        let kind = match lower.strip_prefix("r@").map(str::parse) {
            Some(Ok(k)) => Kind::Recall(k),
            _ if lower == "rsum" => Kind::RecallSum,
            _ if lower == "map@all" => Kind::MeanAveragePrecision,
            _ if lower == IN_SHORTLIST || lower.starts_with("kept ") => Kind::Share,
            _ if [QUERY, STEP].contains(&lower.as_str()) => Kind::Time,
            _ if lower == "threshold" => Kind::Threshold,
            _ if lower == "medr" || lower == "meanr" => Kind::Rank,
            _ if fraction => Kind::Fraction,
            _ => Kind::Other,
        };
        Self { name: name.to_string(), direction, kind }
    }

    /// The name without its direction.
    pub fn short(&self) -> &str {
        self.direction.map_or(self.name.as_str(), |_| &self.name[4..])
    }

    /// The direction in words; empty for metrics over both.
    pub fn group(&self) -> &'static str {
        match self.direction {
            Some(Direction::I2t) => "image to text",
            Some(Direction::T2i) => "text to image",
            None => "",
        }
    }

    /// Whether a row can be the best by it.
    pub fn is_contested(&self) -> bool {
        !matches!(self.kind, Kind::Share | Kind::Threshold)
    }

    /// Whether smaller values are better.
    pub fn less_is_better(&self) -> bool {
        matches!(self.kind, Kind::Rank | Kind::Time)
    }

    /// Half a point: what ties must move for the envelope to be shown.
    pub fn half_a_point(&self) -> f64 {
        match self.kind {
            Kind::MeanAveragePrecision | Kind::Fraction => 0.005,
            _ => 0.5,
        }
    }

    /// Digits after the point.
    pub fn decimals(&self) -> usize {
        match self.kind {
            Kind::Recall(_) | Kind::RecallSum | Kind::Share | Kind::Rank => 1,
            Kind::MeanAveragePrecision | Kind::Fraction => 3,
            Kind::Time | Kind::Threshold | Kind::Other => 2,
        }
    }

    /// What one row gains on another, in the table's precision.
    pub fn format_gain(&self, gain: f64) -> String {
        if self.kind == Kind::Time { format!("{gain:.0} %") } else { self.format(gain) }
    }

    /// A value in the table's precision.
    pub fn format(&self, value: f64) -> String {
        let text = format!("{value:.*}", self.decimals());
        // "-0.0" would read as a sign of something.
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            text.trim_start_matches('-').to_string()
        } else {
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_unit_and_direction() {
        let recall = Metric::parse("i2t R@10");
        assert_eq!((recall.kind, recall.direction), (Kind::Recall(10), Some(Direction::I2t)));
        assert_eq!((recall.short(), recall.format(-0.04).as_str()), ("R@10", "0.0"));
        assert_eq!(Metric::parse("t2i MAP@all").kind, Kind::MeanAveragePrecision);
        assert_eq!(Metric::parse("t2i MAP@50").kind, Kind::Fraction);
        assert!(
            ["kept queries", "threshold", "i2t in shortlist"].iter().all(|name| !Metric::parse(name).is_contested())
        );
        assert!(Metric::parse("rsum").is_contested());
        assert!(Metric::parse("t2i MedR").less_is_better());
        assert_eq!(Metric::parse("i2t in shortlist").format(41.25), "41.2");
        assert_eq!(Metric::parse("total correlation").short(), "total correlation");
    }
}
