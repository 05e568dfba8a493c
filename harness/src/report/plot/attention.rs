//! Who looked at what: the weights between the words of a text and the regions of an image, over the picture where the regions'
//! places are known, as a matrix where they are not.

use anyhow::Result;
use xmbench_datasets::Picture;
use xmbench_methods::{AttentionMap, nn::cross::Direction};

use crate::record::Stem;

use super::canvas::{Align, BODY, Canvas, Colour, FAINT, INK, SMALL, TITLE, Type, WHITE, clipped, measure, wrap};

/// One image and one text with what a method looked at to compare them.
pub struct Figure {
    /// Who asked for what, and what came of it.
    pub title: String,
    /// What was fitted on what, and everything else that the numbers depend on.
    pub lines: Vec<String>,
    /// The words of the text, one for each of its vectors.
    pub words: Vec<String>,
    /// The picture, if the dataset has it.
    pub picture: Option<Picture>,
    /// The place of each region in fractions of the picture, or why they are not known.
    pub boxes: Result<Vec<[f32; 4]>, String>,
    /// What was looked at, step after step.
    pub maps: Vec<AttentionMap>,
}

const MARGIN: f64 = 24.0;
const WIDTH: f64 = 900.0;
/// A panel's picture, and what is between two of them.
const PANEL: f64 = 96.0;
const GAP: f64 = 12.0;
const LINE: f64 = 17.0;
const HEAT: Colour = Colour(0xd5, 0x5e, 0x00, 1.0);
const HEADING: Type = Type { size: 14.0, bold: true, colour: INK };

/// A map with a row for each word and a column for each region, whichever asked.
pub struct Grid {
    /// Which step, and who asked.
    pub heading: String,
    /// Names of the rows.
    pub words: Vec<String>,
    /// Columns.
    pub regions: usize,
    /// `words * regions`.
    pub weights: Vec<f32>,
}

impl Grid {
    /// Of a map of a text with these words; a row has a number where the text has other vectors than words.
    pub fn of(map: &AttentionMap, words: &[String]) -> Self {
        let asked = map.weights.len() / map.answers.max(1);
        let (rows, regions) = match map.asks {
            Direction::T2i => (asked, map.answers),
            Direction::I2t => (map.answers, asked),
        };
        let weight = |word: usize, region: usize| match map.asks {
            Direction::T2i => map.weights[word * map.answers + region],
            Direction::I2t => map.weights[region * map.answers + word],
        };
        let weights = (0..rows).flat_map(|word| (0..regions).map(move |region| (word, region)));
        let weights = weights.map(|(word, region)| weight(word, region)).collect();
        let names = match rows {
            rows if rows == words.len() => words.to_vec(),
            1 => vec!["the whole text".into()],
            rows => (1..=rows).map(|row| format!("vector {row}")).collect(),
        };
        let who = match (map.asks, asked) {
            (Direction::T2i, 1) => "the text asks: its weights over the regions sum to 1",
            (Direction::T2i, _) => {
                "words ask: a word's weights over the regions sum to 1, or to 0 where it is left out"
            }
            (Direction::I2t, 1) => "the image asks: its weights over the words sum to 1",
            (Direction::I2t, _) => {
                "regions ask: a region's weights over the words sum to 1, or to 0 where it is left out"
            }
        };
        let heading = if map.title.is_empty() { who.to_string() } else { format!("{}; {who}", map.title) };
        Self { heading, words: names, regions, weights }
    }

    /// The largest weight, 0 where there is none.
    pub fn most(&self) -> f32 {
        self.weights.iter().copied().fold(0.0, f32::max)
    }

    fn row(&self, word: usize) -> &[f32] {
        &self.weights[word * self.regions..(word + 1) * self.regions]
    }

    fn over_boxes(&self, boxes: &Result<Vec<[f32; 4]>, String>) -> bool {
        boxes.as_ref().is_ok_and(|boxes| boxes.len() == self.regions)
    }

