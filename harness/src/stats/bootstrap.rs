//! The paired bootstrap: images are drawn with all their queries, and seeds are drawn as a second level.
//!
//! A replicate draws as many images as there are, with replacement, and as many seeds as there are, with replacement,
//! and takes the metric over what was drawn. Every row of a table sees the same draws, so that the differences of two
//! rows' replicates are replicates of the difference. With few seeds the seeds' share of the variance comes out small by
//! (n - 1) / n.

use rayon::prelude::*;
use xmbench_datasets::random::Seed;

use super::{metric::Metric, outcome};
use crate::record::Trial;

/// Replicates an interval rests on.
pub const DRAWS: usize = 1000;

/// A metric of one row, split into what each image contributes under each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Images, ascending.
    clusters: Vec<u32>,
    /// The means that add up to the metric: one for most, six for `rsum`.
    terms: Vec<Term>,
    /// Seeds.
    seeds: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Term {
    /// Queries of each image.
    counts: Vec<f64>,
    /// Sum over the queries of each image, one vector a seed.
    sums: Vec<Vec<f64>>,
}

impl Sample {
    /// Splits `metric` over the queries of `trials`, one trial a seed.
    ///
    /// `None` where the metric is not a mean over queries, where queries were not kept, or where two seeds did not ask
    /// the same queries.
    pub fn of(metric: &Metric, trials: &[&Trial]) -> Option<Self> {
        let parts = outcome::terms(metric, &trials.first()?.protocol);
        let mut clusters: Vec<u32> = trials[0].queries.iter().map(|query| query.cluster).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let mut terms = Vec::new();
        for part in &parts {
            let mut term = Term { counts: Vec::new(), sums: Vec::new() };
            for trial in trials {
                let (mut counts, mut sums) = (vec![0.0; clusters.len()], vec![0.0; clusters.len()]);
                for (cluster, value) in part.values(trial)? {
                    let at = clusters.binary_search(&cluster).ok()?;
                    counts[at] += 1.0;
                    sums[at] += value;
                }
                if !term.sums.is_empty() && term.counts != counts {
                    return None;
                }
                term.counts = counts;
                term.sums.push(sums);
            }
            if term.counts.iter().all(|count| *count == 0.0) {
                return None;
            }
            terms.push(term);
        }
        (!terms.is_empty()).then_some(Self { clusters, terms, seeds: trials.len() })
    }

    /// The metric itself: every image and every seed once.
    pub fn value(&self) -> f64 {
        self.weighted(&vec![1.0; self.clusters.len()], &vec![1.0; self.seeds])
    }

    /// Whether both asked the same queries under as many seeds, so that their replicates pair up.
    pub fn pairs_with(&self, other: &Self) -> bool {
        self.seeds == other.seeds
            && self.clusters == other.clusters
            && self.terms.len() == other.terms.len()
            && self.terms.iter().zip(&other.terms).all(|(a, b)| a.counts == b.counts)
    }

    /// Number of images and of seeds.
    pub fn shape(&self) -> (usize, usize) {
        (self.clusters.len(), self.seeds)
    }

    /// The draws that fit this sample's [`shape`](Self::shape); share them between the samples of a table.
    pub fn draws(&self) -> Draws {
        Draws::new(self.clusters.len(), self.seeds)
    }

    /// [`DRAWS`] replicates of the metric.
    pub fn replicates(&self, draws: &Draws) -> Vec<f64> {
        let all = draws.images.par_iter().zip(&draws.seeds);
        all.map(|(images, seeds)| self.weighted(images, seeds)).collect()
    }

    fn weighted(&self, images: &[f64], seeds: &[f64]) -> f64 {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let total: f64 = seeds.iter().sum();
        self.terms
            .iter()
            .map(|term| {
                let drawn = term.sums.iter().zip(seeds).filter(|(_, weight)| **weight > 0.0);
                let sum: f64 = drawn.map(|(sums, weight)| weight * dot(sums, images)).sum();
                sum / dot(&term.counts, images) / total
            })
            .sum()
    }
}

/// How often each image and each seed is drawn in each replicate.
#[derive(Debug)]
pub struct Draws {
    images: Vec<Vec<f64>>,
    seeds: Vec<Vec<f64>>,
}

impl Draws {
    /// The draws for so many images and seeds: always the same ones.
    pub fn new(images: usize, seeds: usize) -> Self {
        let draw = |level: &str, n: usize| -> Vec<Vec<f64>> {
            let mut stream = Seed(0).stream(&["bootstrap", level, &n.to_string()]);
            let one = |_| {
                let mut weights = vec![0.0; n];
                (0..n).for_each(|_| weights[stream.below(n)] += 1.0);
                weights
            };
            (0..DRAWS).map(one).collect()
        };
        Self { images: draw("images", images), seeds: draw("seeds", seeds) }
    }
}

