//! Precision against recall, and precision among the first N: a panel a direction, a line a row.

use super::canvas::{Canvas, Point};
use super::frame::{Axis, Entry, Figure, Kind};
use super::{Scene, mean_curve};
use crate::record::{Control, section::Row};

/// Precision against recall.
pub fn precision_recall(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let axes = |values: &[Point]| {
        let precision = values.iter().map(|(_, y)| *y);
        (Axis::linear("recall", [0.0, 1.0], true), Axis::linear("interpolated precision", precision, true))
    };
    draw(scene, title, &[("", "precision-recall")], axes)
}

/// Precision among the first N.
pub fn top_n(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let axes = |values: &[Point]| {
        let precision = values.iter().map(|(_, y)| *y);
        (
            Axis::log("N, number of items shown", values.iter().map(|(x, _)| *x)),
            Axis::linear("precision", precision, true),
        )
    };
    draw(scene, title, &[("", "precision@n")], axes)
}

/// Precision and recall within each Hamming radius, means over queries.
pub fn radius(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let axes = |values: &[Point]| {
        let radii = values.iter().map(|(x, _)| *x);
        (Axis::linear("Hamming radius", radii, true), Axis::linear("share", [0.0, 1.0], true))
    };
    draw(scene, title, &[("precision", "precision@radius"), ("recall", "recall@radius")], axes)
}

/// A panel a direction and curve; curves are given with what their panels are called besides.
fn draw(
    scene: &Scene<'_, '_>,
    title: &str,
    curves: &[(&str, &str)],
    axes: impl Fn(&[Point]) -> (Axis, Axis),
) -> Option<Canvas> {
    let directions = [("i2t", "image to text"), ("t2i", "text to image")];
    let asked: Vec<(String, String)> = directions
        .iter()
        .flat_map(|(direction, words)| {
            let panel = move |what: &str| if what.is_empty() { words.to_string() } else { format!("{words}, {what}") };
            curves.iter().map(move |(what, curve)| (format!("{direction} {curve}"), panel(what)))
        })
        .collect();
    let rows = &scene.section.rows;
    // A dozen lines of one method at several code lengths cannot be told apart: the longest codes stand for it, and codes of other lengths
    // are not compared with them.
    let longest = rows.iter().filter_map(Row::length).max();
    let lines: Vec<Vec<(usize, Vec<Point>)>> = asked
        .iter()
        .map(|(name, _)| {
            let line = |row: usize| {
                let curves: Vec<&[[f64; 2]]> =
                    rows[row].trials.iter().filter_map(|trial| trial.curves.get(name).map(Vec::as_slice)).collect();
                let points = mean_curve(&curves);
                (points.len() > 1 && curves.len() == rows[row].trials.len()).then_some((row, points))
            };
            let shown = (0..rows.len()).filter(|row| rows[*row].length().is_none_or(|bits| Some(bits) == longest));
            shown.filter_map(line).collect()
        })
        .collect();
    let all: Vec<Point> = lines.iter().flatten().flat_map(|(_, points)| points.iter().copied()).collect();
    if all.is_empty() {
        return None;
    }
    // Alone of its sweep, a row needs no paler shade.
    let look = |row: usize| match rows[row].bits() {
        Some(_) if rows[row].control == Control::None => scene.palette.plain(rows[row].label),
        _ => scene.palette.look(scene.section, &rows[row]),
    };
    let kind = |row: usize| if rows[row].control == Control::None { Kind::Line } else { Kind::Plain };
    let mut shown: Vec<usize> = lines.iter().flatten().map(|(row, _)| *row).collect();
    shown.sort_unstable();
    shown.dedup();
    let panels = asked.iter().map(|(_, words)| words).zip(&lines).filter(|(_, lines)| !lines.is_empty());
    let axes = |(words, _): (&String, &Vec<_>)| {
        let (x, y) = axes(&all);
        (words.to_string(), x, y)
    };
    let remark = match longest {
        Some(bits) => format!("Mean over seeds; the longest codes, {bits} bits."),
        None => "Mean over seeds.".to_string(),
    };
    let figure = Figure {
        title,
        footer: &scene.footer(&remark),
        panels: panels.clone().map(axes).collect(),
        stacked: false,
        legend: shown
            .iter()
            .map(|row| Entry { text: rows[*row].name.clone(), look: look(*row), kind: kind(*row) })
            .collect(),
    };
    let (mut canvas, frames) = figure.frame();
    for ((_, lines), panel) in panels.zip(&frames) {
        for (i, (row, points)) in lines.iter().enumerate() {
            let places: Vec<Point> = points.iter().map(|(x, y)| panel.at(*x, *y)).collect();
            canvas.row(Some(&rows[*row].name));
            look(*row).line(&mut canvas, &places, 2.0);
            if kind(*row) == Kind::Line {
                // Markers of different lines stand at different places along the axis.
                let every = (places.len() / 6).max(1);
                places
                    .iter()
                    .skip(i % every)
                    .step_by(every)
                    .for_each(|place| look(*row).marker(&mut canvas, *place, 3.6));
            }
        }
    }
    Some(canvas)
}
