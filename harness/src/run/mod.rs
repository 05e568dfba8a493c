//! run (see the head of each file).
