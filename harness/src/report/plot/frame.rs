//! Axes and the arrangement of a figure: title, panels, legend, protocol line.

use super::canvas::{Align, BODY, Canvas, FAINT, GREY, INK, Point, SMALL, TITLE, Type, measure, wrap};
use super::palette::Look;
use crate::stats::Interval;

/// How values become places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm.
    Log,
}

/// One axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// Label with unit.
    pub label: String,
    /// Lowest and highest value.
    pub range: (f64, f64),
    /// How values become places.
    pub scale: Scale,
    /// Values with a tick.
    pub ticks: Vec<f64>,
    /// What stands at the ticks; their values where there are none.
    pub names: Vec<String>,
}

impl Axis {
    /// A linear axis that holds all values, with round ticks; it starts at zero where `zero` says so.
    pub fn linear(label: &str, values: impl IntoIterator<Item = f64>, zero: bool) -> Self {
        let (mut low, mut high) = span(values);
        if zero {
            low = low.min(0.0);
        }
        if high - low < 1e-12 {
            (low, high) = (low - 0.5 * low.abs().max(1.0), high + 0.5 * high.abs().max(1.0));
        }
        let step = round_step((high - low) / 5.0);
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil();
        let ticks: Vec<f64> = (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect();
        Self { label: label.into(), range: (first * step, last * step), scale: Scale::Linear, ticks, names: Vec::new() }
    }

    /// A linear axis of whole numbers with room at both ends; nothing where all values are one.
    pub fn whole(label: &str, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let (low, high) = span(values);
        if high - low < 1.0 {
            return None;
        }
        let step = ((high - low) / 8.0).ceil();
        let ticks = (0..).map(|i| low + step * f64::from(i)).take_while(|tick| *tick <= high).collect();
        let room = 0.08 * (high - low);
        let range = (low - room, high + room);
        Some(Self { label: label.into(), range, scale: Scale::Linear, ticks, names: Vec::new() })
    }

    /// A logarithmic axis that holds all values, with ticks at decades alone, at 1, 2 and 5 of each, or at round steps, so that there are
    /// three or more.
    pub fn log(label: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = span(values.into_iter().filter(|value| *value > 0.0));
        let (low, high) = (low.max(1e-12) / 1.25, high.max(1e-12) * 1.25);
        let within = |tick: &f64| (low..=high).contains(tick);
        let of_decades = |steps: &'static [f64]| -> Vec<f64> {
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            let all = decades.flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)));
            all.filter(within).collect()
        };
        let mut ticks = of_decades(&[1.0]);
        if ticks.len() < 3 || (high / low).log10() <= 2.5 {
            ticks = of_decades(&[1.0, 2.0, 5.0]);
        }
        if ticks.len() < 3 {
            let step = round_step((high - low) / 6.0);
            let first = (low / step).ceil();
            ticks = (0..).map(|i| (first + f64::from(i)) * step).take_while(within).collect();
        }
        Self { label: label.into(), range: (low, high), scale: Scale::Log, ticks, names: Vec::new() }
    }

    /// A logarithmic axis with a tick at each of the given values.
    pub fn log_at(label: &str, values: &[f64]) -> Self {
        let (low, high) = span(values.iter().copied());
        let margin = if low == high { 2.0 } else { (high / low).powf(0.06) };
        let range = (low / margin, high * margin);
        Self { label: label.into(), range, scale: Scale::Log, ticks: values.to_vec(), names: Vec::new() }
    }

    /// An axis of names, evenly spaced in their order; the first stands at 0.
    pub fn named(label: &str, names: Vec<String>) -> Self {
        let ticks: Vec<f64> = (0..names.len()).map(|i| i as f64).collect();
        Self { label: label.into(), range: (-0.4, names.len() as f64 - 0.6), scale: Scale::Linear, ticks, names }
    }

    /// Where a value lies, from 0 to 1.
    pub fn share(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value / low).ln() / (high / low).ln(),
        }
    }

    /// What stands at a tick.
    pub fn tick(&self, value: f64) -> String {
        if self.scale == Scale::Log {
            return number(value);
        }
        let step = self.ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
        let digits = if step.is_finite() { (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize } else { 0 };
        let text = format!("{value:.digits$}");
        if value.abs() < 1e-12 { text.trim_start_matches('-').to_string() } else { text }
    }
}

fn span(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let finite = values.into_iter().filter(|value| value.is_finite());
    let (low, high) =
        finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low, high) } else { (0.0, 1.0) }
}

