//! The paired bootstrap: images are drawn with all their queries, and seeds are drawn as a second level.
//!
//! A replicate draws as many images as there are, with replacement, and as many seeds as there are, with replacement,
//! and takes the metric over what was drawn. Every row of a table sees the same draws, so that the differences of two
//! rows' replicates are replicates of the difference.
//!
//! A few seeds drawn from themselves vary too little, by `(n - 1) / n`, and a quantile of what they give is one of a normal
//! distribution at best. So
//!
//! 1. the weight of a seed that was drawn `c` times is `1 + sqrt(n / (n - 1)) (c - 1)`, whose mean over seeds is 1 and which makes the
//!    seeds' share of the variance that of their mean, `s^2 / n`;
//! 2. both ends of the middle 95 % of the replicates are moved away from the metric by `t / z`, the 97.5 % points of Student's t and of
//!    the normal distribution, with the degrees of freedom of Satterthwaite: `(V_i + V_s)^2 / (V_i^2 / (m - 1) + V_s^2 / (n - 1))` for
//!    the variances over `m` images and over `n` seeds.

use faer::{Accum, Mat, MatRef, Par, linalg::matmul::matmul};
use rayon::prelude::*;
use xmbench_datasets::random::Seed;

use super::{Interval, NORMAL, deviation, mean, median::Ranks, metric::Metric, outcome, student};
use crate::{protocol::Direction, record::Trial};

/// Replicates an interval rests on.
pub const DRAWS: usize = 10_000;

/// Draws that are weighed at once.
const BLOCK: usize = 250;

