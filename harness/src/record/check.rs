//! What values may be. A recording may be damaged, or a stranger's: every value is held against its range when it is read, and
//! nothing that uses one has to doubt it.

use super::{DatasetNote, ExperimentNote, LeftOut, Manifest, Outcome, Trial};
use crate::{
    output::{quoted, short},
    protocol::{self, Found, Task},
};

/// Characters of the longest name: of an experiment, a row, a dataset, a metric, a value that a grid varies.
pub const LONGEST_NAME: usize = 1_000;
/// Characters of the longest text: an analysis, a remark, the reason of a failure.
pub const LONGEST_TEXT: usize = 100_000;
/// Largest position of an entry in an experiment.
const MOST_ENTRIES: usize = 1 << 20;
/// Names in a list or a table of the manifest or of a trial.
const MOST_NAMES: usize = 10_000;

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What was expected, and where.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Result of a check.
pub type Checked<T = ()> = Result<T, Wrong>;

pub(super) fn wrong<T>(expected: impl Into<String>, found: impl ToString) -> Checked<T> {
    Err(Wrong { expected: expected.into(), found: found.to_string() })
}

/// That a name is one: not too long, in one line, without characters that do something.
///
/// # Errors
/// If it is none.
pub fn name(what: &str, text: &str) -> Checked {
    if text.chars().nth(LONGEST_NAME).is_some() {
        return wrong(format!("{what} of at most {LONGEST_NAME} characters"), quoted(text));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => {
            wrong(format!("{what} without control characters"), format!("{} with U+{:04X}", quoted(text), c as u32))
        }
        None => Ok(()),
    }
}

/// That a text is not too long.
///
/// # Errors
/// If it is.
pub fn text(what: &str, text: &str) -> Checked {
    match text.chars().nth(LONGEST_TEXT) {
        Some(_) => wrong(format!("{what} of at most {LONGEST_TEXT} characters"), quoted(text)),
        None => Ok(()),
    }
}

/// That a title is one: a name that may hold anything.
fn title(what: &str, text: &str) -> Checked {
    match text.chars().nth(LONGEST_NAME) {
        Some(_) => wrong(format!("{what} of at most {LONGEST_NAME} characters"), quoted(text)),
        None => Ok(()),
    }
}

fn few(what: &str, count: usize) -> Checked {
    if count > MOST_NAMES { wrong(format!("at most {MOST_NAMES} {what}"), count) } else { Ok(()) }
}

/// That a checksum is hexadecimal.
pub(super) fn checksum(text: &str) -> Checked {
    let digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if digits && text.len() <= 128 { Ok(()) } else { wrong("a checksum in hexadecimal digits", quoted(text)) }
}

/// That a number is finite and not negative.
pub(super) fn amount(what: &str, value: f64) -> Checked {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { wrong(format!("{what}: a finite number from 0 on"), value) }
}

/// That an item that a query found can be.
///
/// # Errors
/// If its score is not a number, or its rank is none.
pub fn found(found: &Found) -> Checked {
    if found.score.is_nan() {
        return wrong(format!("query {}: scores that are numbers", found.query), found.score);
    }
    if !(1.0..=f64::from(u32::MAX)).contains(&found.rank) {
        return wrong(format!("query {}: ranks from 1 to {}", found.query, u32::MAX), found.rank);
    }
    Ok(())
}

