//! Two altered views of an image's fragments, for the form that learns from images alone.
//!
//! A view is made of the feature vectors of an image by three things, in this order, each drawn anew for each view:
//!
//! - window: where the number of fragments is a square number `g x g`, a rectangle of the grid, row-major, whose height and width
//!   are drawn apart, uniformly from `ceil(window g)` to `g` cells, and whose place is uniform; else a run of `ceil(window k)` to
//!   `k` fragments in the dataset's order. Fragments outside are not part of the view;
//! - noise: a normal number a value, of `noise` times the root mean square of the image's features;
//! - drop: each value becomes 0 with probability `drop`.
//!
//! There is no mirror image: features of a fragment are given, and an encoder without places does not see their order.

use xmbench_datasets::{Matrix, random::Stream};

use crate::{Result, nn::Lengths};

/// How views are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Views {
    /// Smallest share of a side of the grid.
    pub window: f64,
    /// Deviation of the noise.
    pub noise: f64,
    /// Share of values that are dropped.
    pub drop: f64,
}

impl Views {
    /// A view of each image: `features` holds `each` fragments an image, row after row.
    pub fn draw(&self, features: &Matrix, each: usize, stream: &mut Stream) -> Result<(Matrix, Lengths)> {
        let (mut data, mut lengths) = (Vec::new(), Vec::new());
        for image in features.data.chunks_exact(each * features.cols) {
            let square: f64 = image.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let deviation = self.noise * (square / image.len() as f64).sqrt();
            let cells = self.cells(each, stream);
            lengths.push(cells.len());
            for cell in cells {
                for &value in &image[cell * features.cols..(cell + 1) * features.cols] {
                    let value = if self.noise > 0.0 { value + (deviation * stream.normal()) as f32 } else { value };
                    data.push(if self.drop > 0.0 && stream.unit() < self.drop { 0.0 } else { value });
                }
            }
        }
        let lengths = Lengths::new(lengths)?;
        Ok((Matrix { rows: lengths.total(), cols: features.cols, data }, lengths))
    }

    /// The fragments inside a window.
    fn cells(&self, each: usize, stream: &mut Stream) -> Vec<usize> {
        let mut span = |whole: usize| {
            let least = ((self.window * whole as f64).ceil() as usize).clamp(1, whole);
            let length = least + stream.below(whole - least + 1);
            let start = stream.below(whole - length + 1);
            start..start + length
        };
        let side = each.isqrt();
        if side * side != each {
            return span(each).collect();
        }
        let (rows, columns) = (span(side), span(side));
        rows.flat_map(|row| columns.clone().map(move |column| row * side + column)).collect()
    }
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    #[test]
    fn windows_are_rectangles_or_runs_of_the_promised_size() {
        let views = Views { window: 0.5, noise: 0.0, drop: 0.0 };
        let mut stream = Seed(1).stream(&["views"]);
        for _ in 0..200 {
            let cells = views.cells(36, &mut stream);
            let (rows, columns): (Vec<usize>, Vec<usize>) = cells.iter().map(|cell| (cell / 6, cell % 6)).unzip();
            let sides = [&rows, &columns].map(|x| x.iter().max().unwrap() - x.iter().min().unwrap() + 1);
            assert!(sides.iter().all(|&side| side >= 3) && sides[0] * sides[1] == cells.len(), "{cells:?}");
            let run = views.cells(7, &mut stream);
            assert!(run.len() >= 4 && run.windows(2).all(|pair| pair[1] == pair[0] + 1), "{run:?}");
        }
        assert_eq!(Views { window: 1.0, ..views }.cells(4, &mut stream), [0, 1, 2, 3]);
    }

    #[test]
    fn noise_and_dropping_have_their_sizes_and_a_seed_its_view() {
        // Root mean square 2.
        let features = Matrix { rows: 8, cols: 500, data: vec![2.0; 4000] };
        let draw = |views: Views, seed| views.draw(&features, 4, &mut Seed(seed).stream(&["views"])).unwrap();
        let still = Views { window: 1.0, noise: 0.0, drop: 0.0 };
        assert_eq!(draw(still, 1), (features.clone(), Lengths::new([4, 4]).unwrap()));
        let (noisy, _) = draw(Views { noise: 0.5, ..still }, 1);
        let variance: f32 = noisy.data.iter().map(|x| (x - 2.0).powi(2)).sum::<f32>() / 4000.0;
        assert!((variance - 1.0).abs() < 0.1, "{variance}");
        let (dropped, _) = draw(Views { drop: 0.25, ..still }, 1);
        let zeros = dropped.data.iter().filter(|&&x| x == 0.0).count();
        assert!((850..1150).contains(&zeros), "{zeros}");
        let all = Views { window: 0.5, noise: 0.1, drop: 0.1 };
        assert!(draw(all, 3) == draw(all, 3) && draw(all, 3) != draw(all, 4));
    }
}