/// The next of 1, 2, 5 times a power of ten.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// A number without trailing zeros.
fn number(value: f64) -> String {
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A panel with two axes.
#[derive(Debug, Clone)]
pub struct Panel {
    /// Left, top, width, height of the field between the axes.
    pub field: [f64; 4],
    x: Axis,
    y: Axis,
}

impl Panel {
    /// The place of a value.
    pub fn at(&self, x: f64, y: f64) -> Point {
        let [left, top, width, height] = self.field;
        (left + width * self.x.share(x), top + height * (1.0 - self.y.share(y)))
    }

    /// The place of a value, held inside the field.
    pub fn clamp(&self, x: f64, y: f64) -> Point {
        let [left, top, width, height] = self.field;
        let (x, y) = self.at(x, y);
        (x.clamp(left, left + width), y.clamp(top, top + height))
    }

    fn draw(&self, canvas: &mut Canvas, title: &str) {
        let [left, top, width, height] = self.field;
        let (right, bottom) = (left + width, top + height);
        canvas.text((left + width / 2.0, top - 14.0), title, Type { bold: true, size: 14.0, ..BODY }, Align::Centre);
        for tick in &self.y.ticks {
            let (_, y) = self.at(self.x.range.0, *tick);
            canvas.line(&[(left, y), (right, y)], FAINT, 1.0);
            canvas.text((left - 7.0, y), &self.y.tick(*tick), BODY, Align::Right);
        }
        for (i, tick) in self.x.ticks.iter().enumerate() {
            let (x, _) = self.at(*tick, self.y.range.0);
            canvas.line(&[(x, bottom), (x, bottom + 5.0)], INK, 1.0);
            let text = self.x.names.get(i).cloned().unwrap_or_else(|| self.x.tick(*tick));
            canvas.text((x, bottom + 14.0), &text, BODY, Align::Centre);
        }
        canvas.line(&[(left, top), (left, bottom), (right, bottom)], INK, 1.0);
        canvas.text((left + width / 2.0, bottom + 34.0), &self.x.label, BODY, Align::Centre);
        canvas.text((left - 48.0, top + height / 2.0), &self.y.label, BODY, Align::Upwards);
    }

    /// A value with its interval as a thin upright line with feet.
    pub fn whisker(&self, canvas: &mut Canvas, x: f64, low: f64, high: f64) {
        let ((at, bottom), (_, top)) = (self.clamp(x, low), self.clamp(x, high));
        canvas.line(&[(at, bottom), (at, top)], INK, 1.2);
        for y in [bottom, top] {
            canvas.line(&[(at - 3.0, y), (at + 3.0, y)], INK, 1.2);
        }
    }
}

/// A mean that a panel shows.
pub struct Mean {
    /// Where it stands.
    pub x: f64,
    /// The mean, and its interval where there is one.
    pub value: (f64, Option<Interval>),
    /// Of what it is: `VSE++, 64 bits`.
    pub of: String,
}

/// A mean with its interval in words: `VSE++, 64 bits: 0.415 [0.400, 0.430]`.
pub fn said(of: &str, (mean, interval): (f64, Option<Interval>)) -> String {
    let digits = if mean.abs() < 2.0 { 3 } else { 1 };
    let number = |value: f64| format!("{value:.digits$}");
    let interval = interval.map(|it| format!(" [{}, {}]", number(it.low), number(it.high)));
    format!("{of}: {}{}", number(mean), interval.unwrap_or_default())
}

impl Panel {
    /// Means of one row with their intervals, joined by a line unless their places have no order.
    pub fn means(&self, canvas: &mut Canvas, look: &Look, joined: bool, means: &[Mean]) {
        let places: Vec<Point> = means.iter().map(|mean| self.at(mean.x, mean.value.0)).collect();
        if joined {
            look.line(canvas, &places, 2.0);
        }
        for Mean { x, value: (_, interval), .. } in means {
            if let Some(interval) = interval {
                self.whisker(canvas, *x, interval.low, interval.high);
            }
        }
        for (mean, place) in means.iter().zip(&places) {
            look.marker(canvas, *place, 4.2);
            canvas.note(*place, 7.0, &said(&mean.of, mean.value));
        }
    }
}

/// Where a line, by its number, stands at a value of an axis of these values ([`Axis::log_at`]): lines stand side by side, so that
/// their whiskers do, and together take less than a third of what is between two values.
pub fn beside(values: &[f64], lines: usize) -> impl Fn(usize, f64) -> f64 + use<> {
    let range = values.last().zip(values.first()).map_or(1.0, |(last, first)| last / first).max(4.0);
    let share = 0.3 / (values.len().saturating_sub(1).max(1) * lines.max(1)) as f64;
    let apart = range.powf(share.min(0.018));
    move |line, value| value * apart.powf(line as f64 - (lines as f64 - 1.0) / 2.0)
}

/// What a line of the legend shows.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Text.
    pub text: String,
    /// Its look.
    pub look: Look,
    /// How the look is shown.
    pub kind: Kind,
}

