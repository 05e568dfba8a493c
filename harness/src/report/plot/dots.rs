//! Rows of names with dots and intervals beside them: any number of rows, none of which needs a colour of its own.

use super::canvas::{Align, BODY, Canvas, FAINT, GREY, INK, Point, Type, clipped, measure};
use super::frame::{Axis, Entry, MARGIN, WIDTH, foot, head};
use crate::stats::Interval;

/// Points from one row to the next.
const PITCH: f64 = 21.0;
/// Widest column of names.
const NAMES: f64 = 300.0;

/// A line of the figure.
pub enum Line {
    /// What the rows below have in common.
    Heading(String),
    /// A row; a control is written in grey.
    Row {
        /// Its name.
        name: String,
        /// Whether it stands beside learned results.
        control: bool,
    },
}

/// A figure before its dots are drawn.
pub struct Dots<'a> {
    /// Title.
    pub title: &'a str,
    /// Protocol and whatever else must stand below.
    pub footer: &'a str,
    /// Title and axis of each panel, side by side.
    pub panels: Vec<(String, Axis)>,
    /// From top to bottom.
    pub lines: Vec<Line>,
    /// Legend.
    pub legend: Vec<Entry>,
}

/// A panel whose rows are the lines of the figure.
pub struct Panel {
    left: f64,
    width: f64,
    top: f64,
    axis: Axis,
}

impl Panel {
    /// The place of a value in a line, `offset` points below its middle.
    pub fn at(&self, value: f64, line: usize, offset: f64) -> Point {
        let x = self.left + self.width * self.axis.share(value).clamp(0.0, 1.0);
        (x, self.top + PITCH * (line as f64 + 0.5) + offset)
    }

    /// An interval as a thin lying line with feet.
    pub fn whisker(&self, canvas: &mut Canvas, interval: Interval, (line, offset): (usize, f64)) {
        let (low, high) = (self.at(interval.low, line, offset), self.at(interval.high, line, offset));
        canvas.line(&[low, high], INK, 1.1);
        for (x, y) in [low, high] {
            canvas.line(&[(x, y - 2.5), (x, y + 2.5)], INK, 1.1);
        }
    }
}

impl Dots<'_> {
    /// Draws everything but the data, and returns the panels to draw them in.
    pub fn frame(&self) -> (Canvas, Vec<Panel>) {
        let text = |line: &Line| match line {
            Line::Heading(text) => measure(text, Type { bold: true, ..BODY }),
            Line::Row { name, .. } => measure(name, BODY) + 10.0,
        };
        let names = self.lines.iter().map(text).fold(0.0, f64::max).min(NAMES);
        let labelled = self.panels.iter().any(|(title, _)| !title.is_empty());
        let top = head(self.title) + if labelled { 26.0 } else { 8.0 };
        let height = PITCH * self.lines.len() as f64;
        let mut canvas = foot(self.title, self.footer, (&self.legend, false), top + height + 44.0);
        let left = MARGIN + names + 14.0;
        let pane = (WIDTH - MARGIN - left) / self.panels.len().max(1) as f64;
        for (i, line) in self.lines.iter().enumerate() {
            let y = top + PITCH * (i as f64 + 0.5);
            match line {
                Line::Heading(text) => canvas.text((MARGIN, y), text, Type { bold: true, ..BODY }, Align::Left),
                Line::Row { name, control } => {
                    let colour = if *control { GREY } else { INK };
                    canvas.row(Some(name));
                    canvas.text(
                        (MARGIN + 10.0, y),
                        &clipped(name, BODY, names - 10.0),
                        Type { colour, ..BODY },
                        Align::Left,
                    );
                    canvas.row(None);
                }
            }
        }
        let mut panels = Vec::new();
        for (i, (title, axis)) in self.panels.iter().enumerate() {
            let panel = Panel { left: left + pane * i as f64, width: pane - 22.0, top, axis: axis.clone() };
            panel.draw(&mut canvas, title, &self.lines);
            panels.push(panel);
        }
        (canvas, panels)
    }
}

impl Panel {
    fn draw(&self, canvas: &mut Canvas, title: &str, lines: &[Line]) {
        let bottom = self.top + PITCH * lines.len() as f64;
        let middle = self.left + self.width / 2.0;
        canvas.text((middle, self.top - 14.0), title, Type { bold: true, size: 14.0, ..BODY }, Align::Centre);
        for (i, line) in lines.iter().enumerate() {
            if matches!(line, Line::Row { .. }) {
                let y = self.top + PITCH * (i as f64 + 0.5);
                canvas.line(&[(self.left, y), (self.left + self.width, y)], FAINT.tint(0.4), 1.0);
            }
        }
        for tick in &self.axis.ticks {
            let (x, _) = self.at(*tick, 0, 0.0);
            canvas.line(&[(x, self.top), (x, bottom)], FAINT, 1.0);
            canvas.text((x, bottom + 11.0), &self.axis.tick(*tick), BODY, Align::Centre);
        }
        canvas.line(&[(self.left, self.top), (self.left, bottom), (self.left + self.width, bottom)], INK, 1.0);
        canvas.text((middle, bottom + 29.0), &self.axis.label, BODY, Align::Centre);
    }
}
