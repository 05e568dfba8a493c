//! verify (see the head of each file).