/// How a legend shows a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A line with a marker.
    Line,
    /// A line without.
    Plain,
    /// A marker without a line.
    Mark,
}

/// A figure before its data are drawn.
pub struct Figure<'a> {
    /// Title.
    pub title: &'a str,
    /// Protocol and whatever else must stand below.
    pub footer: &'a str,
    /// Title and axes of each panel.
    pub panels: Vec<(String, Axis, Axis)>,
    /// Whether the panels stand one below the other.
    pub stacked: bool,
    /// Legend; it stands below the panels and so covers no data.
    pub legend: Vec<Entry>,
}

/// Width of every figure.
pub const WIDTH: f64 = 860.0;
/// Left and right of everything.
pub const MARGIN: f64 = 18.0;
const LEFT: f64 = 70.0;
const LINE: f64 = 20.0;

impl Figure<'_> {
    /// Draws everything but the data, and returns the panels to draw them in.
    pub fn frame(&self) -> (Canvas, Vec<Panel>) {
        let inner = WIDTH - 2.0 * MARGIN;
        let columns = match self.panels.len() {
            _ if self.stacked => 1,
            // Two directions of two measures: a row a direction.
            4 => 2,
            panels => panels.max(1),
        };
        let rows = self.panels.len().div_ceil(columns);
        let height = if rows > 1 { 240.0 } else { 320.0 };
        let titled = self.panels.iter().any(|(title, _, _)| !title.is_empty());
        let top = head(self.title) + if titled { 28.0 } else { 10.0 };
        let labelled = self.panels.iter().any(|(_, x, _)| !x.label.is_empty());
        let pitch = height + if labelled { 46.0 } else { 26.0 } + if titled { 32.0 } else { 12.0 };
        let below = top + pitch * rows as f64 - if titled { 22.0 } else { 4.0 };
        let mut canvas = foot(self.title, self.footer, (&self.legend, true), below);
        let pane = inner / columns as f64;
        let mut panels = Vec::new();
        for (i, (title, x, y)) in self.panels.iter().enumerate() {
            let left = MARGIN + pane * (i % columns) as f64 + LEFT - 8.0;
            let field = [left, top + pitch * (i / columns) as f64, pane - LEFT - 8.0, height];
            let panel = Panel { field, x: x.clone(), y: y.clone() };
            panel.draw(&mut canvas, title);
            panels.push(panel);
        }
        (canvas, panels)
    }
}

/// Where what is below a title begins.
pub fn head(title: &str) -> f64 {
    MARGIN + 24.0 * wrap(title, TITLE, WIDTH - 2.0 * MARGIN).len() as f64
}

/// A canvas with a title, room for panels down to `below`, a legend there, which so covers no data, and a footer. An entry of the
/// legend is a row of the table, or it stands for something that all rows have.
pub fn foot(title: &str, footer: &str, (legend, of_rows): (&[Entry], bool), below: f64) -> Canvas {
    let inner = WIDTH - 2.0 * MARGIN;
    let footer = wrap(footer, SMALL, inner);
    let legend = legend_lines(legend, inner);
    let start = below + LINE * legend.len() as f64 + 18.0;
    let mut canvas = Canvas::new(WIDTH, (start + 14.0 * footer.len() as f64 + 8.0).ceil());
    for (i, line) in wrap(title, TITLE, inner).iter().enumerate() {
        canvas.text((MARGIN, MARGIN + 10.0 + 24.0 * i as f64), line, TITLE, Align::Left);
    }
    // All lines begin below each other, so that the last one does not hang in the middle.
    let width = |line: &Vec<&Entry>| line.iter().map(|entry| entry_width(entry)).sum::<f64>();
    let widest = legend.iter().map(width).fold(0.0, f64::max);
    for (i, line) in legend.iter().enumerate() {
        let mut x = MARGIN + (inner - widest).max(0.0) / 2.0;
        for entry in line {
            canvas.row(of_rows.then_some(entry.text.as_str()));
            key(&mut canvas, (x, below + LINE * (i as f64 + 0.5)), entry);
            x += entry_width(entry);
        }
    }
    canvas.row(None);
    canvas.line(&[(MARGIN, start - 8.0), (WIDTH - MARGIN, start - 8.0)], FAINT, 1.0);
    for (i, line) in footer.iter().enumerate() {
        canvas.text((MARGIN, start + 4.0 + 14.0 * i as f64), line, SMALL, Align::Left);
    }
    canvas
}

