//! MAP against code length with 95 % intervals: a panel a direction, a line a method, a point where it has one length.

use std::collections::BTreeMap;

use super::Scene;
use super::canvas::{Canvas, Point};
use super::frame::{Axis, Entry, Figure, Kind};
use crate::protocol::Direction;
use crate::record::{Control, section::Row, words};
use crate::stats::{Interval, metric::Metric};

/// Draws the plot; `None` where no row has a code length.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let length = |row: &Row<'_>| row.length().map(|bits| bits as f64);
    let metric = map(scene)?;
    // A line is what rows share beside the code length.
    let mut lines: Vec<(String, Vec<usize>)> = Vec::new();
    let binary = |row: &Row<'_>| row.control == Control::None && length(row).is_some();
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
        let scores = scene.scores.of(&Metric::parse(&format!("{direction} {metric}"))).to_vec();
        let data: Vec<Vec<(f64, f64, Option<Interval>)>> = lines
            .iter()
            .map(|(_, line)| {
                let point = |row: &usize| {
                    let score = scores[*row].as_ref()?;
                    Some((length(&rows[*row])?, score.mean, score.interval))
                };
                line.iter().filter_map(point).collect()
            })
            .collect();
        // Rows without a code length, real-valued codes and chance, are levels to compare with.
        let level = |row: usize| Some((row, scores[row].as_ref().filter(|_| length(&rows[row]).is_none())?.mean));
        let levels: Vec<(usize, f64)> = (0..rows.len()).filter_map(level).collect();
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
        (words, Axis::log_at("code length, bits", &lengths), Axis::linear(&metric, all.iter().copied(), false))
    };
    let dagger =
        if lines.iter().any(|(name, _)| name.ends_with('†')) { " † selected on the test split." } else { "" };
    let figure = Figure {
        title,
        footer: &scene.footer(&format!("Whiskers: 95 % interval.{dagger}")),
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
    let (mut canvas, frames) = figure.frame();
    for ((_, data, levels), panel) in panels.iter().zip(&frames) {
        for (row, mean) in levels {
            let [left, _, width, _] = panel.field;
            let (_, y) = panel.at(lengths[0], *mean);
            level(*row).line(&mut canvas, &[(left, y), (left + width, y)], 1.8);
        }
        for (i, line) in data.iter().enumerate() {
            let places: Vec<Point> = line.iter().map(|(bits, mean, _)| panel.at(*bits, *mean)).collect();
            look(i).line(&mut canvas, &places, 2.0);
            for (bits, _, interval) in line {
                if let Some(interval) = interval {
                    panel.whisker(&mut canvas, *bits, interval.low, interval.high);
                }
            }
            places.iter().for_each(|place| look(i).marker(&mut canvas, *place, 4.2));
        }
    }
    Some(canvas)
}

/// The MAP to show, without direction: over the whole gallery if it was recorded, else the first there is.
fn map(scene: &Scene<'_, '_>) -> Option<String> {
    let names = scene.section.rows.iter().flat_map(|row| &row.trials).flat_map(|trial| trial.metrics.keys());
    let shorts: Vec<String> = names.map(|name| Metric::parse(name).short().to_string()).collect();
    let all = shorts.iter().find(|short| *short == "MAP@all");
    all.or_else(|| shorts.iter().find(|short| short.starts_with("MAP"))).cloned()
}
