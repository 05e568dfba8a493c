//! Loss and validation score against the epoch, with the range over seeds.

use xmbench_methods::method::Epoch;

use super::Scene;
use super::canvas::{Canvas, Point};
use super::frame::{Axis, Entry, Figure, Kind, Panel};
use crate::record::Control;
use crate::stats;

/// Epoch, mean, least and greatest value over seeds.
type Span = (f64, f64, f64, f64);

/// Draws the plot; `None` where no row kept a history.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let mut panels: Vec<(&str, Vec<(usize, Vec<Span>)>)> = Vec::new();
    for (label, value) in [
        ("training loss", (|epoch| Some(epoch.loss)) as fn(&Epoch) -> Option<f64>),
        ("validation score", |epoch| epoch.validation),
    ] {
        let line = |row: usize| {
            let histories: Vec<&[Epoch]> = rows[row].trials.iter().map(|trial| trial.history.as_slice()).collect();
            Some((row, spans(&histories, value))).filter(|(_, spans)| !spans.is_empty())
        };
        let learned = (0..rows.len()).filter(|row| rows[*row].control == Control::None);
        let lines: Vec<(usize, Vec<Span>)> = learned.filter_map(line).collect();
        if !lines.is_empty() {
            panels.push((label, lines));
        }
    }
    if panels.is_empty() {
        return None;
    }
    let look = |row: usize| scene.palette.look(scene.section, &rows[row]);
    let mut shown: Vec<usize> = panels.iter().flat_map(|(_, lines)| lines.iter().map(|(row, _)| *row)).collect();
    shown.sort_unstable();
    shown.dedup();
    let axes = |(label, lines): &(&str, Vec<(usize, Vec<Span>)>)| {
        let all = || lines.iter().flat_map(|(_, spans)| spans);
        let values: Vec<f64> = all().flat_map(|(_, _, low, high)| [*low, *high]).collect();
        let (low, high) =
            (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(0.0, f64::max));
        // Losses of different methods are on scales of their own.
        let y = match low > 0.0 && high / low > 30.0 {
            true => Axis::log(label, values),
            false => Axis::linear(label, values, false),
        };
        (String::new(), epochs(all().map(|span| span.0)), y)
    };
    let figure = Figure {
        title,
        footer: &scene.footer(
            "Line: mean over seeds; band: range over seeds. Losses of different methods are different functions.",
        ),
        panels: panels.iter().map(axes).collect(),
        stacked: false,
        legend: shown
            .iter()
            .map(|row| Entry { text: rows[*row].name.clone(), look: look(*row), kind: Kind::Line })
            .collect(),
    };
    let (mut canvas, frames) = figure.frame();
    for ((_, lines), panel) in panels.iter().zip(&frames) {
        for (row, spans) in lines {
            band(&mut canvas, panel, spans, look(*row).colour.alpha(0.16));
        }
        for (i, (row, spans)) in lines.iter().enumerate() {
            let places: Vec<Point> = spans.iter().map(|(x, mean, _, _)| panel.at(*x, *mean)).collect();
            look(*row).line(&mut canvas, &places, 2.0);
            let every = (places.len() / 5).max(1);
            places.iter().skip(i % every).step_by(every).for_each(|place| look(*row).marker(&mut canvas, *place, 3.6));
        }
    }
    Some(canvas)
}

/// Mean and range at each epoch that every seed reached.
fn spans(histories: &[&[Epoch]], value: impl Fn(&Epoch) -> Option<f64>) -> Vec<Span> {
    let first = histories.first().copied().unwrap_or_default();
    let span = |epoch: &Epoch| {
        let at = |history: &&[Epoch]| history.iter().find(|other| other.epoch == epoch.epoch).and_then(&value);
        let values: Vec<f64> = histories.iter().map(at).collect::<Option<_>>()?;
        let sorted = stats::sorted(&values);
        Some((epoch.epoch as f64, stats::mean(&values)?, *sorted.first()?, *sorted.last()?))
    };
    first.iter().filter_map(span).filter(|span| span.1.is_finite()).collect()
}

fn band(canvas: &mut Canvas, panel: &Panel, spans: &[Span], colour: super::canvas::Colour) {
    let upper = spans.iter().map(|(x, _, _, high)| panel.at(*x, *high));
    let lower = spans.iter().rev().map(|(x, _, low, _)| panel.at(*x, *low));
    let outline: Vec<Point> = upper.chain(lower).collect();
    if spans.iter().any(|(_, _, low, high)| high > low) {
        canvas.fill(&outline, colour);
    }
}

/// Whole epochs as ticks.
fn epochs(values: impl Iterator<Item = f64>) -> Axis {
    let last = values.fold(1.0, f64::max);
    let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0].into_iter().find(|step| last / step <= 8.0);
    let step = step.unwrap_or((last / 8.0).ceil());
    let mut axis = Axis::linear("epoch", [1.0, last.max(2.0)], false);
    axis.range = (1.0, last.max(2.0));
    axis.ticks = (1..=last.max(2.0) as usize)
        .map(|i| i as f64)
        .filter(|i| i % step == 0.0 || (*i == 1.0 && step > 1.0))
        .collect();
    axis
}
