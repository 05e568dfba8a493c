//! Linear algebra that several families share, in f64.
