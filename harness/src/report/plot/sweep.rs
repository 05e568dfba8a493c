//! A metric against a parameter that the experiment sweeps, with 95 % intervals: a panel a direction, a line a method, and beside
//! them what a paper states for one of the points.

use std::collections::{BTreeMap, BTreeSet};

use xmbench_methods::card::Evidence;

use super::Scene;
use super::canvas::Canvas;
use super::frame::{Axis, Entry, Figure, Kind, Mean};
use super::palette::Look;
use crate::record::{
    Control,
    section::{Row, Section},
    words,
};
use crate::stats::{Interval, metric::Metric};

/// What the marks of values are called that the experiment states in advance.
const STATED: &str = "stated by the paper";

/// A point of a line: place on the axis, value, interval.
type Value = (usize, f64, Option<Interval>);

/// The data of a panel.
struct Panel {
    metric: Metric,
    /// One a line.
    lines: Vec<Vec<Value>>,
    /// What papers state: line, place and value.
    stated: Vec<(usize, usize, f64)>,
    /// Rows that sweep nothing.
    levels: Vec<(usize, f64)>,
}

/// The parameters that the section sweeps, in the order of the rows.
pub fn parameters<'a>(section: &Section<'a>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for key in section.rows.iter().flat_map(|row| row.swept.keys()) {
        if !found.contains(&key.as_str()) {
            found.push(key);
        }
    }
    found
}

/// Draws the plot; `None` where no row with a value sweeps the parameter.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str, parameter: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let swept = |row: &Row<'_>| row.swept.get(parameter).filter(|_| row.control == Control::None).cloned();
    let mut places: Vec<String> = rows.iter().filter_map(swept).collect::<BTreeSet<_>>().into_iter().collect();
    places.sort_by_cached_key(|value| words::natural(value));
    let place = |row: &Row<'_>| swept(row).and_then(|value| places.iter().position(|other| *other == value));
    // A line is what rows share beside the parameter.
    let mut lines: Vec<(String, Vec<usize>)> = Vec::new();
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| place(row).is_some()) {
        let others: BTreeMap<_, _> =
            row.swept.iter().filter(|(key, _)| *key != parameter).map(|(k, v)| (k.clone(), v.clone())).collect();
        let name = words::label(row.label, &others) + if row.dagger { "†" } else { "" };
        match lines.iter_mut().find(|(other, _)| *other == name) {
            Some((_, line)) => line.push(at),
            None => lines.push((name, vec![at])),
        }
    }
    for (_, line) in &mut lines {
        line.sort_by_key(|row| place(&rows[*row]));
    }
    let panels: Vec<Panel> = first_of_each_direction(scene.section)
        .into_iter()
        .map(|metric| {
            let scores = scene.scores.of(&metric).to_vec();
            let value = |row: &usize| {
                let score = scores[*row].as_ref()?;
                Some((place(&rows[*row])?, score.mean, score.interval))
            };
            let level = |row: usize| {
                let flat = rows[row].swept.is_empty();
                Some((row, scores[row].as_ref().filter(|_| flat)?.mean))
            };
            Panel {
                lines: lines.iter().map(|(_, line)| line.iter().filter_map(value).collect()).collect(),
                stated: stated(scene.section, &metric, &lines, &place),
                levels: (0..rows.len()).filter_map(level).collect(),
                metric,
            }
        })
        .filter(|panel| panel.lines.iter().any(|line| !line.is_empty()))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let level = |row: usize| scene.palette.look(scene.section, &rows[row]).dashed((6.0, 4.0));
    let look = |line: usize| {
        let label = |line: &(String, Vec<usize>)| rows[line.1[0]].label;
        let plain = scene.palette.plain(label(&lines[line]));
        match lines[..line].iter().filter(|other| label(other) == label(&lines[line])).count() {
            0 => plain,
            before => plain.dashed((10.0 / before as f64, 3.0)),
        }
    };
    let axes = |panel: &Panel| {
        let x = Axis::named(&parameter.replace('_', " "), places.clone());
        (panel.metric.group().to_string(), x, Axis::linear(panel.metric.short(), panel.heights(), false))
    };
    let mut flat: Vec<usize> = panels.iter().flat_map(|panel| panel.levels.iter().map(|(row, _)| *row)).collect();
    flat.sort_unstable();
    flat.dedup();
    // Words have no order that a line could follow, and need more room than numbers.
    let words = places.iter().any(|place| place.parse::<f64>().is_err());
    let mut legend: Vec<Entry> = lines
        .iter()
        .enumerate()
        .map(|(i, (name, _))| Entry {
            text: name.clone(),
            look: look(i),
            kind: if words { Kind::Mark } else { Kind::Line },
        })
        .chain(flat.iter().map(|row| Entry { text: rows[*row].name.clone(), look: level(*row), kind: Kind::Plain }))
        .collect();
    if panels.iter().any(|panel| !panel.stated.is_empty()) {
        legend.push(Entry { text: STATED.into(), look: Look::stated(), kind: Kind::Mark });
    }
    let dagger =
        if lines.iter().any(|(name, _)| name.ends_with('†')) { " † selected on the test split." } else { "" };
    let figure = Figure {
        title,
        footer: &scene.footer(&format!("Whiskers: 95 % interval. Values evenly spaced.{dagger}")),
        panels: panels.iter().map(axes).collect(),
        stacked: words,
        legend,
    };
    let (mut canvas, frames) = figure.frame();
    for (panel, frame) in panels.iter().zip(&frames) {
        for (row, mean) in &panel.levels {
            let [left, _, width, _] = frame.field;
            let (_, y) = frame.at(0.0, *mean);
            canvas.row(Some(&rows[*row].name));
            level(*row).line(&mut canvas, &[(left, y), (left + width, y)], 1.8);
        }
        // Whiskers of different lines at one value stand side by side.
        let gap = if words { 0.16 } else { 0.07 };
        let x = |line: usize, place: usize| place as f64 + gap * (line as f64 - (lines.len() - 1) as f64 / 2.0);
        for (i, line) in panel.lines.iter().enumerate() {
            let mean = |&(place, mean, interval): &(usize, f64, Option<Interval>)| Mean {
                x: x(i, place),
                value: (mean, interval),
                of: format!("{}, {} {}", lines[i].0, parameter.replace('_', " "), places[place]),
            };
            canvas.row(Some(&lines[i].0));
            frame.means(&mut canvas, &look(i), !words, &line.iter().map(mean).collect::<Vec<_>>());
        }
        for (line, place, value) in &panel.stated {
            let (x, y) = frame.at(x(*line, *place), *value);
            canvas.row(Some(STATED));
            Look::stated().marker(&mut canvas, (x + 9.0, y), 3.2);
        }
    }
    Some(canvas)
}

