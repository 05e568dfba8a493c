//! Rows that are made of fitted rows: their matchers are kept until they are recorded, and score together.

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::{Value, json};
use xmbench_datasets::Dataset;
use xmbench_methods::{Matcher, Method, Similarity};

use super::{
    Planned,
    bench::{Bench, name},
    execute::{self, Failure, Numbers, Setting},
    machine,
    plan::{Combined, Job},
    score::Encoded,
};
use crate::{
    record::{Id, Outcome, Timing, words},
    retrieval::{Compared, Member, Second},
};

/// A fitted row that takes part.
struct Part {
    name: String,
    method: &'static dyn Method,
    /// Where its matcher is.
    folder: PathBuf,
    /// What its own trial recorded.
    timings: Vec<Timing>,
}

/// What is kept of a matcher once its codes are there: nothing, unless it compares by a function of its own.
enum Kept {
    Plain(Similarity<'static>),
    Scorer(Box<dyn Matcher>),
}

impl Kept {
    fn of(matcher: Box<dyn Matcher>) -> Self {
        let plain = match matcher.similarity() {
            Similarity::Cosine => Similarity::Cosine,
            Similarity::Dot => Similarity::Dot,
            Similarity::Hamming => Similarity::Hamming,
            Similarity::Pairwise(_) => return Self::Scorer(matcher),
        };
        Self::Plain(plain)
    }

    fn similarity(&self) -> Similarity<'_> {
        match self {
            Self::Plain(similarity) => *similarity,
            Self::Scorer(matcher) => matcher.similarity(),
        }
    }
}

impl Bench<'_> {
    /// Identities of the fitted trials that rows of the plan are made of; of those rows alone that are not recorded, if `open`.
    pub fn members(&self, plan: &[Planned], open: bool) -> BTreeSet<Id> {
        let mut members = BTreeSet::new();
        for planned in plan {
            let Job::Combine(combined) = &planned.job else { continue };
            let head = self.head(plan, planned);
            if open && (self.is_done(&head) || self.twin(&head).is_some()) {
                continue;
            }
            members.extend(combined.members().into_iter().map(|place| self.member(plan, place, planned.seed).1));
        }
        members
    }

    /// A fitted trial under a seed, with its identity.
    fn member(&self, plan: &[Planned], place: usize, seed: u64) -> (Planned, Id) {
        let member = Planned { seed, ..plan[place].clone() };
        let id = self.head(plan, &member).id;
        (member, id)
    }

    /// What the numbers of a row depend on that is made of others, and what is said of it.
    pub fn made_of(&self, plan: &[Planned], planned: &Planned, combined: &Combined) -> (Value, String) {
        let ids = |places: &[usize]| -> Vec<Id> {
            places.iter().map(|&place| self.member(plan, place, planned.seed).1).collect()
        };
        let names = |places: &[usize]| -> String {
            let names: Vec<String> = places.iter().map(|&place| row(&plan[place])).collect();
            if names.len() > 1 { format!("the mean of the scores of {}", names.join(" and ")) } else { names.concat() }
        };
        let said = match &combined.second {
            None => names(&combined.first),
            Some((second, _)) => {
                let size = match planned.swept.is_empty() {
                    true => format!(" {}", planned.params["shortlist"]),
                    false => String::new(),
                };
                format!("the best{size} of {}, ordered anew by {}", names(&combined.first), names(second))
            }
        };
        let remarks = combined.members().into_iter().filter_map(|place| {
            let remark = self.head(plan, &plan[place]).remark;
            (!remark.is_empty()).then(|| format!("{}: {remark}", row(&plan[place])))
        });
        let remark = std::iter::once(said).chain(remarks).collect::<Vec<_>>().join("; ");
        let second = combined.second.as_ref().map(|(places, shortlist)| json!([ids(places), shortlist]));
        (json!({ "first": ids(&combined.first), "second": second }), remark)
    }

    /// Runs a trial that is made of others.
    ///
    /// # Errors
    /// A row that failed, whatever keeps one from being fitted again or read, and what keeps the scores from giving numbers.
    pub fn combine(&mut self, plan: &[Planned], planned: &Planned, combined: &Combined) -> Result<Numbers, Failure> {
        let members = combined.members();
        let mut parts = Vec::new();
        for &place in &members {
            parts.push(self.part(plan, planned, place)?);
        }
        let setting = Setting { best: self.best(planned), ..self.setting(PathBuf::new()) };
        execute::apart(&planned.label, || measure(&parts, &members, combined, &setting))
    }

    /// A row that takes part, fitted again if its matcher is not there.
    fn part(&mut self, plan: &[Planned], planned: &Planned, place: usize) -> Result<Part, Failure> {
        let (member, id) = self.member(plan, place, planned.seed);
        let head = self.head(plan, &member);
        let wrong = |what: String| Failure::Reason(format!("row `{}`, which it is made of, {what}", row(&member)));
        let timings = match self.store.get(&head.key()).filter(|found| found.id == id) {
            None => return Err(wrong("is not recorded".into())),
            Some(found) => match &found.outcome {
                Outcome::Failed { reason } => return Err(wrong(format!("failed: {reason}"))),
                Outcome::Done => found.timings.clone(),
            },
        };
        let Job::Fit { method, .. } = member.job else { return Err(wrong("is not fitted".into())) };
        let folder = self.store.matcher(&id);
        if !folder.is_dir() {
            let line = format!(
                "{}: recorded, but its fitted matcher was not kept; it is fitted again for `{}`",
                name(&head),
                planned.label
            );
            self.progress.say(&line);
            let checkpoints = self.store.checkpoints_again(&id);
            let setting = Setting { keep: Some(folder.clone()), ..self.setting(checkpoints.clone()) };
            let fitted = execute::fit_again(&member, &setting, self.progress);
            if !matches!(fitted, Err(Failure::Interrupted)) {
                // What is left of them costs room and nothing else.
                let _ = std::fs::remove_dir_all(&checkpoints);
            }
            fitted.map_err(|failure| match failure {
                Failure::Interrupted => Failure::Interrupted,
                Failure::Reason(reason) => wrong(format!("could not be fitted again: {reason}")),
            })?;
        }
        Ok(Part { name: row(&member), method, folder, timings })
    }
}

