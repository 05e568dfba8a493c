//! What a recording says of a claim.

use std::path::Path;

use xmbench_methods::card::{Card, Claim, ClaimTest, Kind as Asked, Region};

use super::Stated;
use crate::{
    protocol,
    record::{
        Control, Recording, Stem, Trial,
        section::{Row, Section, whole_sections},
        words,
    },
    run::{Experiment, Profile, nearest},
    stats::{
        self, Interval,
        budget::Budget,
        holm,
        metric::{Kind, Metric},
        paired::{Basis, Cache, Paired},
        time,
    },
};

/// One test of a claim on one dataset.
#[derive(Debug, Clone)]
pub struct Tested<'a> {
    /// The card.
    pub card: &'a Card,
    /// The claim.
    pub claim: &'a Claim,
    /// Its test.
    pub test: &'a ClaimTest,
    /// Dataset; empty where none was run and the test names none.
    pub dataset: String,
    /// Name of the table that has the rows; empty where the recording has none.
    pub stem: Option<Stem>,
    /// What came out, or what there is not.
    pub outcome: Result<Finding, Missing>,
    /// The finding's `p` after Holm's correction, and over how many tests.
    pub adjusted: Option<(f64, usize)>,
}

/// Two rows, set side by side.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The metric.
    pub metric: Metric,
    /// Mean of the row that should be better, and of the other.
    pub values: [f64; 2],
    /// By how much the first is better; positive where it is, also of a metric of which less is better. Of time: by how many percent of
    /// the other's.
    pub gain: f64,
    /// 95 % interval of the gain.
    pub interval: Option<Interval>,
    /// What the interval rests on.
    pub basis: Basis,
    /// The probability of a gain as far from the other side of what is asked, if the truth were where that begins, on either side of it; of
    /// the spread that the interval shows, by Student's t. None without an interval.
    pub p: Option<f64>,
    /// Seeds that both rows ran.
    pub seeds: Vec<u64>,
    /// Images that queries belong to.
    pub images: usize,
    /// The protocol as printed.
    pub protocol: String,
    /// What each row's training took.
    pub budgets: [Budget; 2],
}

/// Why there is nothing to set side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is not there.
    pub reason: String,
    /// What would make it.
    pub command: String,
}

/// Verdicts are at this level, of all tests of a recording together.
pub const LEVEL: f64 = 0.05;

/// Why one seed of a trained row decides nothing.
pub const ONE_TRAINING: &str = "one seed: another training may come out otherwise";

/// Why rows that were trained for different times do not decide a claim of equal ones.
const UNEQUAL: &str =
    "the claim is of equal training, and these rows were not trained for as many epochs of as many pairs";

/// What is said of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// The gain is one that the claim asks for, at [`LEVEL`] after Holm's correction.
    Supported,
    /// It is not, likewise.
    NotSupported,
    /// Neither, or there is no interval, or something stands [in the way](Tested::obstacle).
    Undecided,
    /// The recording lacks a row.
    NotRun,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 4] = [Self::Supported, Self::NotSupported, Self::Undecided, Self::NotRun];

    /// As printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Supported => "SUPPORTED",
            Self::NotSupported => "NOT SUPPORTED",
            Self::Undecided => "UNDECIDED",
            Self::NotRun => "NOT RUN",
        }
    }
}

