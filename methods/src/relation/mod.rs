//! The relation family: what the instances of a batch are to each other is modelled while a method trains, and only then.

crate::family! {
    hrem::HREM,
}
