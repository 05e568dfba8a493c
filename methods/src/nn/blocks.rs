use candle_core::Tensor;
use xmbench_datasets::Matrix;

use crate::{Error, Result};

/// The vectors of many items, `[order.len(), width]`, where a network takes only so many at once: `vectors` makes those of up to
/// `block` items that follow each other in `order`, `[items, width]`. `order` holds every number below its length once; row `i`
/// is the vector of item `i`.
///
/// # Errors
/// Those of `vectors`, or vectors of another shape.
pub fn in_blocks(
    order: &[usize],
    width: usize,
    block: usize,
    vectors: impl Fn(&[usize]) -> Result<Tensor>,
) -> Result<Matrix> {
    let mut out = Matrix::zeros(order.len(), width);
    for items in order.chunks(block.max(1)) {
        let rows = vectors(items)?;
        if rows.dims() != [items.len(), width] {
            return Err(Error::Numeric(format!(
                "a block of {} items: expected vectors [{}, {width}], found {:?}",
                items.len(),
                items.len(),
                rows.dims()
            )));
        }
        let rows = rows.flatten_all()?.to_vec1::<f32>()?;
        for (&item, row) in items.iter().zip(rows.chunks_exact(width.max(1))) {
            out.row_mut(item).copy_from_slice(row);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use candle_core::Device;

    use super::*;

    #[test]
    fn every_item_gets_its_own_row() {
        let sizes = RefCell::new(Vec::new());
        let vectors = |items: &[usize]| {
            sizes.borrow_mut().push(items.len());
            let values: Vec<f32> = items.iter().flat_map(|&item| [item as f32, 10.0 * item as f32]).collect();
            Ok(Tensor::from_vec(values, (items.len(), 2), &Device::Cpu)?)
        };
        let rows = in_blocks(&[3, 0, 4, 2, 1], 2, 2, vectors).unwrap();
        assert_eq!(rows.data, [0.0, 0.0, 1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0]);
        assert_eq!(*sizes.borrow(), [2, 2, 1]);
        let error = in_blocks(&[0], 3, 2, vectors).unwrap_err().to_string();
        assert!(error.contains("expected vectors [1, 3], found [1, 2]"), "{error}");
    }
}