impl Tested<'_> {
    /// The probability after Holm's correction, as printed; a dash where there is none.
    pub fn p_text(&self) -> String {
        match self.adjusted {
            None => "-".into(),
            Some((p, _)) if p < 0.001 => "< 0.001".into(),
            Some((p, _)) => format!("{p:.3}"),
        }
    }

    /// Why nothing is decided, whatever the numbers say.
    pub fn obstacle(&self) -> Option<&'static str> {
        let finding = self.outcome.as_ref().ok()?;
        let unequal = self.test.equal_budget && !finding.budgets[0].equals(&finding.budgets[1]);
        unequal.then_some(UNEQUAL).or(finding.is_one_training().then_some(ONE_TRAINING))
    }

    /// What is said of the claim.
    pub fn verdict(&self) -> Verdict {
        match (&self.outcome, self.adjusted) {
            (Err(_), _) => Verdict::NotRun,
            (Ok(finding), Some((p, _))) if p < LEVEL && self.obstacle().is_none() => {
                if self.test.region().contains(finding.gain) { Verdict::Supported } else { Verdict::NotSupported }
            }
            _ => Verdict::Undecided,
        }
    }
}

impl Finding {
    /// Whether a row was trained and has one seed: what another training would give is not known then, and nothing is decided. A clock
    /// does not ask.
    pub fn is_one_training(&self) -> bool {
        let trained = |budget: &Budget| budget.is_trained() || budget.made_of_others;
        self.basis != Basis::Clock && self.seeds.len() == 1 && self.budgets.iter().any(trained)
    }

    /// What an interval rests on, where that is not a bootstrap over images and seeds; or why there is none.
    pub fn basis_text(&self) -> Option<&'static str> {
        match (self.interval, self.basis) {
            (Some(_), Basis::Images) => None,
            (Some(_), Basis::Seeds) => Some(
                "interval over seeds alone, by Student's t: the metric is neither a mean nor a median over recorded queries",
            ),
            (Some(_), Basis::Splits) => {
                Some("interval over splits, by Student's t, widened for what they share (Nadeau and Bengio 2003)")
            }
            (Some(_), Basis::Clock) => {
                Some("percent of the other row's time; interval by a bootstrap over samples of the clock")
            }
            (None, Basis::Clock) => Some("no interval: one sample of the clock"),
            (None, _) => {
                Some("no interval: one seed, and the metric is neither a mean nor a median over recorded queries")
            }
        }
    }

    /// The interval in the metric's precision; a dash where there is none.
    pub fn interval_text(&self) -> String {
        let format = |value: f64| self.metric.format_gain(value);
        self.interval.map_or("-".into(), |it| format!("[{}, {}]", format(it.low), format(it.high)))
    }
}

/// Puts every test of the claims to the recording, in their order: once a dataset, where the test names none. `folder` is where
/// the recording lies, for the commands that would add to it. Verdicts are of all these tests together: give every claim there is, and
/// choose afterwards.
pub fn test<'a>(stated: &[Stated<'a>], recording: &Recording, folder: Option<&Path>) -> Vec<Tested<'a>> {
    let sections = whole_sections(recording);
    let mut draws = Cache::new();
    let mut all = Vec::new();
    for Stated { card, claim } in stated {
        for test in &claim.tests {
            let missing = |reason: String| Missing { reason, command: command(test, recording, folder) };
            let named = |section: &&Section<'_>| {
                section.experiment == test.experiment
                    && test.dataset.as_ref().is_none_or(|dataset| dataset == section.dataset)
            };
            let before = all.len();
            for section in sections.iter().filter(named) {
                let outcome = compare(test, section, &mut draws).map_err(missing);
                let (dataset, stem) = (section.dataset.to_string(), Some(section.stem.clone()));
                all.push(Tested { card, claim, test, dataset, stem, outcome, adjusted: None });
            }
            if all.len() == before {
                let on = test.dataset.as_ref().map(|dataset| format!(" on {dataset}")).unwrap_or_default();
                let outcome = Err(missing(format!("no trial of {}{on}", test.experiment)));
                let dataset = test.dataset.clone().unwrap_or_default();
                all.push(Tested { card, claim, test, dataset, stem: None, outcome, adjusted: None });
            }
        }
    }
    let findings = all.iter_mut().filter_map(|it| Some((it.outcome.as_ref().ok()?.p?, &mut it.adjusted)));
    let (p, adjusted): (Vec<f64>, Vec<_>) = findings.unzip();
    for (place, value) in adjusted.into_iter().zip(holm::adjusted(&p)) {
        *place = Some((value, p.len()));
    }
    all
}

