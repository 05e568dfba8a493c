//! Rows that are made of fitted rows: their matchers are kept until they are recorded, and score together.

use std::path::PathBuf;

use serde_json::{Value, json};
use xmbench_methods::{Matcher, Method, Similarity, train::heap};

use super::{
    Planned,
    bench::{Bench, data, name},
    execute::{self, Failure, Numbers, Setting},
    plan::{Combined, Job},
    score::Encoded,
};
use crate::{
    record::{Id, Outcome, Timing, words},
    retrieval::{Compared, Member, Second},
};

/// A fitted row that takes part.
pub struct Part {
    /// As tables name it.
    pub name: String,
    /// What it fits.
    pub method: &'static dyn Method,
    /// Where its matcher is.
    pub folder: PathBuf,
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
    /// A fitted trial under a seed, with its identity.
    pub fn member(&self, plan: &[Planned], place: usize, seed: u64) -> (Planned, Id) {
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
        let parts = combined.members().into_iter().map(|place| Ok((place, self.part(plan, planned, place)?)));
        let parts: Vec<(usize, Part)> = parts.collect::<Result<_, Failure>>()?;
        let setting = Setting { best: self.best(planned), ..self.setting(PathBuf::new()) };
        execute::apart(&planned.label, setting.threads, || measure(&parts, combined, &setting))
    }

    /// A row that takes part, fitted again if its matcher is not there.
    pub fn part(&mut self, plan: &[Planned], planned: &Planned, place: usize) -> Result<Part, Failure> {
        let (member, id) = self.member(plan, place, planned.seed);
        let head = self.head(plan, &member);
        let wrong = |what: String| Failure::Reason(format!("row `{}`, which it is made of, {what}", row(&member)));
        match self.store.get(&head.key()).filter(|found| found.id == id).map(|found| &found.outcome) {
            None => return Err(wrong("is not recorded".into())),
            Some(Outcome::Failed { reason }) => return Err(wrong(format!("failed: {reason}"))),
            Some(Outcome::Done) => {}
        }
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
            let dataset = &*data(self.dataset, &member)?;
            let setting = Setting { dataset, keep: Some(folder.clone()), ..self.setting(checkpoints.clone()) };
            let mut task = self.progress.begin(&name(&head));
            let fitted = execute::fit_again(&member, &setting, &mut self.progress.of(&mut task));
            if !matches!(fitted, Err(Failure::Interrupted)) {
                // What is left of them costs room and nothing else.
                let _ = std::fs::remove_dir_all(&checkpoints);
            }
            fitted.map_err(|failure| match failure {
                Failure::Interrupted => Failure::Interrupted,
                Failure::Memory(reason) | Failure::Reason(reason) => {
                    wrong(format!("could not be fitted again: {reason}"))
                }
            })?;
        }
        Ok(Part { name: row(&member), method, folder })
    }
}

/// As tables name it.
fn row(planned: &Planned) -> String {
    words::label(&planned.label, &planned.swept)
}

fn measure(parts: &[(usize, Part)], combined: &Combined, setting: &Setting<'_>) -> Result<Numbers, Failure> {
    together(parts, combined, setting, |encoded, compared| {
        let evaluation = encoded.evaluate(setting.protocol, compared, setting.best)?;
        let peak_memory = heap::most();
        let (bytes_per_item, unified) = (encoded.bytes_per_item(), encoded.unified());
        Ok(Numbers { peak_memory, bytes_per_item, unified, ..Numbers::from(evaluation) })
    })
}

/// Loads rows, by their places in the plan, encodes with each, and hands over their codes and how these are compared.
///
/// # Errors
/// A matcher that cannot be read, what it makes of the splits, and the errors of `work`.
pub fn together<T>(
    parts: &[(usize, Part)],
    combined: &Combined,
    setting: &Setting<'_>,
    work: impl FnOnce(&Encoded<'_>, &Compared<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut encoded = Encoded::of(setting.dataset, setting.protocol)?;
    let mut kept = Vec::new();
    for (_, part) in parts {
        let wrong = |error: xmbench_methods::Error| match Failure::from(error) {
            Failure::Interrupted => Failure::Interrupted,
            Failure::Memory(reason) | Failure::Reason(reason) => {
                Failure::Reason(format!("row `{}`, which it is made of: {reason}", part.name))
            }
        };
        let matcher = part.method.load(&part.folder, setting.device).map_err(wrong)?;
        encoded.add(&*matcher).map_err(wrong)?;
        kept.push(Kept::of(matcher));
        setting.goes_on()?;
    }
    let of = |places: &[usize]| -> Vec<Member<'_>> {
        let codes = |place: &usize| parts.iter().position(|(other, _)| other == place).unwrap_or(0);
        places.iter().map(codes).map(|codes| Member { codes, similarity: kept[codes].similarity() }).collect()
    };
    let second = combined.second.as_ref();
    let compared = Compared {
        first: of(&combined.first),
        second: second.map(|(places, shortlist)| Second { members: of(places), shortlist: *shortlist }),
    };
    work(&encoded, &compared)
}

/// What a phase took that every row goes through one after another, sample by sample, from what their own trials recorded.
pub fn summed(phase: &str, rows: &[Vec<Timing>]) -> Option<Timing> {
    let mut all = rows.iter().map(|timings| timings.iter().find(|timing| timing.phase == phase).cloned());
    all.next()?.and_then(|first| {
        all.try_fold(first, |sum, timing| {
            let seconds = sum.seconds.iter().zip(timing?.seconds).map(|(a, b)| a + b).collect();
            Some(Timing { seconds, ..sum })
        })
    })
}
