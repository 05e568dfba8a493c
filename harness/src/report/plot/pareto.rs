//! Accuracy, with its interval, against what it cost or when it was published, and the line of rows that are better than all before them.

use super::Scene;
use super::canvas::{Align, BODY, Canvas, GREY, Point, Type, measure};
use super::frame::{Axis, Figure, Panel, Scale, said};
use crate::protocol::Direction;
use crate::record::Control;
use crate::report::score::{Score, indistinguishable};
use crate::stats::{self, metric::Metric, time};

/// Lettering of the rows' names.
const NAME: Type = Type { size: 11.5, ..BODY };

/// A row with where it stands.
struct Placed<'a> {
    row: usize,
    x: f64,
    score: &'a Score,
}

/// Against the time of a query; `None` where fewer than two rows have both numbers.
pub fn draw(scene: &mut Scene<'_, '_>, title: &str, scale: Scale) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let columns: Vec<Metric> = scene.section.columns().iter().map(|name| Metric::parse(name)).collect();
    // Queries are clocked in one direction: the accuracy is that of the same one.
    let metric = columns.iter().find(|metric| metric.direction == Some(Direction::T2i) && !metric.less_is_better())?;
    let scores = scene.scores.of(metric).to_vec();
    let points = placed(scene, &scores, |row| {
        stats::quantile(&time::queries(&rows[row].trials), 0.5).filter(|time| *time > 0.0)
    });
    let label = "median time of a text that asks for images, ms, its encoding apart (less is better)";
    let times = points.iter().map(|point| point.x);
    let x = match scale {
        Scale::Log => Axis::log(label, times),
        Scale::Linear => Axis::linear(label, times, true),
    };
    scatter(
        scene,
        title,
        (x, metric),
        &points,
        "Dashed: each row that is better than every faster one by more than chance tells",
        |time| format!("{time:.3} ms a text"),
    )
}

/// Against the year of the paper; `None` where fewer than two years are known.
pub fn years(scene: &mut Scene<'_, '_>, title: &str) -> Option<Canvas> {
    let rows = &scene.section.rows;
    let columns: Vec<Metric> = scene.section.columns().iter().map(|name| Metric::parse(name)).collect();
    let headline = |metric: &&Metric| metric.name == "rsum";
    let contested = |metric: &&Metric| metric.is_contested() && !metric.less_is_better();
    let metric = columns.iter().find(headline).or_else(|| columns.iter().find(contested))?;
    let scores = scene.scores.of(metric).to_vec();
    let points = placed(scene, &scores, |row| {
        let method = xmbench_methods::registry::find(&rows[row].trials.first()?.method)?;
        Some(f64::from(method.card().year))
    });
    let x = Axis::whole("year of the paper that a method is from", points.iter().map(|point| point.x))?;
    scatter(
        scene,
        title,
        (x, metric),
        &points,
        "All rows have the data, the encoders and the training that the table states, which are not those of their papers. Dashed: each row \
         that is better than every older one by more than chance tells",
        |year| format!("{year:.0}"),
    )
}

/// Rows with a score and a place; a control's accuracy is no reason to wait for it.
fn placed<'a>(scene: &Scene<'_, '_>, scores: &'a [Option<Score>], x: impl Fn(usize) -> Option<f64>) -> Vec<Placed<'a>> {
    let rows = &scene.section.rows;
    let learned = (0..rows.len()).filter(|row| rows[*row].control == Control::None);
    learned.filter_map(|row| Some(Placed { row, x: x(row)?, score: scores[row].as_ref()? })).collect()
}

