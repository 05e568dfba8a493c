//! What values a metric can take, by its stored name.

use std::ops::RangeInclusive;

use super::IN_SHORTLIST;

/// How far rounding may carry a mean out of its range.
const SLACK: f64 = 1e-6;

/// The values that a metric of this name can take; any finite number, where nothing is known of it.
pub fn range(metric: &str) -> RangeInclusive<f64> {
    let short = ["i2t ", "t2i "].iter().find_map(|direction| metric.strip_prefix(direction)).unwrap_or(metric);
    let lower = short.to_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    if begins(&["r@", "kept "]) || lower == IN_SHORTLIST {
        -SLACK..=100.0 + SLACK
    } else if begins(&["map", "p@", "ndcg", "mrr"]) {
        -SLACK..=1.0 + SLACK
    } else if lower == "rsum" {
        -SLACK..=f64::MAX
    } else if lower == "medr" || lower == "meanr" {
        1.0 - SLACK..=f64::MAX
    } else {
        f64::MIN..=f64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_values_there_can_be() {
        for (metric, inside, outside) in [
            ("i2t R@1", 100.0, 100.1),
            ("t2i MAP@all", 0.0, -0.1),
            ("i2t P@5", 1.0, 33.0),
            ("t2i MedR", 1.0, 0.0),
            ("i2t in shortlist", 41.2, 141.2),
            ("rsum", 600.0, -1.0),
            ("correlation", -45.7, f64::INFINITY),
        ] {
            assert!(range(metric).contains(&inside) && !range(metric).contains(&outside), "{metric}");
            assert!(!range(metric).contains(&f64::NAN));
        }
    }
}