/// The two-sided probability that goes with a 95 % interval: it is below 5 % where the interval lies within what is asked, or
/// beyond it. Of a region with two ends, within means apart from both (two one-sided tests, each at half the level: Schuirmann 1987).
pub(super) fn probability(gain: f64, asked: Region, interval: &Interval, freedom: f64) -> f64 {
    let of_end = |end: f64| {
        let half = if end < gain { gain - interval.low } else { interval.high - gain };
        let t = (gain - end) / half * stats::student(freedom);
        // No spread at all, and nothing between the gain and the end.
        if t.is_nan() { 1.0 } else { stats::two_sided(t, freedom) }
    };
    if gain >= asked.high {
        of_end(asked.high)
    } else if asked.high.is_finite() && asked.contains(gain) {
        of_end(asked.low).max(of_end(asked.high))
    } else {
        of_end(asked.low)
    }
}

fn compare<'a>(test: &ClaimTest, section: &Section<'a>, draws: &mut Cache) -> Result<Finding, String> {
    let [better, worse] = [row(section, &test.better)?, row(section, &test.worse)?];
    // Rows of one section differ at most in what was selected on.
    let fields = protocol::differences(&better.trials[0].protocol, &worse.trials[0].protocol);
    if !fields.is_empty() {
        return Err(format!("`{}` and `{}` do not compare: {}", better.name, worse.name, fields.join("; ")));
    }
    let of_seed = |row: &Row<'_>, seed: u64| row.trials.iter().any(|trial| trial.seed == seed);
    let common = |row: &Row<'a>, other: &Row<'_>| -> Vec<&'a Trial> {
        row.trials.iter().copied().filter(|trial| of_seed(other, trial.seed)).collect()
    };
    let (a, b) = (common(better, worse), common(worse, better));
    if a.is_empty() {
        return Err(format!("`{}` and `{}` ran no seed in common", better.name, worse.name));
    }
    let metric = Metric::parse(&test.metric);
    let finding = |values, gain, interval: Option<Interval>, freedom, basis| Finding {
        values,
        gain,
        interval,
        basis,
        p: interval.map(|interval| probability(gain, test.region(), &interval, freedom)),
        seeds: a.iter().map(|trial| trial.seed).collect(),
        images: images(section, a[0]),
        protocol: section.describe(&better.trials[0].protocol),
        budgets: [Budget::of(&a), Budget::of(&b)],
        metric: metric.clone(),
    };
    if metric.kind == Kind::Time {
        let [one, other] = [&a, &b].map(|trials| time::samples(&metric, trials));
        let saving = time::saving(&one, &other)
            .ok_or_else(|| format!("no {} of `{}` and `{}` was clocked", test.metric, better.name, worse.name))?;
        return Ok(finding([saving.a, saving.b], saving.percent, saving.interval, f64::INFINITY, Basis::Clock));
    }
    let Some(paired) = Paired::of(&metric, [&a, &b], section.overlap(), draws) else {
        let hint = nearest(&test.metric, a[0].metrics.keys().map(String::as_str));
        return Err(format!("no metric `{}` of `{}` and `{}`{hint}", test.metric, better.name, worse.name));
    };
    let difference = paired.a - paired.b;
    let less = metric.less_is_better();
    let gain = if less { -difference } else { difference };
    let interval = paired.interval.map(|it| if less { Interval { low: -it.high, high: -it.low } } else { it });
    Ok(finding([paired.a, paired.b], gain, interval, paired.freedom, paired.basis))
}

