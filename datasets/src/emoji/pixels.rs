//! Pictures of emoji as vectors.

use std::sync::{Arc, OnceLock};

use image::{RgbImage, imageops::FilterType};
use rayon::prelude::*;

use crate::{Features, Matrix, Picture, Result, emoji::item::Item};

/// Pixels a side of a picture.
const SIDE: usize = 72;
/// Pixels a side of the small picture that is the global vector.
const SMALL: usize = 32;
/// Windows a side of the grid.
const GRID: usize = 6;
/// Pixels from one window to the next.
const STEP: usize = 9;
/// Pixels a side of a window: the last of the grid ends with the picture.
const WINDOW: usize = SIDE - (GRID - 1) * STEP;
/// Pixels a side of the square that is averaged.
const POOL: usize = 3;
/// Cells a side of a window in which directions are counted.
const CELLS: usize = 3;
/// Directions from 0 to 180 degrees.
const DIRECTIONS: usize = 8;
const POOLED: usize = (WINDOW / POOL) * (WINDOW / POOL) * 3;
const EDGES: usize = CELLS * CELLS * DIRECTIONS;

/// The pictures on white, `[items, 72, 72, 3]`, one byte a value.
#[derive(Clone)]
pub(super) struct Pictures(Arc<[u8]>);

impl std::fmt::Debug for Pictures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pictures({})", self.0.len() / (3 * SIDE * SIDE))
    }
}

impl Pictures {
    /// Decodes every picture and lays it on white.
    pub fn decode(items: &[Item]) -> Self {
        let decoded: Vec<Vec<u8>> = items.par_iter().map(|item| on_white(item.png)).collect();
        Self(decoded.concat().into())
    }

    fn rgb(&self, item: usize) -> &[u8] {
        &self.0[item * 3 * SIDE * SIDE..][..3 * SIDE * SIDE]
    }

    /// The picture for showing.
    pub fn picture(&self, item: usize) -> Picture {
        Picture { width: SIDE, height: SIDE, rgb: self.rgb(item).to_vec() }
    }

    /// The ink of 32 x 32 RGB pixels, `1 - value / 255`, a row an item: the white ground is 0, so that it adds nothing to a product.
    pub fn small(&self, items: usize) -> Matrix {
        let mut out = Matrix::zeros(items, 3 * SMALL * SMALL);
        out.data.par_chunks_mut(3 * SMALL * SMALL).enumerate().for_each(|(item, row)| {
            let picture = RgbImage::from_raw(SIDE as u32, SIDE as u32, self.rgb(item).to_vec());
            let picture = picture.expect("a picture has 3 * 72 * 72 bytes");
            let small = image::imageops::resize(&picture, SMALL as u32, SMALL as u32, FilterType::Triangle);
            row.iter_mut().zip(small.into_raw()).for_each(|(out, byte)| *out = f32::from(255 - byte) / 255.0);
        });
        out
    }
}

fn on_white(png: &[u8]) -> Vec<u8> {
    let picture = image::load_from_memory_with_format(png, image::ImageFormat::Png);
    let picture = picture.expect("the pictures inside the program are whole").into_rgba8();
    assert_eq!(picture.dimensions(), (SIDE as u32, SIDE as u32), "the pictures inside the program have one size");
    let blend = |value: u8, alpha: u8| {
        ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
    };
    picture.pixels().flat_map(|pixel| [0, 1, 2].map(|channel| blend(pixel.0[channel], pixel.0[3]))).collect()
}

/// Windows of the pictures, `[items, 36, 327]`, computed when they are first read and kept: 46 KiB an item. A training reads every
/// item in every epoch, and to count edges anew took 40 % of one that compares by cross attention.
///
/// A 6 x 6 grid of windows of 27 x 27 pixels, 9 apart, so that each sees its neighbours' edges. A vector holds
/// - 243 colours: ink (1 minus the value, so that white is zero) averaged over 3 x 3 pixels, 9 x 9 x RGB;
/// - 72 edges: gradient magnitude of the grey ink by direction (8 from 0 to 180 degrees) in 3 x 3 cells, the 72 divided by
///   their L2 norm plus 1, so that a faint window has short edges;
/// - 12 places: one of 6 columns and one of 6 rows is 1. A set of fragments has no order, so the place has to be in them.
#[derive(Debug)]
pub(super) struct Windows {
    pictures: Pictures,
    known: Vec<OnceLock<Box<[f32]>>>,
}