    fn height(&self, boxes: &Result<Vec<[f32; 4]>, String>) -> f64 {
        let body = match self.over_boxes(boxes) {
            true => self.words.len().div_ceil(columns()) as f64 * (PANEL + LINE + GAP),
            false => self.words.len() as f64 * LINE + 2.0 * LINE,
        };
        2.0 * LINE + body
    }
}

/// Panels side by side.
fn columns() -> usize {
    ((WIDTH - 2.0 * MARGIN + GAP) / (PANEL + GAP)) as usize
}

/// Draws a figure.
pub fn draw(figure: &Figure, stem: &Stem) -> Result<super::Picture> {
    let grids: Vec<Grid> = figure.maps.iter().map(|map| Grid::of(map, &figure.words)).collect();
    let inner = WIDTH - 2.0 * MARGIN;
    let title = wrap(&figure.title, TITLE, inner);
    let mut lines: Vec<String> = figure.lines.iter().flat_map(|line| wrap(line, SMALL, inner)).collect();
    if let Err(reason) = &figure.boxes {
        lines.extend(wrap(reason, SMALL, inner));
    }
    let head = MARGIN + 24.0 * title.len() as f64 + 15.0 * lines.len() as f64 + 12.0;
    let height = head + grids.iter().map(|grid| grid.height(&figure.boxes)).sum::<f64>() + MARGIN;
    let mut canvas = Canvas::new(WIDTH, height.ceil());
    let mut y = MARGIN;
    for line in &title {
        canvas.text((MARGIN, y + 8.0), line, TITLE, Align::Left);
        y += 24.0;
    }
    for line in &lines {
        canvas.text((MARGIN, y + 4.0), line, SMALL, Align::Left);
        y += 15.0;
    }
    y = head;
    for grid in &grids {
        canvas.text((MARGIN, y + 8.0), &grid.heading, HEADING, Align::Left);
        match &figure.boxes {
            Ok(boxes) if grid.over_boxes(&figure.boxes) => panels(&mut canvas, grid, boxes, figure.picture.as_ref(), y),
            _ => matrix(&mut canvas, grid, y),
        }
        y += grid.height(&figure.boxes);
    }
    super::Picture::of(&canvas, stem.clone(), figure.title.clone())
}

/// A picture for each word, orange where the word and the region have much to do with each other.
fn panels(canvas: &mut Canvas, grid: &Grid, boxes: &[[f32; 4]], picture: Option<&Picture>, top: f64) {
    let most = grid.most();
    let note = format!("a pixel shows the largest weight of the regions that cover it; full orange is {most:.2}");
    canvas.text((MARGIN, top + LINE + 8.0), &note, SMALL, Align::Left);
    for (word, name) in grid.words.iter().enumerate() {
        let (column, row) = (word % columns(), word / columns());
        let x = MARGIN + column as f64 * (PANEL + GAP);
        let y = top + 2.0 * LINE + row as f64 * (PANEL + LINE + GAP);
        canvas.picture((x, y), (PANEL, PANEL), heated(grid.row(word), boxes, picture, most));
        let corners = [(x, y), (x + PANEL, y), (x + PANEL, y + PANEL), (x, y + PANEL), (x, y)];
        canvas.line(&corners, FAINT, 1.0);
        let weight = grid.row(word).iter().copied().fold(0.0, f32::max);
        let name = clipped(name, BODY, PANEL - measure(" 0.00", SMALL) - 4.0);
        canvas.text((x, y + PANEL + 9.0), &name, BODY, Align::Left);
        canvas.text((x + PANEL, y + PANEL + 9.0), &format!("{weight:.2}"), SMALL, Align::Right);
    }
}