/// A metric of one row, split into what each image contributes under each seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Images, ascending.
    clusters: Vec<u32>,
    /// How the metric comes of the queries.
    form: Form,
    /// Seeds.
    seeds: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Form {
    /// Means that add up to the metric: one for most, six for `rsum`.
    Means(Vec<Term>),
    /// The median of ranks.
    Median {
        /// Queries of each image.
        counts: Vec<f64>,
        /// A seed each.
        ranks: Vec<Ranks>,
    },
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
    /// `None` where the metric is neither a mean over queries nor their median rank, where queries were not kept, or where two seeds did
    /// not ask the same queries of the same data.
    pub fn of(metric: &Metric, trials: &[&Trial]) -> Option<Self> {
        if are_splits(trials) {
            return None;
        }
        let mut clusters: Vec<u32> = trials.first()?.queries.iter().map(|query| query.cluster).collect();
        clusters.sort_unstable();
        clusters.dedup();
        let form = match outcome::median(metric) {
            Some(direction) => Self::median(&clusters, direction, trials)?,
            None => Form::Means(Self::terms(&clusters, metric, trials)?),
        };
        Some(Self { clusters, form, seeds: trials.len() })
    }

    fn median(clusters: &[u32], direction: Direction, trials: &[&Trial]) -> Option<Form> {
        let place = |cluster: u32| clusters.binary_search(&cluster).ok();
        let (mut counts, mut ranks): (Vec<f64>, Vec<Ranks>) = (Vec::new(), Vec::new());
        for trial in trials {
            let mut here = vec![0.0; clusters.len()];
            for query in trial.queries.iter().filter(|query| query.direction == direction) {
                here[place(query.cluster)?] += 1.0;
            }
            if !ranks.is_empty() && counts != here {
                return None;
            }
            counts = here;
            ranks.push(Ranks::of(&trial.queries, direction, trial.protocol.ties, place)?);
        }
        counts.iter().any(|count| *count > 0.0).then_some(Form::Median { counts, ranks })
    }

    fn terms(clusters: &[u32], metric: &Metric, trials: &[&Trial]) -> Option<Vec<Term>> {
        let parts = outcome::terms(metric, &trials.first()?.protocol);
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
        (!terms.is_empty()).then_some(terms)
    }

    /// The metric itself: every image and every seed once.
    pub fn value(&self) -> f64 {
        mean(&self.by_seed()).unwrap_or(f64::NAN)
    }

    /// The metric under each seed, every image once.
    fn by_seed(&self) -> Vec<f64> {
        match &self.form {
            Form::Means(terms) => {
                let of = |seed: usize| {
                    let term = |term: &Term| term.sums[seed].iter().sum::<f64>() / term.counts.iter().sum::<f64>();
                    terms.iter().map(term).sum()
                };
                (0..self.seeds).map(of).collect()
            }
            Form::Median { counts, ranks } => ranks.iter().map(|it| it.median(|_| 1.0, counts.iter().sum())).collect(),
        }
    }

    /// Whether both asked the same queries under as many seeds, so that their replicates pair up.
    pub fn pairs_with(&self, other: &Self) -> bool {
        let same = match (&self.form, &other.form) {
            (Form::Means(a), Form::Means(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.counts == b.counts)
            }
            (Form::Median { counts: a, .. }, Form::Median { counts: b, .. }) => a == b,
            _ => false,
        };
        same && self.seeds == other.seeds && self.clusters == other.clusters
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
    pub fn replicates(&self, draws: &Draws) -> Replicates {
        let seen = match &self.form {
            Form::Means(terms) => self.means(terms, draws),
            Form::Median { counts, ranks } => self.medians((counts, ranks), draws),
        };
        let n = self.seeds as f64;
        let weighed = |(by_seed, weights): (&Vec<f64>, &Vec<f64>)| {
            by_seed.iter().zip(weights).map(|(value, weight)| value * weight).sum::<f64>() / n
        };
        Replicates {
            both: seen.iter().zip(&draws.seeds).map(weighed).collect(),
            by_image: seen.iter().map(|by_seed| by_seed.iter().sum::<f64>() / n).collect(),
            by_seed: self.by_seed(),
            images: self.clusters.len(),
        }
    }

    /// For each draw of images the metric under each seed.
    fn means(&self, terms: &[Term], draws: &Draws) -> Vec<Vec<f64>> {
        let images = self.clusters.len();
        // For each term the counts and then the sums of every seed: what all draws weigh, a column each.
        let vectors = terms.iter().flat_map(|term| std::iter::once(&term.counts).chain(&term.sums));
        let columns: Vec<f64> = vectors.flatten().copied().collect();
        let columns = MatRef::from_column_major_slice(&columns, images, terms.len() * (self.seeds + 1));
        let blocks: Vec<&[u8]> = draws.images.chunks(BLOCK * images).collect();
        blocks
            .par_iter()
            .flat_map_iter(|block| {
                let weights: Vec<f64> = block.iter().map(|&count| f64::from(count)).collect();
                let weights = MatRef::from_row_major_slice(&weights, weights.len() / images, images);
                let mut sums: Mat<f64> = Mat::zeros(weights.nrows(), columns.ncols());
                matmul(&mut sums, Accum::Replace, weights, columns, 1.0, Par::Seq);
                let metric = move |draw: usize, seed: usize| {
                    let term = |at: usize| sums[(draw, at + 1 + seed)] / sums[(draw, at)];
                    (0..terms.len()).map(|term_at| term(term_at * (self.seeds + 1))).sum()
                };
                let of = move |draw| (0..self.seeds).map(|seed| metric(draw, seed)).collect();
                (0..block.len() / images).map(of)
            })
            .collect()
    }

    /// As [`Sample::means`], of a median.
    fn medians(&self, (counts, ranks): (&[f64], &[Ranks]), draws: &Draws) -> Vec<Vec<f64>> {
        let of = |drawn: &[u8]| {
            let total = counts.iter().zip(drawn).map(|(count, &times)| count * f64::from(times)).sum();
            ranks.iter().map(|it| it.median(|image| f64::from(drawn[image]), total)).collect()
        };
        draws.images.par_chunks(self.clusters.len()).map(of).collect()
    }
}

/// Whether trials are on data of their own each, and image 3 of one is not that of another.
pub fn are_splits(trials: &[&Trial]) -> bool {
    trials.iter().any(|trial| trial.checksum != trials[0].checksum)
}

/// Replicates of a metric, or of the difference of two rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Replicates {
    /// Images and seeds drawn; not a number where no query was.
    both: Vec<f64>,
    /// Images drawn, every seed once.
    by_image: Vec<f64>,
    /// Each seed, every image once.
    by_seed: Vec<f64>,
    images: usize,
}

