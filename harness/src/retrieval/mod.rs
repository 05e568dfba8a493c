//! retrieval (see the head of each file).
