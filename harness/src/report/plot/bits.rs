//! MAP against code length: a panel a direction, a line a method, a point where it has one length. Of all rows with 95 % intervals;
//! of methods that search unified codes as well as others; and of every row, what the order of ties alone can move.

use std::collections::{BTreeMap, BTreeSet};

use super::Scene;
use super::canvas::Canvas;
use super::frame::{Axis, Entry, Figure, Kind, Mean, beside};
use crate::protocol::Direction;
use crate::record::{Control, section::Row, words};
use crate::stats::{self, Interval, metric::Metric};

/// What is drawn against the code length.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    /// The values of all rows.
    Values,
    /// Those of methods of which one row searches unified codes and another does not.
    Unified,
    /// Highest less lowest value over all orders of tied items.
    Ties,
}

/// MAP of every row; `None` where no row has a code length.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    plot(scene, title, Shown::Values)
}

/// MAP of methods with unified codes beside that of the same methods without; `None` where there is no such method.
pub fn unified(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    plot(scene, title, Shown::Unified)
}

/// By how much the order of tied items alone moves the MAP; `None` where no row has a code length.
pub fn ties(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    plot(scene, title, Shown::Ties)
}

fn plot(scene: &mut Scene<'_, '_>, title: &str, shown: Shown) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let length = |row: &Row<'_>| row.length().map(|bits| bits as f64);
    let metric = map(scene, shown)?;
    let both = in_both_forms(rows);
    // A line is what rows share beside the code length.
    let mut lines: Vec<(String, Vec<usize>)> = Vec::new();
    let binary = |row: &Row<'_>| {
        let asked = shown != Shown::Unified || method(row).is_some_and(|method| both.contains(method));
        asked && row.control == Control::None && length(row).is_some()
    };
    for (at, row) in rows.iter().enumerate().filter(|(_, row)| binary(row)) {
        let others: BTreeMap<_, _> =
            row.swept.iter().filter(|(key, _)| *key != "bits").map(|(k, v)| (k.clone(), v.clone())).collect();
        let dagger = if row.dagger { "†" } else { "" };
        let name = words::label(row.label, &others) + dagger;
        match lines.iter_mut().find(|(other, _)| *other == name) {
            Some((_, line)) => line.push(at),
            None => lines.push((name, vec![at])),
        }
    }
    let mut panels = Vec::new();
    for direction in [Direction::I2t, Direction::T2i] {
        let name = format!("{direction} {metric}");
        let scores = scene.scores.of(&Metric::parse(&name)).to_vec();
        let data: Vec<Vec<(f64, f64, Option<Interval>)>> = lines
            .iter()
            .map(|(_, line)| {
                let point = |row: &usize| {
                    if shown == Shown::Ties {
                        return Some((length(&rows[*row])?, span(&rows[*row], &name)?, None));
                    }
                    let score = scores[*row].as_ref()?;
                    Some((length(&rows[*row])?, score.mean, score.interval))
                };
                line.iter().filter_map(point).collect()
            })
            .collect();
        // Rows without a code length, real-valued codes and chance, are levels to compare values with.
        let level = |row: usize| Some((row, scores[row].as_ref().filter(|_| length(&rows[row]).is_none())?.mean));
        let levels: Vec<(usize, f64)> = (0..rows.len()).filter(|_| shown != Shown::Ties).filter_map(level).collect();
        if data.iter().any(|line| !line.is_empty()) {
            panels.push((direction, data, levels));
        }
    }
    let mut lengths: Vec<f64> =
        panels.iter().flat_map(|(_, lines, _)| lines.iter().flatten()).map(|point| point.0).collect();
    lengths.sort_by(f64::total_cmp);
    lengths.dedup();
    if lengths.is_empty() {
        return None;
    }
    let all: Vec<f64> = panels
        .iter()
        .flat_map(|(_, lines, _)| lines.iter().flatten())
        .flat_map(|(_, mean, interval)| {
            [*mean, interval.map_or(*mean, |it| it.low), interval.map_or(*mean, |it| it.high)]
        })
        .chain(panels.iter().flat_map(|(_, _, levels)| levels.iter().map(|(_, mean)| *mean)))
        .collect();
    let mut flat: Vec<usize> = panels.iter().flat_map(|(_, _, levels)| levels.iter().map(|(row, _)| *row)).collect();
    flat.sort_unstable();
    flat.dedup();
    let level = |row: usize| scene.palette.look(scene.section, &rows[row]).dashed((6.0, 4.0));
    // Lines of one label share its colour and differ in their dashes.
    let look = |line: usize| {
        let label = |line: &(String, Vec<usize>)| rows[line.1[0]].label;
        let plain = scene.palette.plain(label(&lines[line]));
        match lines[..line].iter().filter(|other| label(other) == label(&lines[line])).count() {
            0 => plain,
            before => plain.dashed((10.0 / before as f64, 3.0)),
        }
    };
    let axes = |(direction, _, _): &(Direction, Vec<_>, Vec<_>)| {
        let words = Metric::parse(&format!("{direction} MAP")).group().to_string();
        let y = if shown == Shown::Ties { format!("span of {metric}") } else { metric.clone() };
        (words, Axis::log_at("code length, bits", &lengths), Axis::linear(&y, all.iter().copied(), false))
    };
    let dagger =
        if lines.iter().any(|(name, _)| name.ends_with('†')) { " † selected on the test split." } else { "" };
    let figure = Figure {
        title,
        footer: &scene.footer(&format!("{}{dagger}", shown.said())),
        panels: panels.iter().map(axes).collect(),
        stacked: false,
        legend: lines
            .iter()
            .enumerate()
            .map(|(i, (name, line))| {
                let kind = if line.len() > 1 { Kind::Line } else { Kind::Mark };
                Entry { text: name.clone(), look: look(i), kind }
            })
            .chain(flat.iter().map(|row| Entry { text: rows[*row].name.clone(), look: level(*row), kind: Kind::Plain }))
            .collect(),
    };
    let x = beside(&lengths, lines.len());
    let (mut canvas, frames) = figure.frame();
    for ((_, data, levels), panel) in panels.iter().zip(&frames) {
        for (row, mean) in levels {
            let [left, _, width, _] = panel.field;
            let (_, y) = panel.at(lengths[0], *mean);
            canvas.row(Some(&rows[*row].name));
            level(*row).line(&mut canvas, &[(left, y), (left + width, y)], 1.8);
        }
        for (i, line) in data.iter().enumerate() {
            let mean = |&(bits, mean, interval): &(f64, f64, Option<Interval>)| Mean {
                x: x(i, bits),
                value: (mean, interval),
                of: format!("{}, {bits} bits", lines[i].0),
            };
            canvas.row(Some(&lines[i].0));
            panel.means(&mut canvas, &look(i), true, &line.iter().map(mean).collect::<Vec<_>>());
        }
    }
    Some(canvas)
}

