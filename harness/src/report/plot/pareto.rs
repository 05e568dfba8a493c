//! Accuracy against the time of one query, with the line of rows that no other beats in both.

use super::Scene;
use super::canvas::{Align, BODY, Canvas, GREY, Point, Type, measure};
use super::frame::{Axis, Figure, Panel};
use crate::record::Control;
use crate::report::cost;
use crate::stats::{self, metric::Metric};

/// Lettering of the rows' names.
const NAME: Type = Type { size: 11.5, ..BODY };

/// Draws the plot; `None` where fewer than two rows have both numbers.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let columns: Vec<Metric> = scene.section.columns().iter().map(|name| Metric::parse(name)).collect();
    // The sum of recalls where there is one; else the first metric, averaged over both directions.
    let metrics: Vec<Metric> = match columns.iter().find(|metric| metric.name == "rsum") {
        Some(sum) => vec![sum.clone()],
        None => {
            let first = columns.iter().find(|metric| !metric.less_is_better())?;
            columns.iter().filter(|metric| metric.short() == first.short()).cloned().collect()
        }
    };
    let label = match metrics.as_slice() {
        [metric] => metric.name.clone(),
        _ => format!("{}, mean of both directions", metrics[0].short()),
    };
    let mut points: Vec<(usize, f64, f64)> = Vec::new();
    for row in 0..rows.len() {
        let values: Option<Vec<f64>> =
            metrics.iter().map(|metric| scene.scores.of(metric)[row].as_ref().map(|score| score.mean)).collect();
        let time = cost::samples(&rows[row], "query single", |seconds, items| 1e3 * seconds / items.max(1) as f64);
        let time = stats::quantile(&time, 0.5).filter(|time| *time > 0.0);
        if let (Some(value), Some(time)) = (values.and_then(|values| stats::mean(&values)), time) {
            points.push((row, time, value));
        }
    }
    if points.len() < 2 {
        return None;
    }
    let x = Axis::log("median time of one query, ms (less is better)", points.iter().map(|point| point.1));
    let y = Axis::linear(&label, points.iter().map(|point| point.2), false);
    let figure = Figure {
        title,
        footer: &scene.footer("Dashed: rows that no other row beats in both accuracy and time; controls aside."),
        panels: vec![(String::new(), x, y)],
        stacked: false,
        legend: Vec::new(),
    };
    let (mut canvas, frames) = figure.frame();
    let panel = &frames[0];
    let front = front(points.iter().filter(|point| rows[point.0].control == Control::None));
    let [left, _, width, _] = panel.field;
    let mut steps: Vec<Point> = Vec::new();
    for (time, value) in &front {
        let place = panel.at(*time, *value);
        if let Some((_, y)) = steps.last().copied() {
            steps.push((place.0, y));
        }
        steps.push(place);
    }
    if let Some((_, y)) = steps.last().copied() {
        steps.push((left + width, y));
    }
    canvas.dashed(&steps, GREY, 1.4, (5.0, 4.0));
    let places: Vec<Point> = points.iter().map(|(_, time, value)| panel.at(*time, *value)).collect();
    for ((row, _, _), place) in points.iter().zip(&places) {
        scene.palette.look(scene.section, &rows[*row]).marker(&mut canvas, *place, 5.0);
    }
    let names: Vec<String> =
        points.iter().map(|(row, _, _)| rows[*row].name.clone() + if rows[*row].dagger { "†" } else { "" }).collect();
    write_names(&mut canvas, panel, &places, &names);
    Some(canvas)
}

/// The points that no other beats in both, by time.
fn front<'a>(points: impl Iterator<Item = &'a (usize, f64, f64)>) -> Vec<(f64, f64)> {
    let mut sorted: Vec<(f64, f64)> = points.map(|(_, time, value)| (*time, *value)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
    let mut best = f64::NEG_INFINITY;
    sorted.retain(|(_, value)| {
        let better = *value > best;
        best = best.max(*value);
        better
    });
    sorted
}

type Box = [f64; 4];

fn overlap(a: &Box, b: &Box) -> f64 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    side(0, 2) * side(1, 3)
}

/// Writes each name at the free place nearest to its point, with a thin line where that is not right beside it.
fn write_names(canvas: &mut Canvas, panel: &Panel, places: &[Point], names: &[String]) {
    let [left, top, width, height] = panel.field;
    let mut taken: Vec<Box> = places.iter().map(|(x, y)| [x - 7.0, y - 7.0, x + 7.0, y + 7.0]).collect();
    for ((x, y), name) in places.iter().zip(names) {
        // Browsers letter an SVG in a font of their own, which may run wider.
        let (wide, half) = (measure(name, NAME) * 1.05, 8.0);
        let place = |radius: f64, angle: f64| -> (Point, Box) {
            let angle = angle.to_radians();
            let (cos, sin) = (angle.cos(), angle.sin());
            let centre = (x + radius * cos + wide / 2.0 * cos.signum() * cos.abs().powf(0.4), y - radius * sin);
            (centre, [centre.0 - wide / 2.0, centre.1 - half, centre.0 + wide / 2.0, centre.1 + half])
        };
        let cost = |bounds: &Box| {
            let covered: f64 = taken.iter().map(|other| overlap(bounds, other)).sum();
            let outside = (left + 2.0 - bounds[0]).max(0.0)
                + (bounds[2] - left - width).max(0.0)
                + (top - bounds[1]).max(0.0)
                + (bounds[3] + 2.0 - top - height).max(0.0);
            covered + 50.0 * outside
        };
        let angles = [0.0, 180.0, 90.0, 270.0, 40.0, 140.0, 220.0, 320.0];
        let choices =
            [12.0, 20.0, 32.0, 48.0, 66.0, 90.0].into_iter().flat_map(|radius| angles.map(|angle| (radius, angle)));
        let mut best: Option<(f64, f64, Point, Box)> = None;
        for (radius, angle) in choices {
            let (centre, bounds) = place(radius, angle);
            let cost = cost(&bounds) + 0.05 * radius;
            if best.is_none_or(|(least, ..)| cost < least) {
                best = Some((cost, radius, centre, bounds));
            }
        }
        let Some((_, radius, centre, bounds)) = best else { continue };
        if radius > 20.0 {
            let near = (x.clamp(bounds[0], bounds[2]), y.clamp(bounds[1] + 2.0, bounds[3] - 2.0));
            canvas.line(&[(*x, *y), near], GREY.alpha(0.7), 0.8);
        }
        canvas.text(centre, name, NAME, Align::Centre);
        taken.push(bounds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_keeps_what_nothing_beats() {
        let points = [(0, 1.0, 10.0), (1, 2.0, 9.0), (2, 3.0, 30.0), (3, 3.0, 20.0), (4, 9.0, 30.0)];
        assert_eq!(front(points.iter()), [(1.0, 10.0), (3.0, 30.0)]);
    }
}
