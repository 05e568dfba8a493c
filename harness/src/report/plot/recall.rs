//! Grouped bars of R@K with 95 % intervals, a panel a direction.

use std::collections::BTreeSet;

use super::Scene;
use super::canvas::{Align, BODY, Canvas, GREY};
use super::frame::{Axis, Entry, Figure, Kind, Scale};
use crate::protocol::Direction;
use crate::record::Control;
use crate::report::score::Score;
use crate::stats::metric::Metric;

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
    let shown: Vec<usize> = (0..rows.len()).filter(shown).collect();
    // Chance is the floor under a whole group and no competitor: a line across it.
    let (floors, bars): (Vec<usize>, Vec<usize>) = shown.iter().partition(|row| rows[**row].control == Control::Chance);
    let look = |row: usize| scene.palette.look(scene.section, &rows[row]);
    let entry = |row: &usize, kind| Entry { text: rows[*row].name.clone(), look: look(*row), kind };
    let legend = bars.iter().map(|row| entry(row, Kind::Bar)).chain(floors.iter().map(|row| entry(row, Kind::Plain)));
    let top = panels.iter().flat_map(|(_, groups)| groups.iter().flatten().flatten());
    let top = top.map(|score| score.interval.map_or(score.mean, |interval| interval.high)).fold(1.0, f64::max);
    let axis = |direction: &Direction| {
        let x = Axis {
            label: String::new(),
            range: (0.0, cutoffs.len() as f64),
            scale: Scale::Linear,
            ticks: Vec::new(),
            names: Vec::new(),
        };
        let words = Metric::parse(&format!("{direction} R@1")).group();
        (words.to_string(), x, Axis::linear("recall at K, %", [0.0, top.min(100.0)], true))
    };
    let figure = Figure {
        title,
        footer: &scene.footer("Whiskers: 95 % interval over images and seeds."),
        panels: panels.iter().map(|(direction, _)| axis(direction)).collect(),
        stacked: bars.len() > 7,
        legend: legend.collect(),
    };
    let (mut canvas, frames) = figure.frame();
    for ((_, groups), panel) in panels.iter().zip(&frames) {
        for (at, (group, k)) in groups.iter().zip(&cutoffs).enumerate() {
            let width = 0.84 / bars.len().max(1) as f64;
            let left = at as f64 + 0.08;
            for (i, row) in bars.iter().enumerate() {
                let Some(score) = &group[*row] else { continue };
                let x = left + width * i as f64;
                canvas.bar(
                    panel.at(x + 0.06 * width, 0.0),
                    panel.clamp(x + 0.94 * width, score.mean),
                    look(*row).colour,
                );
                if let Some(interval) = score.interval {
                    panel.whisker(&mut canvas, x + 0.5 * width, interval.low.max(0.0), interval.high.min(100.0));
                }
            }
            for score in floors.iter().filter_map(|row| group[*row].as_ref()) {
                let (a, b) = (panel.clamp(at as f64 + 0.04, score.mean), panel.clamp(at as f64 + 0.96, score.mean));
                canvas.dashed(&[a, b], GREY, 1.8, (2.0, 3.0));
            }
            let (x, y) = panel.at(at as f64 + 0.5, 0.0);
            canvas.text((x, y + 14.0), &format!("R@{k}"), BODY, Align::Centre);
        }
    }
    Some(canvas)
}
