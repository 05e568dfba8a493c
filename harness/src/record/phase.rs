//! What is clocked: names of the phases of a [`Timing`](super::Timing).

/// A whole fit.
pub const FIT: &str = "fit";
/// Fits of settings that were not chosen.
pub const REJECTED: &str = "rejected settings";
/// Encoding the images of the scored split.
pub const ENCODE_IMAGES: &str = "encode images";
/// Encoding its texts.
pub const ENCODE_TEXTS: &str = "encode texts";
/// Encoding one text.
pub const ENCODE_TEXT: &str = "encode one text";
/// Building the index over the gallery's images.
pub const INDEX: &str = "index";
/// One text asks.
pub const QUERY_SINGLE: &str = "query single";
/// Many texts ask at once.
pub const QUERY_BATCH: &str = "query batch";
/// The first of two stages of a search.
pub const FIRST_STAGE: &str = "first stage";
/// The second one.
pub const SECOND_STAGE: &str = "second stage";
