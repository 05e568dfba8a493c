//! Which fragment of an item's partner is meant: similarities within pairs, and their largest.
//!
//! ```text
//! s_rj = a_r . b_j        for each vector r of item b of one side and each vector j of item b of the other       (1)
//! c_r  = argmax_j s_rj    of equal values the first                                                             (2)
//! ```
//!
//! No gradient passes. Sums are taken in one order on the processor, so that equal vectors have equal similarities and a tie is
//! a tie, whatever the number of threads.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result, nn::Lengths};

/// Equation (1): a row for each vector of `a [total, d]`, over the vectors of the same item of `b [total, d]`.
///
/// # Errors
/// If the sides differ in items or width, or rows and lengths do not fit.
pub fn within(a: &Tensor, a_lengths: &Lengths, b: &Tensor, b_lengths: &Lengths) -> Result<Vec<Vec<f64>>> {
    let width = match (a.dims(), b.dims()) {
        (&[rows, width], &[others, same])
            if rows == a_lengths.total()
                && others == b_lengths.total()
                && width == same
                && a_lengths.len() == b_lengths.len() =>
        {
            width
        }
        (a, b) => {
            return Err(Error::Numeric(format!(
                "matching: expected vectors of one width, {} and {} in as many items, found {a:?} and {b:?} in {} and {} items",
                a_lengths.total(),
                b_lengths.total(),
                a_lengths.len(),
                b_lengths.len()
            )));
        }
    };
    let values = |x: &Tensor| -> Result<Vec<f64>> {
        Ok(x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
    };
    let (a, b) = (values(a)?, values(b)?);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum();
    let items: Vec<Vec<Vec<f64>>> = (0..a_lengths.len())
        .into_par_iter()
        .map(|item| {
            let others = || b_lengths.range(item).map(|j| &b[j * width..(j + 1) * width]);
            a_lengths.range(item).map(|r| others().map(|y| dot(&a[r * width..(r + 1) * width], y)).collect()).collect()
        })
        .collect();
    Ok(items.into_iter().flatten().collect())
}

/// Equation (2) of a row.
pub fn first_largest(row: &[f64]) -> usize {
    row.iter().enumerate().fold(0, |best, (j, value)| if *value > row[best] { j } else { best })
}

/// The places of the `k` largest values of a row, the largest first, of equal values the first first; all of them, where there
/// are no more.
pub fn largest(row: &[f64], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&i, &j| row[j].total_cmp(&row[i]));
    order.truncate(k);
    order
}

/// The rows of similarities of the other side, item by item: `t[j][r]` is `rows[r][j]`.
pub fn turned(rows: &[Vec<f64>], a_lengths: &Lengths, b_lengths: &Lengths) -> Vec<Vec<f64>> {
    (0..b_lengths.len())
        .flat_map(|item| {
            let (of, count) = (a_lengths.range(item), b_lengths.as_slice()[item]);
            (0..count).map(move |j| rows[of.clone()].iter().map(|row| row[j]).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_meet_those_of_their_own_item_and_the_first_of_equals_is_meant() {
        let a = Tensor::new(&[[1f32, 0.0], [0.0, 2.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let b = Tensor::new(&[[3f32, 1.0], [5.0, 7.0], [5.0, 7.0], [-1.0, 0.0]], &Device::Cpu).unwrap();
        let (two, three) = (Lengths::new([2, 1]).unwrap(), Lengths::new([1, 3]).unwrap());
        let rows = within(&a, &two, &b, &three).unwrap();
        assert_eq!(rows, [vec![3.0], vec![2.0], vec![12.0, 12.0, -1.0]]);
        assert_eq!(rows.iter().map(|row| first_largest(row)).collect::<Vec<_>>(), [0, 0, 0]);
        assert_eq!((largest(&rows[2], 2), largest(&rows[0], 9)), (vec![0, 1], vec![0]));
        assert_eq!(largest(&[1.0, 3.0, 3.0, 2.0], 3), [1, 2, 3]);
        assert_eq!(turned(&rows, &two, &three), [vec![3.0, 2.0], vec![12.0], vec![12.0], vec![-1.0]]);
        assert!(within(&a, &two, &b, &Lengths::new([4]).unwrap()).unwrap_err().to_string().contains("matching"));
    }
}