/// Replicates of `a - b`, from replicates under the same draws.
pub fn differences(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Direction, Query},
        record::synthetic,
        stats::Interval,
    };

    /// A trial with `per_image` queries an image, each a hit with its own better count.
    fn trial(seed: u64, images: u32, per_image: u32, better: impl Fn(u32, u32) -> u32) -> Trial {
        let mut trial = synthetic::trial("e", 0, "m", "d", seed);
        let all = (0..images).flat_map(|cluster| (0..per_image).map(move |i| (cluster, i)));
        let query = |(cluster, i)| Query {
            direction: Direction::T2i,
            query: cluster * per_image + i,
            cluster,
            better: better(cluster, i),
            tied: 1,
            own: 1,
            average_precision: f64::NAN,
        };
        trial.queries = all.map(query).collect();
        trial
    }

    fn half_width(trials: &[&Trial]) -> f64 {
        let sample = Sample::of(&Metric::parse("t2i R@1"), trials).unwrap();
        let interval = Interval::of_replicates(&sample.replicates(&sample.draws())).unwrap();
        assert!(interval.contains(sample.value()));
        (interval.high - interval.low) / 2.0
    }

    #[test]
    fn a_bernoulli_mean_has_the_interval_of_the_normal_approximation() {
        // 30 % of 1000 independent queries: 1.96 sqrt(0.3 * 0.7 / 1000) = 2.84 points.
        let independent = trial(0, 1000, 1, |image, _| u32::from(image % 10 >= 3));
        assert!((half_width(&[&independent]) - 2.840).abs() < 0.2);
    }

    #[test]
    fn a_metric_of_which_queries_were_kept_has_an_interval() {
        use crate::protocol::{Denominator, Task};
        let mut kept = trial(0, 1000, 1, |_, _| 0);
        let metric = Metric::parse("t2i MAP@50");
        let gallery = xmbench_datasets::Split::Train;
        kept.protocol.task = Task::Category { gallery, cutoffs: vec![50], denominator: Denominator::Hits };
        // Nothing was kept, as in recordings of before: no sample.
        assert_eq!(Sample::of(&metric, &[&kept]), None);
        // 30 % of the queries have 1 and all others 0: 1.96 sqrt(0.3 * 0.7 / 1000) = 0.0284, of one seed.
        kept.values.insert("t2i MAP@50".into(), (0..1000).map(|i| f64::from(u8::from(i % 10 < 3))).collect());
        let sample = Sample::of(&metric, &[&kept]).unwrap();
        let interval = Interval::of_replicates(&sample.replicates(&sample.draws())).unwrap();
        assert!((sample.value() - 0.3).abs() < 1e-12);
        assert!(((interval.high - interval.low) / 2.0 - 0.0284).abs() < 0.002, "{interval:?}");
        // Queries that all have the same value leave no doubt but about seeds.
        kept.values.insert("t2i MAP@50".into(), vec![0.25; 1000]);
        let sample = Sample::of(&metric, &[&kept]).unwrap();
        let interval = Interval::of_replicates(&sample.replicates(&sample.draws())).unwrap();
        assert!((interval.low - 0.25).abs() < 1e-12 && (interval.high - 0.25).abs() < 1e-12);
        // A value of one query less is not paired with the wrong ones.
        kept.values.insert("t2i MAP@50".into(), vec![0.25; 999]);
        assert_eq!(Sample::of(&metric, &[&kept]), None);
    }

    #[test]
    fn queries_of_one_image_count_as_one() {
        // Five captions that always agree carry the information of 200 images, not of 1000 captions:
        // 1.96 sqrt(0.3 * 0.7 / 200) = 6.35 points.
        let clustered = trial(0, 200, 5, |image, _| u32::from(image % 10 >= 3));
        assert!((half_width(&[&clustered]) - 6.351).abs() < 0.5);
    }

    #[test]
    fn seeds_are_a_second_level() {
        // Half of the seeds hit always, half never: 4 seeds give 1.96 sqrt(0.25 / 4) = 49 points, whatever the queries.
        let trials: Vec<Trial> = (0..4).map(|seed| trial(seed, 500, 1, move |_, _| u32::from(seed % 2 == 0))).collect();
        let width = half_width(&trials.iter().collect::<Vec<_>>());
        assert!((width - 49.0).abs() < 3.0, "{width}");
    }

    #[test]
    fn a_paired_difference_knows_what_is_shared() {
        // b misses what a misses and five images more: the difference is 0.5 points for certain to within Poisson noise,
        // far narrower than either interval.
        let a = trial(0, 1000, 1, |image, _| u32::from(image % 2 == 0));
        let b = trial(0, 1000, 1, |image, _| u32::from(image % 2 == 0 || image % 200 == 1));
        let metric = Metric::parse("t2i R@1");
        let (a, b) = (Sample::of(&metric, &[&a]).unwrap(), Sample::of(&metric, &[&b]).unwrap());
        assert!(a.pairs_with(&b) && (a.value() - b.value() - 0.5).abs() < 1e-12);
        let draws = a.draws();
        let interval = Interval::of_replicates(&differences(&a.replicates(&draws), &b.replicates(&draws))).unwrap();
        assert!(interval.low > 0.0 && interval.high < 1.1, "{interval:?}");
    }

    #[test]
    fn the_same_bits_on_every_number_of_threads() {
        let trial = trial(0, 300, 1, |image, _| image % 3);
        let sample = Sample::of(&Metric::parse("t2i R@2"), &[&trial]).unwrap();
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| sample.replicates(&sample.draws()))
        };
        assert_eq!(run(1), run(4));
    }
}
