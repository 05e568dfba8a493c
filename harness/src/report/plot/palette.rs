//! One colour a method, over all plots of a report.

use std::collections::{BTreeMap, BTreeSet};

use super::canvas::{Canvas, Colour, GREY, INK, Point, WHITE};
use crate::record::{
    Control, Recording,
    section::{Row, Section},
};

/// Okabe and Ito's colours, which people with any colour vision tell apart; the yellow is too pale on white for a line
/// and comes last.
const COLOURS: [Colour; 8] = [
    Colour(0x00, 0x72, 0xb2, 1.0),
    Colour(0xd5, 0x5e, 0x00, 1.0),
    Colour(0x00, 0x9e, 0x73, 1.0),
    Colour(0xcc, 0x79, 0xa7, 1.0),
    Colour(0xe6, 0x9f, 0x00, 1.0),
    Colour(0x56, 0xb4, 0xe9, 1.0),
    Colour(0x00, 0x00, 0x00, 1.0),
    Colour(0xd8, 0xc8, 0x1e, 1.0),
];

/// How a row looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Look {
    /// Colour of its label, paler for the later settings of a sweep.
    pub colour: Colour,
    /// Marker.
    shape: usize,
    /// Stroke and gap of its lines; none for a full line.
    dash: Option<Point>,
}

/// The places of all labels in the order of colours and shapes.
#[derive(Debug)]
pub struct Palette(BTreeMap<String, usize>);

impl Palette {
    /// Gives labels that meet in one experiment different colours, and each label the same colour everywhere.
    pub fn of(recording: &Recording) -> Self {
        let learned = recording.trials.iter().filter(|trial| trial.control == Control::None);
        let mut experiments: BTreeMap<&str, BTreeSet<(usize, &str)>> = BTreeMap::new();
        for trial in learned {
            experiments.entry(&trial.experiment).or_default().insert((trial.position, &trial.label));
        }
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (_, label) in experiments.values().flatten() {
            if places.contains_key(*label) {
                continue;
            }
            let together = experiments.values().filter(|labels| labels.iter().any(|(_, other)| other == label));
            let taken: BTreeSet<usize> =
                together.flatten().filter_map(|(_, other)| places.get(*other).copied()).collect();
            let free = (0..).find(|place| !taken.contains(place)).expect("there are more numbers than labels");
            places.insert(label.to_string(), free);
        }
        Self(places)
    }

    /// How a row of a section looks.
    pub fn look(&self, section: &Section<'_>, row: &Row<'_>) -> Look {
        match row.control {
            Control::Chance => return Look { colour: GREY, shape: 5, dash: Some((2.0, 3.0)) },
            Control::Shuffled => return Look { colour: GREY.tint(0.35), shape: 6, dash: Some((5.0, 3.0)) },
            Control::None => {}
        }
        let alike = || section.rows.iter().filter(|other| other.label == row.label && other.control == Control::None);
        let at = alike().position(|other| std::ptr::eq(other, row)).unwrap_or(0);
        let share = at as f64 / alike().count().max(2) as f64;
        let plain = self.plain(row.label);
        Look { colour: plain.colour.tint(0.7 * share), ..plain }
    }

    /// How a label looks without the paler shades of a sweep.
    pub fn plain(&self, label: &str) -> Look {
        let place = self.0.get(label).copied().unwrap_or(0);
        let rounds = place / COLOURS.len();
        let dash = match rounds % 3 {
            0 => None,
            1 => Some((7.0, 3.0)),
            _ => Some((2.5, 2.5)),
        };
        Look { colour: COLOURS[place % COLOURS.len()], shape: (place + rounds) % 7, dash }
    }
}

impl Palette {
    /// Looks for labels that stand in one plot: each as everywhere, unless an earlier one has its colour and another is free.
    pub fn among(&self, labels: &[&str]) -> Vec<Look> {
        let mut looks: Vec<Look> = Vec::new();
        for label in labels {
            let plain = self.plain(label);
            let taken = |colour: &Colour| looks.iter().any(|other| other.colour == *colour);
            let theirs = |colour: &Colour| labels.iter().any(|other| self.plain(other).colour == *colour);
            let free = COLOURS.into_iter().find(|colour| !taken(colour) && !theirs(colour));
            looks.push(match free {
                Some(colour) if taken(&plain.colour) => Look { colour, dash: None, ..plain },
                _ => plain,
            });
        }
        looks
    }
}

impl Look {
    /// What a paper states, beside what was measured: a dark diamond.
    pub fn stated() -> Self {
        Self { colour: INK, shape: 3, dash: None }
    }

    /// The look of the first, second .. of things that are no rows.
    pub fn of_place(at: usize) -> Self {
        Self { colour: COLOURS[at % COLOURS.len()], shape: at % 5, dash: None }
    }

    /// The look with dashed lines.
    pub fn dashed(self, dash: Point) -> Self {
        Self { dash: Some(dash), ..self }
    }

    /// A line in this look.
    pub fn line(&self, canvas: &mut Canvas, points: &[Point], width: f64) {
        match self.dash {
            None => canvas.line(points, self.colour, width),
            Some(dash) => canvas.dashed(points, self.colour, width, dash),
        }
    }

    /// The marker of this look.
    pub fn marker(&self, canvas: &mut Canvas, (x, y): Point, radius: f64) {
        let polygon = |angles: &[f64], radius: f64| -> Vec<Point> {
            let corner = |angle: &f64| {
                let angle = angle.to_radians();
                (x + radius * angle.cos(), y - radius * angle.sin())
            };
            angles.iter().map(corner).collect()
        };
        let angles: &[f64] = match self.shape {
            1 => &[45.0, 135.0, 225.0, 315.0],
            2 => &[90.0, 210.0, 330.0],
            3 => &[0.0, 90.0, 180.0, 270.0],
            4 => &[270.0, 30.0, 150.0],
            _ => &[],
        };
        match self.shape {
            0 => {
                canvas.disc((x, y), radius + 1.0, WHITE);
                canvas.disc((x, y), radius, self.colour);
            }
            1..=4 => {
                canvas.fill(&polygon(angles, 1.3 * radius + 1.4), WHITE);
                canvas.fill(&polygon(angles, 1.3 * radius), self.colour);
            }
            _ => {
                let turn = if self.shape == 5 { 45.0 } else { 0.0 };
                for angle in [turn, turn + 90.0] {
                    canvas.line(&polygon(&[angle, angle + 180.0], 1.25 * radius), self.colour, 2.0);
                }
            }
        }
    }
}