/// As tables name it.
fn row(planned: &Planned) -> String {
    words::label(&planned.label, &planned.swept)
}

fn measure(parts: &[Part], members: &[usize], combined: &Combined, setting: &Setting<'_>) -> Result<Numbers, Failure> {
    let Setting { dataset, protocol, profile, device, .. } = setting;
    machine::forget_peak();
    let dataset: &Dataset = dataset;
    let mut encoded = Encoded::of(dataset, protocol)?;
    let mut kept = Vec::new();
    for part in parts {
        let wrong = |error: xmbench_methods::Error| match Failure::from(error) {
            Failure::Interrupted => Failure::Interrupted,
            Failure::Reason(reason) => Failure::Reason(format!("row `{}`, which it is made of: {reason}", part.name)),
        };
        let matcher = part.method.load(&part.folder, device).map_err(wrong)?;
        encoded.add(&*matcher).map_err(wrong)?;
        kept.push(Kept::of(matcher));
        setting.goes_on()?;
    }
    let of = |places: &[usize]| -> Vec<Member<'_>> {
        let codes = |place: &usize| members.iter().position(|member| member == place).unwrap_or(0);
        places.iter().map(codes).map(|codes| Member { codes, similarity: kept[codes].similarity() }).collect()
    };
    let compared = Compared {
        first: of(&combined.first),
        second: combined
            .second
            .as_ref()
            .map(|(places, shortlist)| Second { members: of(places), shortlist: *shortlist }),
    };
    let evaluation = encoded.evaluate(protocol, &compared, setting.best)?;
    let peak_memory = machine::peak_memory();
    setting.goes_on()?;
    let mut timings: Vec<Timing> =
        ["encode images", "encode texts"].into_iter().filter_map(|phase| summed(phase, parts)).collect();
    timings.extend(encoded.clock_search(&compared, *profile)?);
    let (bytes_per_item, unified) = (encoded.bytes_per_item(), encoded.unified());
    Ok(Numbers { timings, peak_memory, bytes_per_item, unified, ..Numbers::from(evaluation) })
}

/// What a phase took that every row goes through one after another, sample by sample, from what their own trials recorded.
fn summed(phase: &str, parts: &[Part]) -> Option<Timing> {
    let of = |part: &Part| part.timings.iter().find(|timing| timing.phase == phase).cloned();
    let mut all = parts.iter().map(of);
    all.next()?.and_then(|first| {
        all.try_fold(first, |sum, timing| {
            let seconds = sum.seconds.iter().zip(timing?.seconds).map(|(a, b)| a + b).collect();
            Some(Timing { seconds, ..sum })
        })
    })
}
