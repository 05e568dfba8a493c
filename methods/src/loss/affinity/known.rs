//! Small affinities that somebody else's NumPy code made, for tests.

use candle_core::{Device, Tensor};

/// Matrices by name.
pub(crate) struct Known(serde_json::Value);

impl Known {
    /// The matrices.
    pub(crate) fn read() -> Self {
        let text = std::fs::read(crate::golden::folder().join("affinity_fixtures.json")).unwrap();
        Self(serde_json::from_slice(&text).unwrap())
    }

    /// Features of four images and of four texts.
    pub(crate) fn features(&self) -> [Tensor; 2] {
        ["F_I", "F_T"].map(|key| Tensor::new(self.rows(key), &Device::Cpu).unwrap())
    }

    /// The values of a matrix, row after row.
    pub(crate) fn values(&self, key: &str) -> Vec<f64> {
        self.rows(key).concat()
    }

    fn rows(&self, key: &str) -> Vec<Vec<f64>> {
        serde_json::from_value(self.0[key].clone()).unwrap()
    }
}

/// Asserts that a matrix is the one of that name.
pub(crate) fn assert_known(known: &Known, key: &str, found: &Tensor) {
    let (found, expected): (Vec<f64>, _) = (found.flatten_all().unwrap().to_vec1().unwrap(), known.values(key));
    assert_eq!(found.len(), expected.len(), "{key}");
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{key}: {found:?} {expected:?}");
}
