//! One fitted view: kernel or features, and the map to the common space.

use xmbench_datasets::Matrix;

use super::{Approximation, Params};
use crate::{
    Error, Result, Run,
    linalg::{
        cca::Projection,
        kernel::{Kernel, cca::Dual, fourier::Fourier, incomplete::Incomplete},
        store::Store,
        to_f32, to_f64,
    },
    train::memory,
};

/// Items that are encoded at a time: the kernel values or features of more are not held.
const CHUNK: usize = 4096;

/// Finite features of a kernel.
pub enum Features {
    /// The vectors themselves: those of the linear kernel.
    Vectors,
    /// Random Fourier features.
    Fourier(Fourier),
    /// Incomplete Cholesky.
    Incomplete(Incomplete),
}

impl Features {
    pub fn fit(kernel: Kernel, rows: &Matrix, params: &Params, label: &str, run: &Run<'_>) -> Result<Self> {
        Ok(match (kernel, params.approximation) {
            (Kernel::Linear, _) => Self::Vectors,
            (Kernel::Rbf { gamma }, Approximation::Rff) => {
                // The map, and the features of all items while it is fitted, in f64.
                let shape = [rows.cols.saturating_add(rows.rows), params.features];
                let what = || format!("{} random Fourier features of {} items", params.features, rows.rows);
                memory::ask(what, memory::bytes(&shape, 8))?;
                let mut stream = run.seed.stream(&["kcca", "features", label]);
                Self::Fourier(Fourier::draw(gamma, rows.cols, params.features, &mut stream))
            }
            _ => Self::Incomplete(Incomplete::fit(kernel, rows, params.tolerance, params.features)?),
        })
    }

    pub fn apply(&self, rows: Matrix) -> Result<Matrix> {
        match self {
            Self::Vectors => Ok(rows),
            Self::Fourier(map) => map.apply(&rows),
            Self::Incomplete(map) => map.apply(&rows),
        }
    }
}

/// A fitted view.
pub enum View {
    /// Kernel, training rows, and the map of kernel values with them.
    Exact(Kernel, Matrix, Dual),
    /// Features and the map of them.
    Finite(Features, Projection),
}

impl View {
    /// Codes of rows.
    pub fn codes(&self, rows: &Matrix) -> Result<Matrix> {
        let mut out =
            Matrix { rows: rows.rows, cols: self.width(), data: Vec::with_capacity(rows.rows * self.width()) };
        for start in (0..rows.rows).step_by(CHUNK) {
            let len = CHUNK.min(rows.rows - start);
            let data = rows.data[start * rows.cols..(start + len) * rows.cols].to_vec();
            let chunk = Matrix { rows: len, cols: rows.cols, data };
            let projected = match self {
                Self::Exact(kernel, train, dual) => dual.apply(kernel.gram(&chunk, train)?.as_ref()),
                Self::Finite(features, projection) => projection.apply(&features.apply(chunk)?)?,
            };
            out.data.extend(to_f32(projected.as_ref()).data);
        }
        Ok(out)
    }

    fn width(&self) -> usize {
        match self {
            Self::Exact(_, _, dual) => dual.offset.len(),
            Self::Finite(_, projection) => projection.weights.ncols(),
        }
    }

    /// Adds the view under a name.
    pub fn save(&self, store: Store, name: &str) -> Store {
        let (key, map) = (format!("{name}.view"), format!("{name}.map"));
        match self {
            Self::Exact(kernel, train, dual) => {
                let store = kernel.save(store.with_text(&key, "exact"), &format!("{name}.kernel"));
                dual.save(store.with_matrix(&format!("{name}.train"), to_f64(train).as_ref()), &map)
            }
            Self::Finite(features, projection) => {
                let store = match features {
                    Features::Vectors => store.with_text(&key, "vectors"),
                    Features::Fourier(map) => map.save(store.with_text(&key, "rff"), name),
                    Features::Incomplete(map) => map.save(store.with_text(&key, "icd"), name),
                };
                projection.save(store, &map)
            }
        }
    }

    /// Reads what [`View::save`] added.
    pub fn load(store: &Store, name: &str) -> Result<Self> {
        let map = format!("{name}.map");
        let features = match store.text(&format!("{name}.view"))? {
            "exact" => {
                let train = to_f32(store.matrix(&format!("{name}.train"))?.as_ref());
                let dual = Dual::load(store, &map, train.rows)?;
                return Ok(Self::Exact(Kernel::load(store, &format!("{name}.kernel"))?, train, dual));
            }
            "vectors" => Features::Vectors,
            "rff" => Features::Fourier(Fourier::load(store, name)?),
            "icd" => Features::Incomplete(Incomplete::load(store, name)?),
            other => {
                return Err(Error::Numeric(format!(
                    "saved view: expected exact, vectors, rff or icd, found `{other}`"
                )));
            }
        };
        Ok(Self::Finite(features, Projection::load(store, &map)?))
    }
}