impl Trial {
    /// That every value is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Checked {
        self.check_head().map_err(|it| it.of(self))?;
        self.check_numbers().map_err(|it| it.of(self))?;
        self.check_queries().map_err(|it| it.of(self))
    }

    fn check_head(&self) -> Checked {
        for (what, text) in [
            ("an experiment", &self.experiment),
            ("a label", &self.label),
            ("a method", &self.method),
            ("a dataset", &self.dataset),
            ("a device", &self.device),
        ] {
            name(what, text)?;
        }
        for (what, settings) in [("swept parameters", &self.swept), ("selected parameters", &self.selected)] {
            few(what, settings.len())?;
            for (key, value) in settings {
                name("a parameter", key)?;
                name("a parameter's value", value)?;
            }
        }
        checksum(&self.checksum)?;
        self.kept.as_deref().map_or(Ok(()), checksum)?;
        for (what, value) in self.origin.iter().flat_map(|origin| origin.parts()) {
            text(what, &value)?;
        }
        text("a remark", &self.remark)?;
        if let Outcome::Failed { reason } = &self.outcome {
            text("a reason", reason)?;
        }
        if self.position > MOST_ENTRIES {
            return wrong(format!("a position up to {MOST_ENTRIES}"), self.position);
        }
        if self.seed > i64::MAX as u64 {
            return wrong(format!("a seed up to {}", i64::MAX), self.seed);
        }
        self.protocol.check().or_else(|error| wrong("a protocol that makes sense", error))
    }

    fn check_numbers(&self) -> Checked {
        few("metrics", self.metrics.len())?;
        let ends = self.envelope.iter().flat_map(|(metric, ends)| ends.iter().map(move |value| (metric, value)));
        for (metric, value) in self.metrics.iter().chain(ends) {
            name("a metric", metric)?;
            let range = protocol::range(metric);
            if !range.contains(value) {
                let ends = |value: f64| {
                    if value.abs() == f64::MAX {
                        "any finite number".into()
                    } else {
                        format!("{}", value.round() + 0.0)
                    }
                };
                let range = format!("{} to {}", ends(*range.start()), ends(*range.end()));
                return wrong(format!("metric {} within {range}", quoted(metric)), value);
            }
        }
        few("curves", self.curves.len())?;
        self.curves.keys().try_for_each(|curve| name("a curve", curve))?;
        for (at, epoch) in self.history.iter().enumerate() {
            if epoch.epoch != at + 1 {
                return wrong(format!("epoch {} in this place of the history", at + 1), epoch.epoch);
            }
            amount("the seconds of an epoch", epoch.seconds)?;
            if u32::try_from(epoch.pairs).is_err() {
                return wrong(format!("at most {} pairs a step", u32::MAX), epoch.pairs);
            }
        }
        few("phases", self.timings.len())?;
        for timing in &self.timings {
            name("a phase", &timing.phase)?;
            timing.seconds.iter().try_for_each(|seconds| amount("a sample of the clock", *seconds))?;
            if u32::try_from(timing.items).is_err() {
                return wrong(format!("at most {} items a sample", u32::MAX), timing.items);
            }
        }
        self.bytes_per_item.iter().try_for_each(|bytes| amount("bytes of a code", *bytes))
    }

    fn check_queries(&self) -> Checked {
        for query in &self.queries {
            if query.own > query.tied {
                let expected = format!("query {}: own items among the {} that tie", query.query, query.tied);
                return wrong(expected, query.own);
            }
            if query.better.checked_add(query.tied).is_none() {
                let expected = format!("query {}: a gallery of at most {} items", query.query, u32::MAX);
                return wrong(expected, format!("{} better and {} that tie", query.better, query.tied));
            }
            let precision = query.average_precision;
            if !precision.is_nan() && !protocol::range("MAP").contains(&precision) {
                return wrong(format!("query {}: an average precision within 0 to 1", query.query), precision);
            }
        }
        for (metric, values) in &self.values {
            name("a metric", metric)?;
            let range = protocol::range(metric);
            if let Some(value) = values.iter().find(|value| !value.is_nan() && !range.contains(value)) {
                return wrong(
                    format!("metric {}: what a query contributes in the metric's range", quoted(metric)),
                    value,
                );
            }
        }
        Ok(())
    }

    /// That the queries fit the dataset that the manifest describes; nothing is known of one that it does not.
    ///
    /// # Errors
    /// A query beyond its split, or one that ranks more items than the gallery has.
    pub fn check_against(&self, manifest: &Manifest) -> Checked {
        use crate::protocol::Direction;
        let Some(note) = manifest.datasets.get(&self.dataset).filter(|note| note.checksum == self.checksum) else {
            return Ok(());
        };
        let gallery = match &self.protocol.task {
            Task::Category { gallery, .. } => *gallery,
            Task::Pairs { .. } | Task::Correlation { .. } => self.protocol.split,
        };
        let sizes = |split: xmbench_datasets::Split| note.sizes.get(&split.to_string());
        let (Some(asked), Some(searched)) = (sizes(self.protocol.split), sizes(gallery)) else { return Ok(()) };
        for query in &self.queries {
            let (queries, items) = match query.direction {
                Direction::I2t => (asked[0], searched[1]),
                Direction::T2i => (asked[1], searched[0]),
            };
            let ranked = query.better as usize + query.tied as usize;
            if query.query as usize >= queries || ranked > items {
                let expected = format!(
                    "a query below {queries} that ranks at most {items} items, as dataset {} has them",
                    self.dataset
                );
                return wrong::<()>(expected, format!("query {} with {ranked}", query.query)).map_err(|it| it.of(self));
            }
        }
        Ok(())
    }
}

