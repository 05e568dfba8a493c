//! report (see the head of each file).