impl Shown {
    fn said(self) -> &'static str {
        match self {
            Self::Values => "Whiskers: 95 % interval.",
            Self::Unified => {
                "Whiskers: 95 % interval. Unified: an item of the gallery has one code, made of its image and its text, \
                 so that a query meets its own kind; the two are different tasks."
            }
            Self::Ties => {
                "Highest less lowest value over all orders of items at one distance: what a sort may add or take without any \
                 change of a code."
            }
        }
    }
}

/// The method of a row that ran.
fn method<'a>(row: &Row<'a>) -> Option<&'a str> {
    row.trials.first().map(|trial| trial.method.as_str())
}

/// Methods of which one row searches unified codes and another does not.
fn in_both_forms<'a>(rows: &[Row<'a>]) -> BTreeSet<&'a str> {
    let of = |unified: bool| -> BTreeSet<&'a str> {
        let trials = rows.iter().flat_map(|row| row.trials.iter().copied());
        trials.filter(|trial| trial.unified == unified).map(|trial| trial.method.as_str()).collect()
    };
    of(true).intersection(&of(false)).copied().collect()
}

/// What the order of ties moves a metric of a row by, the mean over seeds.
fn span(row: &Row<'_>, metric: &str) -> Option<f64> {
    let spans: Option<Vec<f64>> =
        row.trials.iter().map(|trial| trial.envelope.get(metric).map(|ends| ends[1] - ends[0])).collect();
    stats::mean(&spans?)
}

/// The MAP to show, without direction: over the whole gallery if it was recorded, else the first there is. Ties are shown where
/// they weigh most, among the first results.
fn map(scene: &Scene<'_, '_>, shown: Shown) -> Option<String> {
    let names = scene.section.rows.iter().flat_map(|row| &row.trials).flat_map(|trial| trial.metrics.keys());
    let shorts: Vec<String> = names.map(|name| Metric::parse(name).short().to_string()).collect();
    let whole = |short: &&String| (*short == "MAP@all") != (shown == Shown::Ties);
    let maps = || shorts.iter().filter(|short| short.starts_with("MAP"));
    maps().find(whole).or_else(|| maps().next()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Recording, section, synthetic};

    #[test]
    fn ties_move_a_row_by_the_mean_span_of_its_seeds() {
        let recording = synthetic::recording();
        let sections = section::sections(&recording);
        let rows = &sections.iter().find(|section| section.dataset == "wiki").unwrap().rows;
        let row = rows.iter().find(|row| row.name == "DJSRH 32 bits").unwrap();
        assert!((span(row, "i2t MAP@all").unwrap() - 0.8 / 32.0).abs() < 1e-12);
        assert_eq!(span(row, "i2t MAP@50"), None);
    }

    #[test]
    fn a_method_is_in_both_forms_if_one_of_its_rows_is_unified_and_another_is_not() {
        let forms = |recording: &Recording| -> Vec<String> {
            let sections = section::sections(recording);
            let rows = &sections.iter().find(|section| section.dataset == "wiki").unwrap().rows;
            in_both_forms(rows).into_iter().map(String::from).collect()
        };
        let mut recording = synthetic::recording();
        assert_eq!(forms(&recording), [""; 0]);
        let unified = recording.trials.iter_mut().filter(|trial| trial.unified);
        unified.for_each(|trial| trial.method = "djsrh".into());
        assert_eq!(forms(&recording), ["djsrh"]);
    }
}
