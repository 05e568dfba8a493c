//! R@K of every row with 95 % intervals, a panel a direction, a colour a cutoff.

use std::collections::BTreeSet;

use super::Scene;
use super::canvas::Canvas;
use super::dots::{Dots, Line};
use super::frame::{Axis, Entry, Kind, said};
use super::palette::Look;
use crate::protocol::Direction;
use crate::record::{Control, section::Row};
use crate::report::score::Score;
use crate::stats::metric::Metric;

/// Points between the dots of two cutoffs.
const SPREAD: f64 = 5.0;

/// What stands above controls.
const CONTROLS: &str = "controls";

/// Draws the plot; `None` without any R@K.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let names = rows.iter().flat_map(|row| &row.trials).flat_map(|trial| trial.metrics.keys());
    let cutoff = |name: &String| match Metric::parse(name).kind {
        crate::stats::metric::Kind::Recall(k) => Some(k),
        _ => None,
    };
    let cutoffs: Vec<usize> = names.filter_map(cutoff).collect::<BTreeSet<_>>().into_iter().collect();
    let mut panels: Vec<(Direction, Vec<Vec<Option<Score>>>)> = Vec::new();
    for direction in [Direction::I2t, Direction::T2i] {
        let scores: Vec<Vec<Option<Score>>> =
            cutoffs.iter().map(|k| scene.scores.of(&Metric::parse(&format!("{direction} R@{k}"))).to_vec()).collect();
        if scores.iter().flatten().any(Option::is_some) {
            panels.push((direction, scores));
        }
    }
    if panels.is_empty() {
        return None;
    }
    let shown = |row: &usize| panels.iter().any(|(_, groups)| groups.iter().any(|group| group[*row].is_some()));
    let groups = by_family(rows, (0..rows.len()).filter(shown));
    let mut lines = Vec::new();
    let mut places: Vec<(usize, usize)> = Vec::new();
    for (family, members) in &groups {
        if groups.len() > 1 {
            lines.push(Line::Heading(family.clone()));
        }
        for row in members {
            places.push((*row, lines.len()));
            lines.push(Line::Row { name: rows[*row].name.clone(), control: rows[*row].control != Control::None });
        }
    }
    let highest = panels.iter().flat_map(|(_, groups)| groups.iter().flatten().flatten());
    let highest = highest.map(|score| score.interval.map_or(score.mean, |interval| interval.high)).fold(1.0, f64::max);
    let axis = |direction: &Direction| {
        let words = Metric::parse(&format!("{direction} R@1")).group();
        (words.to_string(), Axis::linear("recall at K, %", [0.0, highest.min(100.0)], true))
    };
    let entry = |(at, k): (usize, &usize)| Entry { text: format!("R@{k}"), look: Look::of_place(at), kind: Kind::Mark };
    let figure = Dots {
        title,
        footer: &scene.footer(scene.whiskers()),
        panels: panels.iter().map(|(direction, _)| axis(direction)).collect(),
        lines,
        legend: cutoffs.iter().enumerate().map(entry).collect(),
    };
    let (mut canvas, frames) = figure.frame();
    for ((_, groups), panel) in panels.iter().zip(&frames) {
        for (at, group) in groups.iter().enumerate() {
            // Cutoffs stand one below the other, so that their whiskers do not cross.
            let offset = SPREAD * (at as f64 - (groups.len() as f64 - 1.0) / 2.0);
            for (row, line) in &places {
                let Some(score) = &group[*row] else { continue };
                canvas.row(Some(&rows[*row].name));
                if let Some(interval) = score.interval {
                    panel.whisker(&mut canvas, interval, (*line, offset));
                }
                let place = panel.at(score.mean, *line, offset);
                Look::of_place(at).marker(&mut canvas, place, 3.4);
                let of = format!("{}, R@{}", rows[*row].name, cutoffs[at]);
                canvas.note(place, 5.0, &said(&of, (score.mean, score.interval)));
            }
        }
    }
    Some(canvas)
}

/// Rows by the families of their methods, in the order in which these come; what is made of others, and controls, behind them.
fn by_family(rows: &[Row<'_>], shown: impl Iterator<Item = usize>) -> Vec<(String, Vec<usize>)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for row in shown {
        let family = match (rows[row].control, rows[row].trials.first()) {
            (Control::None, Some(trial)) => trial.family(),
            _ => CONTROLS,
        };
        match groups.iter_mut().find(|(known, _)| known == family) {
            Some((_, members)) => members.push(row),
            None => groups.push((family.into(), vec![row])),
        }
    }
    groups.sort_by_key(|(family, _)| family == CONTROLS);
    groups
}