impl Windows {
    /// Those of the first `items` pictures.
    pub fn new(pictures: Pictures, items: usize) -> Self {
        Self { pictures, known: vec![OnceLock::new(); items] }
    }

    fn compute(&self, item: usize) -> Box<[f32]> {
        let rgb = self.pictures.rgb(item);
        let grey: Vec<f32> =
            rgb.chunks(3).map(|p| 1.0 - p.iter().map(|&v| f32::from(v)).sum::<f32>() / (3.0 * 255.0)).collect();
        let mut all = vec![0.0; self.fragments() * self.width()];
        for (i, window) in all.chunks_mut(self.width()).enumerate() {
            let (column, row) = (i % GRID, i / GRID);
            let (colours, rest) = window.split_at_mut(POOLED);
            let (edges, places) = rest.split_at_mut(EDGES);
            pool(rgb, column * STEP, row * STEP, colours);
            count_edges(&grey, column * STEP, row * STEP, edges);
            places[column] = 1.0;
            places[GRID + row] = 1.0;
        }
        all.into()
    }
}

/// Boxes of the windows in fractions of the picture.
pub(super) fn boxes() -> [[f32; 4]; GRID * GRID] {
    std::array::from_fn(|i| {
        let (x, y) = ((i % GRID * STEP) as f32, (i / GRID * STEP) as f32);
        [x, y, x + WINDOW as f32, y + WINDOW as f32].map(|pixel| pixel / SIDE as f32)
    })
}

impl Features for Windows {
    fn items(&self) -> usize {
        self.known.len()
    }
    fn fragments(&self) -> usize {
        GRID * GRID
    }
    fn width(&self) -> usize {
        POOLED + EDGES + 2 * GRID
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        out.copy_from_slice(self.known[item].get_or_init(|| self.compute(item)));
        Ok(())
    }
}

fn pool(rgb: &[u8], x: usize, y: usize, out: &mut [f32]) {
    let side = WINDOW / POOL;
    for row in 0..WINDOW {
        for column in 0..WINDOW {
            let pixel = &rgb[3 * ((y + row) * SIDE + x + column)..][..3];
            let cell = &mut out[3 * (row / POOL * side + column / POOL)..][..3];
            cell.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += f32::from(255 - value));
        }
    }
    out.iter_mut().for_each(|sum| *sum /= 255.0 * (POOL * POOL) as f32);
}

fn count_edges(grey: &[f32], x: usize, y: usize, out: &mut [f32]) {
    // Beyond the picture it is white; columns and rows count from 1 here.
    let at = |column: usize, row: usize| match (column.checked_sub(1), row.checked_sub(1)) {
        (Some(column), Some(row)) if column < SIDE && row < SIDE => grey[row * SIDE + column],
        _ => 0.0,
    };
    let cell = WINDOW / CELLS;
    for row in 0..WINDOW {
        for column in 0..WINDOW {
            let (c, r) = (x + column + 1, y + row + 1);
            let dx = at(c + 1, r) - at(c - 1, r);
            let dy = at(c, r + 1) - at(c, r - 1);
            let magnitude = dx.hypot(dy);
            if magnitude > 0.0 {
                let turn = dy.atan2(dx).rem_euclid(std::f32::consts::PI) / std::f32::consts::PI;
                let direction = (turn * DIRECTIONS as f32) as usize % DIRECTIONS;
                out[(row / cell * CELLS + column / cell) * DIRECTIONS + direction] += magnitude;
            }
        }
    }
    let norm = out.iter().map(|value| value * value).sum::<f32>().sqrt() + 1.0;
    out.iter_mut().for_each(|value| *value /= norm);
}