/// Points with whiskers and names, and the line of those that nothing to their left comes up to.
fn scatter(
    scene: &Scene<'_, '_>,
    title: &str,
    (x, metric): (Axis, &Metric),
    points: &[Placed<'_>],
    line: &str,
    words: impl Fn(f64) -> String,
) -> Option<Canvas> {
    if points.len() < 2 {
        return None;
    }
    let rows = &scene.section.rows;
    // Room for the names of the highest and the lowest.
    let ends = |score: &Score| score.interval.map_or([score.mean; 2], |interval| [interval.low, interval.high]);
    let (low, high) = points.iter().fold((f64::MAX, f64::MIN), |(low, high), point| {
        let [bottom, top] = ends(point.score);
        (low.min(bottom), high.max(top))
    });
    let room = 0.08 * (high - low);
    // Where no mean is negative, the axis is not either, whatever an interval says.
    let negative = points.iter().any(|point| point.score.mean < 0.0);
    let bottom = if negative { low - room } else { (low - room).max(0.0) };
    let y = Axis::linear(&metric.name, [bottom, high + room], false);
    let figure = Figure {
        title,
        footer: &scene.footer(&format!(
            "{} {line} (95 % interval of the paired difference, each by itself); rows selected \
             on the test split (†) aside.",
            scene.whiskers()
        )),
        panels: vec![(String::new(), x, y)],
        stacked: false,
        legend: Vec::new(),
    };
    let (mut canvas, frames) = figure.frame();
    let panel = &frames[0];
    let fair = |point: &&Placed<'_>| !rows[point.row].dagger || rows.iter().all(|row| row.dagger);
    let front =
        front(points.iter().filter(fair).map(|point| (point.x, point.score)), |score| score.mean, indistinguishable);
    let [left, _, width, _] = panel.field;
    let mut steps: Vec<Point> = Vec::new();
    for (x, score) in &front {
        let place = panel.at(*x, score.mean);
        if let Some((_, y)) = steps.last().copied() {
            steps.push((place.0, y));
        }
        steps.push(place);
    }
    if let Some((_, y)) = steps.last().copied() {
        steps.push((left + width, y));
    }
    canvas.dashed(&steps, GREY, 1.4, (5.0, 4.0));
    for Placed { row, x, score } in points {
        let [bottom, top] = ends(score).map(|end| panel.clamp(*x, end));
        canvas.row(Some(&rows[*row].name));
        canvas.line(&[bottom, top], GREY.alpha(0.45), 1.0);
    }
    let places: Vec<Point> = points.iter().map(|point| panel.at(point.x, point.score.mean)).collect();
    for (Placed { row, x, score }, place) in points.iter().zip(&places) {
        canvas.row(Some(&rows[*row].name));
        scene.palette.plain(rows[*row].label).marker(&mut canvas, *place, 5.0);
        let of = format!("{}, {}, {}", rows[*row].name, words(*x), metric.name);
        canvas.note(*place, 8.0, &said(&of, (score.mean, score.interval)));
    }
    let name = |point: &Placed<'_>| (rows[point.row].name.as_str(), if rows[point.row].dagger { "†" } else { "" });
    let names: Vec<(&str, &str)> = points.iter().map(name).collect();
    write_names(&mut canvas, panel, (&places, &names), &steps);
    Some(canvas)
}

/// The points, by time, each of which has a higher value than every faster one and can be told from the best of these.
fn front<T: Copy>(
    points: impl Iterator<Item = (f64, T)>,
    value: impl Fn(T) -> f64,
    alike: impl Fn(T, T) -> bool,
) -> Vec<(f64, T)> {
    let mut sorted: Vec<(f64, T)> = points.collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(value(b.1).total_cmp(&value(a.1))));
    let mut best: Option<T> = None;
    sorted.retain(|(_, point)| {
        let better = best.is_none_or(|best| value(*point) > value(best) && !alike(best, *point));
        if better {
            best = Some(*point);
        }
        better
    });
    sorted
}

type Bounds = [f64; 4];

fn overlap(a: &Bounds, b: &Bounds) -> f64 {
    let side = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    side(0, 2) * side(1, 3)
}

/// How far a point is from a rectangle; 0 inside.
fn distance((x, y): Point, [left, top, right, bottom]: &Bounds) -> f64 {
    let beyond = |low: f64, at: f64, high: f64| (low - at).max(at - high).max(0.0);
    beyond(*left, x, *right).hypot(beyond(*top, y, *bottom))
}

/// Whether a line passes through a rectangle (Liang and Barsky 1984).
fn crosses([from, to]: [Point; 2], [left, top, right, bottom]: &Bounds) -> bool {
    let sides = [(from.0, to.0, *left, *right), (from.1, to.1, *top, *bottom)];
    let (mut enters, mut leaves) = (0.0f64, 1.0f64);
    for (from, to, low, high) in sides {
        let along = to - from;
        if along == 0.0 {
            if from < low || from > high {
                return false;
            }
            continue;
        }
        let [a, b] = [low, high].map(|side| (side - from) / along);
        (enters, leaves) = (enters.max(a.min(b)), leaves.min(a.max(b)));
    }
    enters < leaves
}

/// A name this near to a point reads as that point's.
const BESIDE: f64 = 18.0;

/// Where a name stands.
#[derive(Clone, Copy)]
struct Spot {
    centre: Point,
    bounds: Bounds,
    /// The thin line to its point, where it is not right beside that.
    leader: Option<[Point; 2]>,
}