/// The picture in pale grey under the weights of its regions.
fn heated(weights: &[f32], boxes: &[[f32; 4]], picture: Option<&Picture>, most: f32) -> Picture {
    let blank = Picture { width: 96, height: 96, rgb: vec![255; 3 * 96 * 96] };
    let mut out = picture.unwrap_or(&blank).clone();
    for at in 0..out.width * out.height {
        let centre = [(at % out.width) as f32 + 0.5, (at / out.width) as f32 + 0.5];
        let (x, y) = (centre[0] / out.width as f32, centre[1] / out.height as f32);
        let covers = |b: &[f32; 4]| b[0] <= x && x < b[2] && b[1] <= y && y < b[3];
        let weight = boxes.iter().zip(weights).filter(|(b, _)| covers(b)).map(|(_, &w)| w).fold(0.0, f32::max);
        let share = f64::from(if most > 0.0 { weight / most } else { 0.0 });
        let pixel = &mut out.rgb[3 * at..3 * at + 3];
        let grey = (f64::from(pixel[0]) * 0.3 + f64::from(pixel[1]) * 0.59 + f64::from(pixel[2]) * 0.11) * 0.7 + 76.5;
        for (value, heat) in pixel.iter_mut().zip([HEAT.0, HEAT.1, HEAT.2]) {
            *value = (grey + (f64::from(heat) - grey) * 0.85 * share).round().clamp(0.0, 255.0) as u8;
        }
    }
    out
}

/// Words as rows and regions as columns.
fn matrix(canvas: &mut Canvas, grid: &Grid, top: f64) {
    let most = grid.most();
    let widest = grid.words.iter().map(|word| measure(word, BODY)).fold(40.0, f64::max).min(180.0);
    let left = MARGIN + widest + 8.0;
    let cell = ((WIDTH - MARGIN - left) / grid.regions.max(1) as f64).min(22.0);
    canvas.text(
        (left, top + LINE + 8.0),
        &format!("regions in the dataset's order; full orange is {most:.2}"),
        SMALL,
        Align::Left,
    );
    for (word, name) in grid.words.iter().enumerate() {
        let y = top + 2.0 * LINE + word as f64 * LINE;
        canvas.text((left - 8.0, y + LINE / 2.0), &clipped(name, BODY, widest), BODY, Align::Right);
        for (region, &weight) in grid.row(word).iter().enumerate() {
            let x = left + region as f64 * cell;
            let share = f64::from(if most > 0.0 { weight / most } else { 0.0 });
            canvas.bar((x, y), (x + cell - 1.0, y + LINE - 1.0), HEAT.tint(1.0 - share.clamp(0.03, 1.0)));
        }
    }
    let below = top + 2.0 * LINE + grid.words.len() as f64 * LINE + 8.0;
    for region in (0..grid.regions).step_by(5) {
        canvas.text((left + (region as f64 + 0.5) * cell, below), &(region + 1).to_string(), SMALL, Align::Centre);
    }
    canvas.line(&[(left, below - 8.0), (left + grid.regions as f64 * cell, below - 8.0)], WHITE, 1.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(asks: Direction, answers: usize, weights: &[f32]) -> AttentionMap {
        AttentionMap { title: String::new(), asks, answers, weights: weights.to_vec() }
    }

    #[test]
    fn a_grid_has_a_row_a_word_whoever_asks() {
        let words = ["a".to_string(), "b".to_string()];
        let by_words = Grid::of(&map(Direction::T2i, 3, &[0.1, 0.2, 0.7, 0.5, 0.3, 0.2]), &words);
        assert_eq!((by_words.regions, by_words.row(1)), (3, &[0.5, 0.3, 0.2][..]));
        // Three regions ask two words.
        let by_regions = Grid::of(&map(Direction::I2t, 2, &[0.1, 0.9, 0.4, 0.6, 1.0, 0.0]), &words);
        assert_eq!((by_regions.regions, by_regions.row(0)), (3, &[0.1, 0.4, 1.0][..]));
        assert_eq!(by_regions.words, words);
        let whole = Grid::of(&map(Direction::T2i, 3, &[0.1, 0.2, 0.7]), &words);
        assert_eq!(whole.words, ["the whole text"]);
    }

    #[test]
    fn heat_lies_where_the_region_is() {
        let picture = Picture { width: 4, height: 2, rgb: vec![255; 24] };
        let boxes = [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]];
        let heated = heated(&[0.0, 0.5], &boxes, Some(&picture), 0.5);
        // White becomes white; orange covers 85 % of it.
        assert_eq!(heated.rgb[..3], [255, 255, 255]);
        assert_eq!(heated.rgb[6..9], [219, 118, 38]);
    }
}