impl Replicates {
    /// Replicates of the difference, of replicates under the same draws.
    pub fn minus(&self, other: &Self) -> Self {
        let minus = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a - b).collect();
        Self {
            both: minus(&self.both, &other.both),
            by_image: minus(&self.by_image, &other.by_image),
            by_seed: minus(&self.by_seed, &other.by_seed),
            images: self.images,
        }
    }

    /// The 95 % interval; `None` if no replicate is a number.
    pub fn interval(&self) -> Option<Interval> {
        let middle = Interval::of_replicates(&self.both)?;
        let value = mean(&self.by_seed)?;
        let wider = student(self.freedom()) / NORMAL;
        Some(Interval { low: value - wider * (value - middle.low), high: value + wider * (middle.high - value) })
    }

    /// Degrees of freedom of the spread.
    pub fn freedom(&self) -> f64 {
        let drawn: Vec<f64> = self.by_image.iter().copied().filter(|value| value.is_finite()).collect();
        let (images, seeds) = (self.images.max(2) as f64, self.by_seed.len() as f64);
        let over_images = deviation(&drawn).unwrap_or(0.0).powi(2);
        // One seed says nothing of others, and takes nothing from the images' degrees.
        let over_seeds = deviation(&self.by_seed).map_or(0.0, |deviation| deviation.powi(2) / seeds);
        let shares = over_images.powi(2) / (images - 1.0) + over_seeds.powi(2) / (seeds - 1.0).max(1.0);
        if shares > 0.0 { (over_images + over_seeds).powi(2) / shares } else { images - 1.0 }
    }
}

/// How often each image is drawn and how much each seed weighs in each replicate.
#[derive(Debug)]
pub struct Draws {
    /// Draw by draw. Of `m` draws one image gets `m` at most and 255 never.
    images: Vec<u8>,
    seeds: Vec<Vec<f64>>,
}

impl Draws {
    /// The draws for so many images and seeds: always the same ones.
    pub fn new(images: usize, seeds: usize) -> Self {
        Self::so_many(DRAWS, images, seeds)
    }

    fn so_many(draws: usize, images: usize, seeds: usize) -> Self {
        let draw = |level: &str, n: usize| -> Vec<u8> {
            let mut stream = Seed(0).stream(&["bootstrap", level, &n.to_string()]);
            let mut counts = vec![0u8; draws * n];
            for counts in counts.chunks_mut(n) {
                (0..n).for_each(|_| {
                    let drawn = &mut counts[stream.below(n)];
                    *drawn = drawn.saturating_add(1);
                });
            }
            counts
        };
        let n = seeds as f64;
        let stretch = if seeds > 1 { (n / (n - 1.0)).sqrt() } else { 1.0 };
        let weight = |&count: &u8| 1.0 + stretch * (f64::from(count) - 1.0);
        let counts = draw("seeds", seeds);
        let seeds = counts.chunks(seeds).map(|counts| counts.iter().map(weight).collect()).collect();
        Self { images: draw("images", images), seeds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Direction, Query},
        record::synthetic,
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
        let interval = sample.replicates(&sample.draws()).interval().unwrap();
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
        let interval = sample.replicates(&sample.draws()).interval().unwrap();
        assert!((sample.value() - 0.3).abs() < 1e-12);
        assert!(((interval.high - interval.low) / 2.0 - 0.0284).abs() < 0.002, "{interval:?}");
        // Queries that all have the same value leave no doubt but about seeds.
        kept.values.insert("t2i MAP@50".into(), vec![0.25; 1000]);
        let sample = Sample::of(&metric, &[&kept]).unwrap();
        let interval = sample.replicates(&sample.draws()).interval().unwrap();
        assert!((interval.low - 0.25).abs() < 1e-12 && (interval.high - 0.25).abs() < 1e-12);
        // A value of one query less is not paired with the wrong ones.
        kept.values.insert("t2i MAP@50".into(), vec![0.25; 999]);
        assert_eq!(Sample::of(&metric, &[&kept]), None);
    }

