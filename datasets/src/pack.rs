//! Tables that are inside the program, a byte a value.
//!
//! Little-endian: `XMQ1`, the numbers of items, fragments and columns as u32, `low` and `step` of each column as f32, then a byte a
//! value, `value = low + step * byte`. What a byte leaves out is at most half a step, 1/510 of a column's range.

use std::fmt;

use crate::{Features, Result};

/// Bytes before `low`.
const HEAD: usize = 16;

/// A quantised table, `[items, fragments, width]`, read from where it lies.
#[derive(Clone)]
pub(crate) struct Quantised {
    items: usize,
    fragments: usize,
    low: Vec<f32>,
    step: Vec<f32>,
    levels: &'static [u8],
}

impl Quantised {
    /// The table of bytes that are part of the program.
    ///
    /// # Panics
    /// If they are no such table: a test opens every one that there is.
    pub fn new(bytes: &'static [u8]) -> Self {
        let (head, rest) = bytes.split_at(HEAD);
        assert_eq!(&head[..4], b"XMQ1", "the tables inside the program are whole");
        let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes")) as usize;
        let [items, fragments, width] = [4, 8, 12].map(number);
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks::<4>().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
        };
        let (low, rest) = rest.split_at(4 * width);
        let (step, levels) = rest.split_at(4 * width);
        assert_eq!(levels.len(), items * fragments * width, "the tables inside the program are whole");
        Self { items, fragments, low: floats(low), step: floats(step), levels }
    }
}

impl fmt::Debug for Quantised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quantised({} x {} x {})", self.items, self.fragments, self.low.len())
    }
}

impl Features for Quantised {
    fn items(&self) -> usize {
        self.items
    }
    fn fragments(&self) -> usize {
        self.fragments
    }
    fn width(&self) -> usize {
        self.low.len()
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        let width = self.width();
        let levels = &self.levels[item * self.fragments * width..][..self.fragments * width];
        for (out, levels) in out.chunks_exact_mut(width).zip(levels.chunks_exact(width)) {
            for (((out, &level), low), step) in out.iter_mut().zip(levels).zip(&self.low).zip(&self.step) {
                *out = low + step * f32::from(level);
            }
        }
        Ok(())
    }
}

/// Boxes of a square grid of cells over the 7 x 7 positions of the encoder's last map: cell `i` of `grid` spans the positions from
/// `floor(7 i / grid)` to `ceil(7 (i + 1) / grid)`, so that neighbours overlap.
pub(crate) fn boxes(grid: usize) -> Vec<[f32; 4]> {
    let span = |i: usize| [(7 * i / grid) as f32 / 7.0, (7 * (i + 1)).div_ceil(grid) as f32 / 7.0];
    let cell = |(row, column): (usize, usize)| {
        let ([y0, y1], [x0, x1]) = (span(row), span(column));
        [x0, y0, x1, y1]
    };
    (0..grid * grid).map(|i| cell((i / grid, i % grid))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_stands_for_low_and_steps() {
        let mut bytes = b"XMQ1".to_vec();
        [2u32, 2, 3].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        [-1.0f32, 0.0, 5.0, 0.5, 0.0, 0.25].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        bytes.extend([0, 7, 4, 2, 9, 8, 255, 0, 1, 1, 1, 255]);
        let table = Quantised::new(bytes.leak());
        assert_eq!((table.items(), table.fragments(), table.width()), (2, 2, 3));
        let mut out = [0.0; 6];
        table.read(1, &mut out).unwrap();
        assert_eq!(out, [126.5, 0.0, 5.25, -0.5, 0.0, 68.75]);
    }

    #[test]
    fn cells_cover_the_picture_and_overlap() {
        let boxes = boxes(3);
        assert_eq!(boxes.len(), 9);
        let sevenths = |of: [f32; 4]| of.map(|edge| (7.0 * edge).round() as u8);
        assert_eq!(sevenths(boxes[0]), [0, 0, 3, 3]);
        assert_eq!(sevenths(boxes[5]), [4, 2, 7, 5]);
        assert_eq!(sevenths(boxes[8]), [4, 4, 7, 7]);
    }
}