/// Writes each name at the free place nearest to its point.
fn write_names(canvas: &mut Canvas, panel: &Panel, (places, names): (&[Point], &[(&str, &str)]), line: &[Point]) {
    const ROUNDS: usize = 4;
    let mut fixed: Vec<Bounds> = places.iter().map(|(x, y)| [x - 7.0, y - 7.0, x + 7.0, y + 7.0]).collect();
    // The line is thin: a name across it is worse than a name farther away, and better than one on a name.
    fixed.extend(line.windows(2).map(|pair| {
        let ((x, y), (to_x, to_y)) = (pair[0], pair[1]);
        [x.min(to_x) - 1.5, y.min(to_y) - 1.5, x.max(to_x) + 1.5, y.max(to_y) + 1.5]
    }));
    let texts: Vec<String> = names.iter().map(|(row, sign)| format!("{row}{sign}")).collect();
    // Browsers letter an SVG in a font of their own, which may run wider.
    let widths: Vec<f64> = texts.iter().map(|text| measure(text, NAME) * 1.05).collect();
    let spots = arrange(panel, places, &widths, &fixed, ROUNDS);
    for ((text, (row, _)), spot) in texts.iter().zip(names).zip(spots) {
        let Some(Spot { centre, leader, .. }) = spot else { continue };
        canvas.row(Some(row));
        if let Some(leader) = leader {
            canvas.line(&leader, GREY.alpha(0.7), 0.8);
        }
        canvas.text(centre, text, NAME, Align::Centre);
    }
}

/// A spot for the name of each point. Each round places every name anew beside what the others have taken: the first ones, that could
/// choose, make room for the last.
fn arrange(panel: &Panel, places: &[Point], widths: &[f64], fixed: &[Bounds], rounds: usize) -> Vec<Option<Spot>> {
    let mut spots: Vec<Option<Spot>> = vec![None; places.len()];
    for at in (0..rounds).flat_map(|_| 0..places.len()) {
        spots[at] = None;
        let others: Vec<Spot> = spots.iter().flatten().copied().collect();
        spots[at] = spot(panel, places, at, widths[at], (fixed, &others));
    }
    spots
}

