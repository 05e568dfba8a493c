//! Values stated in advance: those that an experiment spells out, and those that its entries quote from the cards of their methods.

use anyhow::{Result, bail};

use super::{Experiment, Planned, entry::Quoted, plan::Job};
use crate::record::{Control, Expected, words};

/// Every value that is stated of a row of the plan.
///
/// # Errors
/// A value of a row that is none of the plan, or a quotation of what is not on the card.
pub fn stated(experiment: &Experiment, plan: &[Planned]) -> Result<Vec<Expected>> {
    let mut all = experiment.expected.clone();
    for expected in &all {
        // Either every row of a label, or one point of its sweep as tables name it.
        let names = || plan.iter().flat_map(|row| [row.label.clone(), words::label(&row.label, &row.swept)]);
        if !names().any(|name| name == expected.label) {
            let names: Vec<String> = names().collect();
            let hint = super::nearest(&expected.label, names.iter().map(String::as_str));
            bail!(
                "experiment {}: a value is expected of `{}`, which is no label of it{hint}",
                experiment.name,
                expected.label
            );
        }
    }
    for (position, entry) in experiment.methods.iter().enumerate() {
        let first = plan.iter().find(|row| row.position == position).map(|row| row.seed);
        let rows: Vec<&Planned> = plan
            .iter()
            .filter(|row| row.position == position && row.control == Control::None && Some(row.seed) == first)
            .collect();
        for quoted in &entry.reported {
            let found: Vec<Expected> = rows.iter().flat_map(|row| quote(quoted, row)).collect();
            if found.is_empty() {
                bail!(
                    "experiment {}, methods entry {}: `reported` quotes `{}` on `{}`, of which the card of `{}` has nothing{}",
                    experiment.name,
                    position + 1,
                    quoted.variant,
                    quoted.dataset,
                    entry.method,
                    known(&rows)
                );
            }
            all.extend(found);
        }
    }
    Ok(all)
}

/// What the card of a row's method has of a quotation.
fn quote(quoted: &Quoted, row: &Planned) -> Vec<Expected> {
    let Job::Fit { method, .. } = &row.job else { return Vec::new() };
    let fill = |text: String, (key, value): (&String, &String)| text.replace(&format!("{{{key}}}"), value);
    let variant = row.swept.iter().fold(quoted.variant.clone(), fill);
    let numbers = method.card().reported.iter().flat_map(|reported| reported.numbers());
    numbers
        .filter(|number| number.dataset == quoted.dataset && number.variant == variant)
        .map(|number| Expected {
            label: words::label(&row.label, &row.swept),
            dataset: String::new(),
            metric: number.metric.to_string(),
            value: number.value,
            tolerance: quoted.tolerance,
            source: number.source.to_string(),
            evidence: number.evidence,
        })
        .collect()
}

/// What the card has, for an error.
fn known(rows: &[&Planned]) -> String {
    let Some(Job::Fit { method, .. }) = rows.first().map(|row| &row.job) else { return String::new() };
    let names: Vec<String> =
        method.card().reported.iter().map(|found| format!("`{}` on `{}`", found.variant, found.dataset)).collect();
    if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{Methods, Profile, plan};

    fn all(entry: &str) -> Result<Vec<Expected>> {
        let text = format!(
            "title = 'x'\nseeds = [1, 2]\nprotocol = {{ task = {{ kind = 'category' }} }}\n[[datasets]]\nname = 'emoji'\n\
             [[methods]]\nmethod = 'djsrh'\nbits = [16, 24, 64]\nshuffled = true\n{entry}"
        );
        let experiment = Experiment::parse("x", "x.toml", &text, Profile::Quick)?;
        stated(&experiment, &plan(&experiment, &Methods::with(&[]))?)
    }

    #[test]
    fn a_quotation_gives_the_numbers_of_the_card_to_the_rows_of_its_sweep() {
        let found = all("reported = [{ dataset = 'Wiki test', variant = '{bits} bits', tolerance = 0.1 }]").unwrap();
        let found: Vec<_> =
            found.iter().map(|it| (it.label.as_str(), it.metric.as_str(), it.value, it.tolerance)).collect();
        assert_eq!(
            found,
            [
                ("DJSRH 16 bits", "i2t MAP@50", 0.388, Some(0.1)),
                ("DJSRH 16 bits", "t2i MAP@50", 0.611, Some(0.1)),
                ("DJSRH 64 bits", "i2t MAP@50", 0.412, Some(0.1)),
                ("DJSRH 64 bits", "t2i MAP@50", 0.646, Some(0.1)),
            ]
        );
    }

    #[test]
    fn what_the_card_does_not_have_cannot_be_quoted() {
        let error = all("reported = [{ dataset = 'Wiki', variant = '{bits} bits' }]").unwrap_err().to_string();
        assert!(error.contains("`{bits} bits` on `Wiki`") && error.contains("`16 bits` on `Wiki test`"), "{error}");
    }
}