impl Panel {
    /// Everything that the upright axis must hold.
    fn heights(&self) -> Vec<f64> {
        let ends = |(_, mean, interval): &Value| {
            [*mean, interval.map_or(*mean, |it| it.low), interval.map_or(*mean, |it| it.high)]
        };
        let lines = self.lines.iter().flatten().flat_map(ends);
        lines
            .chain(self.stated.iter().map(|(_, _, value)| *value))
            .chain(self.levels.iter().map(|(_, mean)| *mean))
            .collect()
    }
}

/// The first metric of the table for each direction, and the first of both.
pub fn first_of_each_direction(section: &Section<'_>) -> Vec<Metric> {
    let mut found: Vec<Metric> = Vec::new();
    for metric in section.columns().iter().map(|name| Metric::parse(name)) {
        if found.iter().all(|other| other.group() != metric.group()) {
            found.push(metric);
        }
    }
    // A sum over both directions says nothing that the directions do not.
    if found.len() > 1 {
        found.retain(|metric| metric.direction.is_some());
    }
    found
}

/// What papers state for points of the sweep; values of a re-run are no paper's.
fn stated(
    section: &Section<'_>,
    metric: &Metric,
    lines: &[(String, Vec<usize>)],
    place: &impl Fn(&Row<'_>) -> Option<usize>,
) -> Vec<(usize, usize, f64)> {
    let paper = section.note.expected.iter().filter(|value| {
        value.metric == metric.name
            && value.evidence != Evidence::Measured
            && (value.dataset.is_empty() || value.dataset == section.dataset)
    });
    paper
        .filter_map(|value| {
            let row = section.rows.iter().position(|row| row.name == value.label)?;
            let line = lines.iter().position(|(_, line)| line.contains(&row))?;
            Some((line, place(&section.rows[row])?, value.value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Control, Expected, section, synthetic};
    use crate::report::{plot, score::Scores};

    #[test]
    fn a_plot_for_each_parameter_with_the_papers_point() {
        let mut recording = synthetic::recording();
        recording.trials.retain(|trial| trial.experiment == "02-hashing" && trial.control == Control::None);
        let note = recording.manifest.experiments.get_mut("02-hashing").unwrap();
        note.plots = vec!["sweep".into()];
        note.expected.push(Expected {
            label: "DJSRH 64 bits".into(),
            dataset: String::new(),
            metric: "i2t MAP@all".into(),
            value: 0.5,
            tolerance: None,
            source: "a paper".into(),
            evidence: Evidence::Recalled,
        });
        let sections = section::sections(&recording);
        assert_eq!(parameters(&sections[0]), ["bits"]);
        let palette = plot::Palette::of(&recording);
        let pictures = plot::pictures(&sections[0], &mut Scores::new(&sections[0]), &palette).unwrap();
        let [picture] = &pictures[..] else { panic!("one plot, found {}", pictures.len()) };
        assert_eq!(picture.stem.as_str(), "02-hashing-wiki-sweep-bits");
        for text in ["stated by the paper", "MAP@all", "128", "DJSRH", "image to text", "by bits"] {
            assert!(picture.svg.contains(text), "`{text}` is not in the plot");
        }
    }
}