/// The best spot of the name of one of the points, so wide, beside what is there and the names that others have.
fn spot(panel: &Panel, places: &[Point], own: usize, wide: f64, (fixed, others): (&[Bounds], &[Spot])) -> Option<Spot> {
    /// A line through a name is as bad as so much of it covered.
    const CROSSED: f64 = 60.0;
    let ([left, top, width, height], (x, y), half) = (panel.field, places[own], 8.0);
    let cost = |(spot, radius): &(Spot, f64)| {
        let bounds = &spot.bounds;
        let names = others.iter().map(|other| &other.bounds);
        let covered: f64 = fixed.iter().chain(names).map(|other| overlap(bounds, other)).sum();
        let outside = (left + 2.0 - bounds[0]).max(0.0)
            + (bounds[2] - left - width).max(0.0)
            + (top - bounds[1]).max(0.0)
            + (bounds[3] + 2.0 - top - height).max(0.0);
        let strangers = places.iter().filter(|other| **other != places[own]);
        let claimed: f64 = strangers.map(|other| (BESIDE - distance(*other, bounds)).max(0.0)).sum();
        let crossing = |leader: &Option<[Point; 2]>, bounds: &Bounds| leader.is_some_and(|line| crosses(line, bounds));
        let crossed = others
            .iter()
            .map(|other| f64::from(crossing(&spot.leader, &other.bounds)) + f64::from(crossing(&other.leader, bounds)));
        covered + 50.0 * outside + claimed + CROSSED * crossed.sum::<f64>() + 0.05 * radius
    };
    let angles = [0.0f64, 180.0, 90.0, 270.0, 40.0, 140.0, 220.0, 320.0];
    let choices = [12.0, 20.0, 32.0, 48.0, 66.0, 90.0].into_iter().flat_map(|radius| {
        angles.map(|angle| {
            let (sin, cos) = angle.to_radians().sin_cos();
            let centre = (x + radius * cos + wide / 2.0 * cos.signum() * cos.abs().powf(0.4), y - radius * sin);
            let bounds = [centre.0 - wide / 2.0, centre.1 - half, centre.0 + wide / 2.0, centre.1 + half];
            let near = (x.clamp(bounds[0], bounds[2]), y.clamp(bounds[1] + 2.0, bounds[3] - 2.0));
            (Spot { centre, bounds, leader: (radius > 20.0).then_some([(x, y), near]) }, radius)
        })
    });
    choices.min_by(|a, b| cost(a).total_cmp(&cost(b))).map(|(spot, _)| spot)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A figure with one panel, both axes from 0 to 10.
    fn empty() -> (Canvas, Panel) {
        let axis = || Axis::linear("x", [0.0, 10.0], true);
        let panels = vec![(String::new(), axis(), axis())];
        let (canvas, mut frames) =
            Figure { title: "t", footer: "", panels, stacked: false, legend: Vec::new() }.frame();
        (canvas, frames.remove(0))
    }

    fn bounds_of(canvas: &Canvas, name: &str) -> Bounds {
        let (at, wide) = (canvas.place_of(name).unwrap(), measure(name, NAME) * 1.05);
        [at.0 - wide / 2.0, at.1 - 8.0, at.0 + wide / 2.0, at.1 + 8.0]
    }

    #[test]
    fn a_name_stands_beside_no_other_point() {
        let (mut canvas, panel) = empty();
        // On the right of the first point its name would cover nothing, and end beside the second.
        let first = panel.at(2.0, 2.0);
        let places = [first, (first.0 + 50.0, first.1 + 17.0)];
        write_names(&mut canvas, &panel, (&places, &[("first row", ""), ("second row", "")]), &[]);
        for (name, other) in [("first row", places[1]), ("second row", places[0])] {
            let bounds = bounds_of(&canvas, name);
            assert!(distance(other, &bounds) >= BESIDE, "{name} at {bounds:?} beside {other:?}");
        }
        assert_eq!(distance((5.0, 1.0), &[0.0, 4.0, 2.0, 9.0]), 3.0f64.hypot(3.0));
        assert_eq!(distance((1.0, 5.0), &[0.0, 4.0, 2.0, 9.0]), 0.0);
    }

    #[test]
    fn a_line_crosses_what_it_passes_through() {
        let bounds = [2.0, 2.0, 6.0, 4.0];
        assert!(crosses([(0.0, 0.0), (8.0, 6.0)], &bounds) && crosses([(4.0, 0.0), (4.0, 3.0)], &bounds));
        assert!(crosses([(3.0, 3.0), (4.0, 3.0)], &bounds), "within");
        // Above, short of it, past a corner.
        for line in [[(0.0, 1.0), (8.0, 1.0)], [(0.0, 3.0), (1.0, 3.0)], [(0.0, 3.0), (3.0, 0.0)]] {
            assert!(!crosses(line, &bounds), "{line:?}");
        }
    }

    #[test]
    fn names_cover_neither_each_other_nor_points() {
        let (mut canvas, panel) = empty();
        let (x, y) = panel.at(5.0, 5.0);
        let places: Vec<Point> = [0.0, 25.0, 50.0, 75.0].map(|down| (x, y + down)).to_vec();
        let names = [("the first", ""), ("the second", ""), ("the third", ""), ("the fourth", "")];
        write_names(&mut canvas, &panel, (&places, &names), &[]);
        let bounds = names.map(|(name, _)| bounds_of(&canvas, name));
        for (at, own) in bounds.iter().enumerate() {
            assert!(bounds[..at].iter().all(|other| overlap(own, other) == 0.0), "{bounds:?}");
            assert!(places.iter().enumerate().all(|(place, point)| place == at || distance(*point, own) > 7.0));
        }
    }

    #[test]
    fn the_first_names_make_room_for_the_last() {
        let (_, panel) = empty();
        // Four rows of five points, closer than their names are wide.
        let (x, y) = panel.at(3.0, 7.0);
        let places: Vec<Point> = (0..20)
            .map(|at| (x + 42.0 * f64::from(at % 5) + f64::from(at / 5), y + 21.0 * f64::from(at / 5)))
            .collect();
        // Pairs of names of which one covers the other, or the line of one leads through the other.
        let spoilt = |rounds: usize| {
            let spots: Vec<Spot> = arrange(&panel, &places, &[60.0; 20], &[], rounds).into_iter().flatten().collect();
            assert_eq!(spots.len(), 20);
            let pairs =
                (0..20).flat_map(|own| (0..20).filter(move |other| *other != own).map(move |other| (own, other)));
            let pairs = pairs.map(|(own, other)| (&spots[own], &spots[other].bounds));
            let spoilt = pairs.filter(|(own, other)| {
                overlap(&own.bounds, other) > 0.0 || own.leader.is_some_and(|line| crosses(line, other))
            });
            spoilt.count()
        };
        assert!(spoilt(1) > 0);
        assert_eq!(spoilt(4), 0);
    }

    #[test]
    fn the_front_keeps_what_nothing_beats() {
        let points = [(1.0, 10.0), (2.0, 9.0), (3.0, 30.0), (3.0, 20.0), (9.0, 30.0), (10.0, 31.0)];
        let front =
            |noise: f64| super::front(points.into_iter(), |value| value, |a: f64, b: f64| (a - b).abs() <= noise);
        assert_eq!(front(0.0), [(1.0, 10.0), (3.0, 30.0), (10.0, 31.0)]);
        // What is not told from the best of the faster ones is no reason to wait.
        assert_eq!(front(2.0), [(1.0, 10.0), (3.0, 30.0)]);
    }
}
