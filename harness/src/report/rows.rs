//! What each row of a section was run with: a part of the page to fold out.

use serde_json::{Map, Value};

use super::export::escape;
use crate::record::{Control, Trial, section::Section};

/// The parameters of each row, those apart that are the method's defaults, and the command that runs it again.
pub fn html(section: &Section<'_>) -> String {
    let rows: String = section
        .rows
        .iter()
        .filter(|row| row.control == Control::None)
        .filter_map(|row| Some(one(section, &row.name, row.trials.first()?)))
        .collect();
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<details class=\"rows\">\n<summary>Parameters of every row, and the command that runs it again</summary>\n<div class=\"scroll\">\
         <table class=\"prose\">\n<thead><tr><th>row</th><th>method</th><th>set here</th><th>defaults of the method</th><th>run again, \
         with the recording's folder first unless it is the newest under results/</th></tr></thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div></details>\n"
    )
}

fn one(section: &Section<'_>, name: &str, trial: &Trial) -> String {
    let (set, defaults) = parameters(trial);
    let method = match trial.is_made_of_others() {
        true => escape(&trial.method),
        false => format!("<a href=\"#method-{0}\">{0}</a>", escape(&trial.method)),
    };
    let command = format!(
        "xmbench rerun --experiment {} --dataset {} --row {}",
        quoted(section.experiment),
        quoted(section.dataset),
        quoted(name)
    );
    format!(
        "<tr><td>{}</td><td>{method}</td><td>{}</td><td>{}</td><td><code class=\"copy\">{}</code></td></tr>\n",
        escape(name),
        escape(&set.join(", ")),
        escape(&defaults.join(", ")),
        escape(&command)
    )
}

/// `key = value` of what the experiment set, or the method settles by itself, and of what is its default.
fn parameters(trial: &Trial) -> (Vec<String>, Vec<String>) {
    // A row for shortlists alone has its parameters first, and a word behind them.
    let params = trial.params.as_array().and_then(|parts| parts.first()).unwrap_or(&trial.params);
    let method = xmbench_methods::registry::find(&trial.method);
    let defaults = method.and_then(|method| method.resolve(&toml::Table::new()).ok());
    let defaults = defaults.and_then(|table| serde_json::to_value(table).ok()).unwrap_or_default();
    let is_default = |key: &str, value: &Value| defaults.get(key).is_some_and(|default| same(default, value));
    let words = |(key, value): (&String, &Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        format!("{key} = {value}")
    };
    let (default, set): (Vec<_>, Vec<_>) =
        params.as_object().into_iter().flat_map(Map::iter).partition(|(key, value)| is_default(key, value));
    (set.into_iter().map(words).collect(), default.into_iter().map(words).collect())
}

/// Whether two values are equal, be a number written as a whole one or not.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+/".contains(c));
    if plain && !word.is_empty() { word.to_string() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{section, synthetic};

    #[test]
    fn a_shell_takes_a_name_for_one_word() {
        assert_eq!(quoted("VSE++"), "VSE++");
        assert_eq!(quoted("SCAN t2i, it's"), r"'SCAN t2i, it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn defaults_stand_apart() {
        let mut recording = synthetic::recording();
        let trial = recording.trials.iter_mut().find(|trial| trial.control == Control::None).unwrap();
        trial.method = "vse".into();
        trial.params = serde_json::json!({ "margin": 0.2, "batch": 128.0, "embedding": 7, "words": "frozen" });
        let (set, defaults) = parameters(trial);
        assert_eq!(set, ["embedding = 7", "words = frozen"]);
        assert_eq!(defaults, ["margin = 0.2", "batch = 128.0"]);
        let sections = section::sections(&recording);
        let html = html(&sections[0]);
        assert!(html.contains("<td>embedding = 7, words = frozen</td>"), "{html}");
        assert!(html.contains("xmbench rerun --experiment 01-recall --dataset f8k --row "), "{html}");
        assert!(!html.contains("chance"), "{html}");
    }
}
