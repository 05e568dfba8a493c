//! What the tests of this module share.

/// Item `i` of one view with item `i` of the other.
pub(super) fn diagonal(n: usize) -> Vec<(u32, u32)> {
    (0..n as u32).map(|i| (i, i)).collect()
}

pub(super) fn close(a: &[f64], b: &[f64], tolerance: f64) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() < tolerance, "{a} against {b}");
    }
}