    #[test]
    fn a_median_rank_has_the_interval_of_its_order_statistics() {
        // Ranks 1 to 1000, each once: the median is 500, and of a uniform distribution over 1000 ranks the median of 1000 draws deviates by
        // 1000 / (2 sqrt(1000)) = 15.8, so 31.0 to either side.
        let trial = trial(0, 1000, 1, |image, _| image);
        let sample = Sample::of(&Metric::parse("t2i MedR"), &[&trial]).unwrap();
        let interval = sample.replicates(&sample.draws()).interval().unwrap();
        assert_eq!(sample.value(), 500.0);
        assert!(((interval.high - interval.low) / 2.0 - 31.0).abs() < 2.5, "{interval:?}");
        // The mean rank is a mean over queries: 500.5, with 1.96 * 288.7 / sqrt(1000) = 17.9.
        let sample = Sample::of(&Metric::parse("t2i MeanR"), &[&trial]).unwrap();
        let interval = sample.replicates(&sample.draws()).interval().unwrap();
        assert!((sample.value() - 500.5).abs() < 1e-9);
        assert!(((interval.high - interval.low) / 2.0 - 17.9).abs() < 1.0, "{interval:?}");
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
        // Half of the seeds hit always, half never: a deviation of 57.7 points, of the mean of 4 seeds of 28.9, whatever the queries.
        // The 97.5 % point of Student's t with 3 degrees of freedom is 3.182: 91.9 points.
        let trials: Vec<Trial> = (0..4).map(|seed| trial(seed, 500, 1, move |_, _| u32::from(seed % 2 == 0))).collect();
        let width = half_width(&trials.iter().collect::<Vec<_>>());
        assert!((width - 91.9).abs() < 3.0, "{width}");
    }

    /// How often the interval holds the truth: seeds whose means deviate `ratio` times as much as what 100 images leave in doubt, of
    /// queries that agree between seeds in part.
    fn coverage(seeds: usize, ratio: f64) -> f64 {
        const IMAGES: usize = 100;
        const REPEATS: usize = 1000;
        let draws = Draws::so_many(400, IMAGES, seeds);
        let label = [seeds.to_string(), ratio.to_string()];
        let held = (0..REPEATS).into_par_iter().filter(|repeat| {
            let mut stream = Seed(7).stream(&["coverage", &label[0], &label[1], &repeat.to_string()]);
            let shared: Vec<f64> = (0..IMAGES).map(|_| stream.normal()).collect();
            let mut seed = |_| {
                let shift = ratio * stream.normal() / (IMAGES as f64).sqrt();
                shared.iter().map(|image| shift + 0.8 * image + 0.6 * stream.normal()).collect()
            };
            let sums: Vec<Vec<f64>> = (0..seeds).map(&mut seed).collect();
            let terms = vec![Term { counts: vec![1.0; IMAGES], sums }];
            let sample = Sample { clusters: (0..IMAGES as u32).collect(), form: Form::Means(terms), seeds };
            sample.replicates(&draws).interval().unwrap().contains(0.0)
        });
        held.count() as f64 / REPEATS as f64
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        for seeds in [3, 5] {
            for ratio in [0.0, 1.0, 2.0] {
                let coverage = coverage(seeds, ratio);
                assert!((0.93..=0.995).contains(&coverage), "{seeds} seeds, ratio {ratio}: {coverage}");
            }
        }
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
        let interval = a.replicates(&draws).minus(&b.replicates(&draws)).interval().unwrap();
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