impl Wrong {
    /// Says of which trial.
    fn of(self, trial: &Trial) -> Self {
        Self { expected: format!("{} (row {})", self.expected, quoted(&short(&trial.key(), 200))), ..self }
    }
}

impl Manifest {
    /// That every value is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Checked {
        for (what, value) in [
            ("a version", &self.version),
            ("a time", &self.started),
            ("a profile", &self.profile),
            ("a commit", &self.commit),
            ("a processor", &self.cpu),
            ("flags of a processor", &self.cpu_flags),
            ("an operating system", &self.os),
            ("a device", &self.device),
        ] {
            title(what, value)?;
        }
        text("a command", &self.command)?;
        few("versions", self.versions.len())?;
        for (key, version) in &self.versions {
            title("a crate", key)?;
            title("a version", version)?;
        }
        few("experiments", self.experiments.len())?;
        for (experiment, note) in &self.experiments {
            name("an experiment", experiment)?;
            note.check()?;
        }
        few("datasets", self.datasets.len())?;
        for (dataset, note) in &self.datasets {
            name("a dataset", dataset)?;
            note.check()?;
        }
        few("experiments that were left out", self.left_out.len())?;
        for LeftOut { experiment, dataset, reason } in &self.left_out {
            name("an experiment", experiment)?;
            name("a dataset", dataset)?;
            text("a reason", reason)?;
        }
        Ok(())
    }
}

impl ExperimentNote {
    /// That every value is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Checked {
        title("a title", &self.title)?;
        text("an analysis", &self.analysis)?;
        text("the source of an experiment", &self.source)?;
        few("columns", self.columns.len())?;
        few("plots", self.plots.len())?;
        self.columns.iter().try_for_each(|column| name("a column", column))?;
        self.plots.iter().try_for_each(|plot| name("a plot", plot))?;
        few("expected values", self.expected.len())?;
        for expected in &self.expected {
            name("a label", &expected.label)?;
            name("a dataset", &expected.dataset)?;
            name("a metric", &expected.metric)?;
            text("a source", &expected.source)?;
            for value in [Some(expected.value), expected.tolerance].into_iter().flatten() {
                if !value.is_finite() {
                    return wrong("an expected value that is finite", value);
                }
            }
        }
        Ok(())
    }
}

impl DatasetNote {
    fn check(&self) -> Checked {
        title("options of a dataset", &self.variant)?;
        title("a dataset's title", &self.title)?;
        self.of.as_deref().map_or(Ok(()), |of| name("a dataset of splits", of))?;
        checksum(&self.checksum)?;
        for (what, value) in
            [("terms", &self.licence), ("an attribution", &self.attribution), ("a caveat", &self.caveat)]
        {
            text(what, value)?;
        }
        few("splits", self.sizes.len())?;
        for (split, sizes) in &self.sizes {
            name("a split", split)?;
            if let Some(size) = sizes.iter().find(|size| u32::try_from(**size).is_err()) {
                return wrong(format!("a split of at most {} items", u32::MAX), size);
            }
        }
        Ok(())
    }
}
