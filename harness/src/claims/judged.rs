//! One verdict a claim, over its tests.

use xmbench_methods::card::{Card, Claim, Ground};

use super::{Tested, Verdict};

/// What is said of a claim as a whole.
#[derive(Debug, Clone)]
pub struct Judged<'a> {
    /// The card.
    pub card: &'a Card,
    /// The claim.
    pub claim: &'a Claim,
    /// NOT SUPPORTED by one test is NOT SUPPORTED; SUPPORTED is every test that was run.
    pub verdict: Verdict,
    /// Tests by their verdicts, in the order of [`Verdict::ALL`].
    pub counts: [usize; 4],
}

impl Judged<'_> {
    /// Whether no paper states it.
    pub fn is_hypothesis(&self) -> bool {
        self.claim.evidence == Ground::Hypothesis
    }

    /// How the tests came out: `2 supported, 1 not run`.
    pub fn tests_text(&self) -> String {
        let counted = Verdict::ALL.into_iter().zip(self.counts).filter(|(_, count)| *count > 0);
        counted
            .map(|(verdict, count)| format!("{count} {}", verdict.word().to_lowercase()))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// How many claims of papers and how many hypotheses have each verdict: `claims of papers: 3 SUPPORTED, 1 NOT RUN`.
pub fn counts(judged: &[Judged<'_>]) -> String {
    let of = |name: &str, hypotheses: bool| {
        let count = |verdict: Verdict| {
            judged.iter().filter(|it| it.is_hypothesis() == hypotheses && it.verdict == verdict).count()
        };
        let counts = Verdict::ALL.into_iter().map(|verdict| (verdict, count(verdict))).filter(|(_, count)| *count > 0);
        let counts: Vec<String> = counts.map(|(verdict, count)| format!("{count} {}", verdict.word())).collect();
        (!counts.is_empty()).then(|| format!("{name}: {}", counts.join(", ")))
    };
    let parts = [of("claims of papers", false), of("hypotheses", true)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// One verdict a claim, over its tests, in the order in which they are.
pub fn judge<'a: 't, 't>(tested: impl IntoIterator<Item = &'t Tested<'a>>) -> Vec<Judged<'a>> {
    let mut all: Vec<Judged<'a>> = Vec::new();
    for it in tested {
        let known = all.iter().position(|judged| std::ptr::eq(judged.claim, it.claim));
        let at = known.unwrap_or_else(|| {
            all.push(Judged { card: it.card, claim: it.claim, verdict: Verdict::NotRun, counts: [0; 4] });
            all.len() - 1
        });
        all[at].counts[it.verdict() as usize] += 1;
    }
    for judged in &mut all {
        let [supported, against, undecided, _] = judged.counts;
        judged.verdict = match (supported, against, undecided) {
            (0, 0, 0) => Verdict::NotRun,
            (_, 0, 0) => Verdict::Supported,
            (_, 0, _) => Verdict::Undecided,
            _ => Verdict::NotSupported,
        };
    }
    all
}
