//! Losses whose row `i` depends on row `i` of a matrix of scores or distances alone.
//!
//! Such a matrix is small beside the codes that made it: it is fetched from its device once, each row gives its value and the
//! slope of the value at each entry in f64, and the backward pass is a product with the slopes. An entry that a loss does not
//! look at has slope 0, so that whatever stands there (NaN, infinity) reaches neither value nor gradient.

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor, WithDType};
use rayon::prelude::*;

use crate::{Error, Result, nn::real::dispatch};

/// The values `[n]` of the rows of `matrix [n, m]`: `value(i, row, slope)` returns the value of row `i` and writes its
/// derivative by the entry `j` into `slope[j]`, which comes as 0.
pub(super) fn by_row(
    loss: &'static str,
    matrix: &Tensor,
    value: impl Fn(usize, &[f64], &mut [f64]) -> f64 + Sync,
) -> Result<Tensor> {
    let columns = match *matrix.dims() {
        [rows, columns] if rows * columns > 0 => columns,
        ref other => {
            return Err(Error::Numeric(format!("{loss}: expected a matrix that is not empty, found {other:?}")));
        }
    };
    if !matches!(matrix.dtype(), DType::F32 | DType::F64) {
        return Err(Error::Numeric(format!("{loss}: expected f32 or f64, found {:?}", matrix.dtype())));
    }
    let local = matrix.to_device(&Device::Cpu)?.contiguous()?;
    let entries = local.detach().to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut slopes = vec![0.0; entries.len()];
    let rows = slopes.par_chunks_mut(columns).zip(entries.par_chunks(columns)).enumerate();
    let values = rows.map(|(i, (slopes, row))| value(i, row, slopes)).collect();
    Ok(local.apply_op1(Rows { loss, values, slopes })?.to_device(matrix.device())?)
}

struct Rows {
    loss: &'static str,
    values: Vec<f64>,
    slopes: Vec<f64>,
}

impl CustomOp1 for Rows {
    fn name(&self) -> &'static str {
        self.loss
    }

    fn cpu_fwd(&self, matrix: &CpuStorage, _layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = match matrix {
            CpuStorage::F32(_) => CpuStorage::F32(self.values.iter().map(|&value| value as f32).collect()),
            _ => CpuStorage::F64(self.values.clone()),
        };
        Ok((values, Shape::from(self.values.len())))
    }

    fn bwd(&self, matrix: &Tensor, _values: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let columns = matrix.dim(1)?;
        let grads = grad.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        dispatch!(matrix.dtype(), T => {
            let mut grad = vec![T::from_f64(0.0); self.slopes.len()];
            let rows = grad.par_chunks_mut(columns).zip(self.slopes.par_chunks(columns)).zip(&grads);
            rows.for_each(|((to, slopes), g)| to.iter_mut().zip(slopes).for_each(|(to, s)| *to = T::from_f64(s * g)));
            Ok(Some(Tensor::from_vec(grad, matrix.shape(), &Device::Cpu)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    #[test]
    fn each_row_has_its_own_value_and_slopes() {
        // The product of the first two entries; the third is not looked at.
        let product = |_: usize, row: &[f64], slope: &mut [f64]| {
            (slope[0], slope[1]) = (row[1], row[0]);
            row[0] * row[1]
        };
        let x = Var::new(&[[2f32, 3.0, f32::NAN], [5.0, 7.0, f32::INFINITY]], &Device::Cpu).unwrap();
        let values = by_row("product", &x, product).unwrap();
        assert_eq!(values.to_vec1::<f32>().unwrap(), [6.0, 35.0]);
        let weighted = (values * Tensor::new(&[1f32, 10.0], &Device::Cpu).unwrap()).unwrap().sum_all().unwrap();
        let grad = weighted.backward().unwrap().get(&x).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(grad, [[3.0, 2.0, 0.0], [70.0, 50.0, 0.0]]);
        // Of a transposed matrix, too.
        let columns = by_row("product", &x.narrow(1, 0, 2).unwrap().t().unwrap(), product).unwrap();
        assert_eq!(columns.to_vec1::<f32>().unwrap(), [10.0, 21.0]);
    }

    #[test]
    fn what_is_no_matrix_of_numbers_is_an_error() {
        let error = |x: Tensor| by_row("product", &x, |_, _, _| 0.0).unwrap_err().to_string();
        let zeros = |shape: &[usize], dtype| Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
        assert!(error(zeros(&[3], DType::F32)).contains("product: expected a matrix that is not empty, found [3]"));
        assert!(error(zeros(&[3, 0], DType::F32)).contains("[3, 0]"));
        assert!(error(zeros(&[2, 2], DType::U32)).contains("expected f32 or f64, found U32"));
    }
}