/// The row of that name, or the only one of that label.
fn row<'a, 'b>(section: &'b Section<'a>, name: &str) -> Result<&'b Row<'a>, String> {
    let named = section.rows.iter().find(|row| row.name == name);
    let labelled: Vec<&Row<'a>> =
        section.rows.iter().filter(|row| row.label == name && row.control == Control::None).collect();
    let found = match (named, labelled.as_slice()) {
        (Some(row), _) => row,
        (None, [row]) => *row,
        (None, []) => return Err(format!("no row `{name}` in {}", section.experiment)),
        (None, several) => {
            let names: Vec<String> = several.iter().map(|row| format!("`{}`", row.name)).collect();
            return Err(format!("`{name}` is several rows: {}", names.join(", ")));
        }
    };
    match (found.trials.is_empty(), found.failures.first()) {
        (false, _) => Ok(found),
        (true, failure) => {
            let reason = failure.map(|(_, reason)| format!(": {}", reason.trim())).unwrap_or_default();
            Err(format!("row `{name}` failed for every seed{reason}"))
        }
    }
}

/// Images that the queries of a trial belong to; those of the split where queries were not kept.
fn images(section: &Section<'_>, trial: &Trial) -> usize {
    let clusters: std::collections::BTreeSet<u32> = trial.queries.iter().map(|query| query.cluster).collect();
    let split = || section.data.sizes.get(&trial.protocol.split.to_string()).map_or(0, |[images, _]| *images);
    if clusters.is_empty() { split() } else { clusters.len() }
}

/// The command that runs the experiment into the recording, or into one of its own where the recording's profile leaves the
/// experiment out.
fn command(test: &ClaimTest, recording: &Recording, folder: Option<&Path>) -> String {
    let name = &test.experiment;
    let runs = |profile: &Profile| Experiment::find(name, *profile).is_ok_and(|experiment| !experiment.off);
    let profiles = [Profile::Quick, Profile::Full, Profile::Smoke, Profile::Paper];
    let recorded = profiles.into_iter().find(|profile| profile.to_string() == recording.manifest.profile);
    let profile = recorded.filter(runs).or_else(|| profiles.into_iter().find(runs)).or(recorded).unwrap_or_default();
    let mut parts = vec![format!("xmbench run {name} --profile {profile}")];
    let fetched = |experiment: Experiment| {
        experiment.datasets.iter().any(|entry| {
            let source = xmbench_datasets::sources().iter().find(|source| source.name == entry.name);
            source.is_some_and(|source| !source.get.starts_with("built in"))
        })
    };
    if Experiment::find(name, profile).is_ok_and(fetched) {
        parts.push("--data-dir DIR".into());
    }
    if let (Some(folder), true) = (folder, recorded == Some(profile)) {
        parts.push(format!("--out {}", folder.display()));
    }
    parts.join(" ")
}

/// What a claim is called where a table or a message names it.
pub fn rows_text(test: &ClaimTest) -> String {
    format!("{} over {}", test.better, test.worse)
}

/// The gains that a test asks for, in the metric's precision: `> 0`, `> -1 %`, `10.8 ± 2.0`.
pub fn asked_text(test: &ClaimTest) -> String {
    let metric = Metric::parse(&test.metric);
    let format = |value: f64| metric.format_gain(value);
    match (test.kind, test.margin) {
        (Asked::Superior, _) => "> 0".into(),
        (Asked::NotInferior, margin) => format!("> {}", format(-margin.unwrap_or_default())),
        (_, margin) => format!("{} ± {}", format(test.gain.unwrap_or_default()), format(margin.unwrap_or_default())),
    }
}

/// The line that says what both rows were trained for.
pub fn budget_text(test: &ClaimTest, budgets: &[Budget; 2]) -> String {
    let one = |(name, budget): (&String, &Budget)| {
        let seconds = budget.fit_seconds.map(|it| format!(", fit {} s", words::digits(it))).unwrap_or_default();
        format!("{name}: {budget}{seconds}")
    };
    [&test.better, &test.worse].into_iter().zip(budgets).map(one).collect::<Vec<_>>().join("; ")
}
