//! What another program made: its embeddings, codes or scores take the place of a method's, under the same protocol, clock and
//! report. Nothing is fitted here, so that what holds of fitted methods (they beat chance on planted data, and shuffled pairs take
//! it away) is not asked of these.

crate::family! {
    command::Command,
    given::Given,
}
