//! Validation score and training loss against the epoch: the mean over seeds, with a band for what seeds move.

use xmbench_methods::method::Epoch;

use super::Scene;
use super::canvas::{Canvas, Point};
use super::frame::{Axis, Entry, Figure, Kind, Panel};
use crate::protocol::Task;
use crate::record::Control;
use crate::stats::{self, Interval};

/// Epoch, mean over seeds, lower and upper end of the band.
type Span = (f64, f64, f64, f64);

/// Fewest seeds of which the band is the 95 % interval of the mean. Below, Student's interval is wider than anything that was
/// seen (13 deviations for two seeds), and the range says more.
const ENOUGH: usize = 5;

/// What holds for any number of seeds.
const SAID: &str = "Large marker: highest validation; at a line's end, training was cut short. Losses of different methods are different functions.";

/// Draws the plot; `None` where no row kept a history.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let validation = match scene.section.protocol.task {
        Task::Pairs { .. } => "validation rsum",
        Task::Category { .. } => "validation MAP@all",
        Task::Correlation { .. } => "validation correlation",
    };
    let mut panels: Vec<(&str, Vec<(usize, Vec<Span>)>)> = Vec::new();
    for (label, value) in [
        (validation, (|epoch| epoch.validation) as fn(&Epoch) -> Option<f64>),
        ("training loss", |epoch| Some(epoch.loss)),
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
    let seeds: Vec<usize> = shown.iter().map(|row| rows[*row].trials.len()).collect();
    let figure = Figure {
        title,
        footer: &scene.footer(&remark(&seeds)),
        panels: panels.iter().map(axes).collect(),
        stacked: false,
        legend: shown
            .iter()
            .map(|row| Entry { text: rows[*row].name.clone(), look: look(*row), kind: Kind::Line })
            .collect(),
    };
    let (mut canvas, frames) = figure.frame();
    // Many bands lie over each other: each is paler then.
    let alpha = if shown.len() > 5 { 0.09 } else { 0.16 };
    for ((label, lines), panel) in panels.iter().zip(&frames) {
        for (row, spans) in lines {
            canvas.row(Some(&rows[*row].name));
            band(&mut canvas, panel, spans, look(*row).colour.alpha(alpha));
        }
        for (i, (row, spans)) in lines.iter().enumerate() {
            let places: Vec<Point> = spans.iter().map(|(x, mean, _, _)| panel.at(*x, *mean)).collect();
            canvas.row(Some(&rows[*row].name));
            look(*row).line(&mut canvas, &places, 2.0);
            let every = (places.len() / 5).max(1);
            places.iter().skip(i % every).step_by(every).for_each(|place| look(*row).marker(&mut canvas, *place, 3.6));
            let best = spans.iter().zip(&places).reduce(|best, other| if other.0.1 > best.0.1 { other } else { best });
            best.filter(|_| *label == validation)
                .into_iter()
                .for_each(|(_, place)| look(*row).marker(&mut canvas, *place, 6.5));
        }
    }
    Some(canvas)
}

/// What line and band are, for rows of so many seeds.
fn remark(seeds: &[usize]) -> String {
    let interval = "95 % interval of the mean (Student's t over seeds)";
    let band = match (seeds.iter().any(|n| (2..ENOUGH).contains(n)), seeds.iter().any(|n| *n >= ENOUGH)) {
        (false, false) => {
            return format!("Each line is one seed. {SAID}");
        }
        (true, false) => "least to greatest over seeds, which are too few for an interval".to_string(),
        (false, true) => interval.to_string(),
        (true, true) => format!("{interval}, below {ENOUGH} seeds least to greatest"),
    };
    format!("Line: mean over seeds; band: {band}. {SAID}")
}

/// Mean and band at each epoch that every seed reached.
fn spans(histories: &[&[Epoch]], value: impl Fn(&Epoch) -> Option<f64>) -> Vec<Span> {
    let first = histories.first().copied().unwrap_or_default();
    let span = |epoch: &Epoch| {
        let at = |history: &&[Epoch]| history.iter().find(|other| other.epoch == epoch.epoch).and_then(&value);
        let values: Vec<f64> = histories.iter().map(at).collect::<Option<_>>()?;
        let sorted = stats::sorted(&values);
        let range = Interval { low: *sorted.first()?, high: *sorted.last()? };
        let interval = Interval::of_mean(&values).filter(|_| values.len() >= ENOUGH);
        let band = interval.unwrap_or(range);
        Some((epoch.epoch as f64, stats::mean(&values)?, band.low, band.high))
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
    let first = if step > 1.0 { Some(1.0) } else { None };
    let rest = (1..=(last.max(2.0) / step) as usize).map(|i| i as f64 * step);
    axis.ticks = first.into_iter().chain(rest).collect();
    axis
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(values: &[f64]) -> Vec<Epoch> {
        let epoch = |(i, value): (usize, &f64)| Epoch {
            epoch: i + 1,
            loss: *value,
            learning_rate: 0.1,
            validation: (i % 2 == 1).then_some(*value),
            seconds: 1.0,
            pairs: 64,
        };
        values.iter().enumerate().map(epoch).collect()
    }

    #[test]
    fn few_seeds_have_a_range_and_more_an_interval() {
        let all: Vec<Vec<Epoch>> = (1..=5).map(|i| history(&[f64::from(i), 2.0 * f64::from(i)])).collect();
        let of = |n: usize| spans(&all[..n].iter().map(Vec::as_slice).collect::<Vec<_>>(), |epoch| Some(epoch.loss));
        assert_eq!(of(4), [(1.0, 2.5, 1.0, 4.0), (2.0, 5.0, 2.0, 8.0)]);
        // Mean 3, deviation sqrt 2.5, t(4) = 2.776: 3 +- 2.776 * 1.5811 / sqrt 5 = 3 +- 1.963.
        let (_, mean, low, high) = of(5)[0];
        assert!(mean == 3.0 && (low - 1.037).abs() < 1e-3 && (high - 4.963).abs() < 1e-3);
        assert!(remark(&[4]).contains("least to greatest") && remark(&[5]).contains("Student"));
    }

    #[test]
    fn epochs_that_were_not_validated_or_not_reached_by_every_seed_are_left_out() {
        let (a, b) = (history(&[1.0, 2.0, 3.0, 4.0]), history(&[3.0, 4.0, 5.0]));
        let spans = spans(&[&a, &b], |epoch| epoch.validation);
        assert_eq!(spans, [(2.0, 3.0, 2.0, 4.0)]);
    }
}