fn legend_lines(legend: &[Entry], width: f64) -> Vec<Vec<&Entry>> {
    let mut lines: Vec<Vec<&Entry>> = Vec::new();
    let mut used = f64::INFINITY;
    for entry in legend {
        let wide = entry_width(entry);
        if used + wide > width {
            lines.push(Vec::new());
            used = 0.0;
        }
        used += wide;
        lines.last_mut().expect("a line was started").push(entry);
    }
    lines
}

fn entry_width(entry: &Entry) -> f64 {
    34.0 + measure(&entry.text, BODY) * 1.04 + 18.0
}

fn key(canvas: &mut Canvas, (x, y): Point, entry: &Entry) {
    let middle = x + 14.0;
    match entry.kind {
        Kind::Line | Kind::Plain => entry.look.line(canvas, &[(x, y), (x + 28.0, y)], 2.0),
        Kind::Mark => {}
    }
    if matches!(entry.kind, Kind::Line | Kind::Mark) {
        entry.look.marker(canvas, (middle, y), 4.0);
    }
    let colour = if entry.look.colour == GREY { GREY } else { INK };
    canvas.text((x + 34.0, y), &entry.text, Type { colour, ..BODY }, Align::Left);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_axis_has_round_ticks_however_far_it_reaches() {
        let ticks = |values: [f64; 2]| -> Vec<String> {
            let axis = Axis::log("ms", values);
            axis.ticks.iter().map(|tick| axis.tick(*tick)).collect()
        };
        assert_eq!(ticks([0.001, 20.0]), ["0.001", "0.01", "0.1", "1", "10"]);
        assert_eq!(ticks([0.3, 20.0]), ["0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(ticks([0.0015, 0.3]), ["0.002", "0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]);
        assert_eq!(ticks([0.045, 0.05]), ["0.04", "0.045", "0.05", "0.055", "0.06"]);
        assert_eq!(ticks([3.0, 3.0]), ["2.5", "3", "3.5"]);
    }

    #[test]
    fn an_axis_of_years_has_whole_years() {
        let axis = Axis::whole("year", [2018.0, 2004.0, 2021.0]).unwrap();
        assert_eq!(axis.ticks, [2004.0, 2007.0, 2010.0, 2013.0, 2016.0, 2019.0]);
        assert_eq!(axis.tick(2007.0), "2007");
        assert_eq!(Axis::whole("year", [2018.0, 2019.0]).unwrap().ticks, [2018.0, 2019.0]);
        assert!(Axis::whole("year", [2018.0, 2018.0]).is_none());
    }

    #[test]
    fn a_mean_says_what_it_is() {
        let interval = Some(Interval { low: 0.4, high: 0.43 });
        assert_eq!(said("VSE++, 64 bits", (0.4154, interval)), "VSE++, 64 bits: 0.415 [0.400, 0.430]");
        assert_eq!(said("CCA", (179.42, None)), "CCA: 179.4");
        assert_eq!(said("CCA", (2.9, Some(Interval { low: 1.525, high: 4.44 }))), "CCA: 2.9 [1.5, 4.4]");
    }

    #[test]
    fn lines_stand_beside_each_other_around_their_value() {
        let x = beside(&[16.0, 32.0, 64.0, 128.0], 11);
        assert!((x(5, 32.0) - 32.0).abs() < 1e-12);
        assert!((x(4, 32.0) * x(6, 32.0) - 1024.0).abs() < 1e-9);
        // From the first line to the last: ten elevenths of 0.3 of what is between two values, an octave.
        assert!(((x(10, 32.0) / x(0, 32.0)).log2() - 3.0 / 11.0).abs() < 1e-12);
        assert_eq!(beside(&[9.0], 1)(0, 9.0), 9.0);
    }
}
