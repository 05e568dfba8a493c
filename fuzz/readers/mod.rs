//! Every reader of files from elsewhere, as a function of bytes. The targets of cargo-fuzz and the mutation driver
//! (`harness/examples/fuzz`) share these, and this is their only home.
//!
//! A [`Stage`] is a reader with everything about the bytes in place: a folder with the sound files beside the one that is replaced, and
//! sound bytes of that one to begin from. [`Stage::read`] opens the bytes as a user would, through public functions alone, and reads on
//! as a run would: rows of features, an audit, codes of a loaded matcher.
//!
//! Where bytes stand behind a checksum or inside a packed stream, the stage mutates what is inside and packs it again: otherwise
//! everything would end at the checksum.

mod data;
mod pictures;
mod recordings;
mod stage;
mod tensors;
mod text;

pub use self::stage::{Refused, Stage};

/// Name, and what makes the stage.
type Reader = (&'static str, fn() -> Result<Stage, Refused>);

/// Every reader, in the order in which they are run.
pub const READERS: &[Reader] = &[
    ("npy", data::npy),
    ("npy-labels", data::npy_labels),
    ("captions", data::captions),
    ("ids", data::ids),
    ("word-vectors", data::word_vectors),
    ("word-vectors-binary", data::word_vectors_binary),
    ("counts", data::counts),
    ("boxes", data::boxes),
    ("labels", data::labels),
    ("captions-table", pictures::table),
    ("captions-lines", pictures::lines),
    ("captions-json", pictures::json),
    ("captions-token", pictures::token),
    ("split-list", pictures::list),
    ("weights", pictures::weights),
    ("weights-checkpoint", pictures::checkpoint),
    ("notice", data::notice),
    ("lists", data::lists),
    ("mat5", data::mat5),
    ("mat5-packed", data::mat5_packed),
    ("mat73", data::mat73),
    ("mat-wiki", data::mat_wiki),
    ("idx", data::idx),
    ("idx-gzip", data::idx_gzip),
    ("gzip", data::gzip_stream),
    ("mfeat", data::mfeat),
    ("inspect", data::inspect),
    ("trec-run", data::trec_run),
    ("trec-qrels", data::trec_qrels),
    ("experiment", text::experiment),
    ("card", text::card),
    ("array", tensors::array),
    ("golden", tensors::golden),
    ("matcher-cca", || tensors::matcher("cca", "cca.safetensors")),
    ("matcher-vse", || tensors::matcher("vse", "weights.safetensors")),
    ("matcher-vse-shape", || tensors::matcher("vse", "shape.toml")),
    ("matcher-djsrh", || tensors::matcher("djsrh", "weights.safetensors")),
    ("checkpoint", tensors::checkpoint),
    ("manifest", recordings::manifest),
    ("journal", recordings::journal),
    ("table-trials", || recordings::table("trials")),
    ("table-metrics", || recordings::table("metrics")),
    ("table-queries", || recordings::table("queries")),
    ("table-timings", || recordings::table("timings")),
    ("table-history", || recordings::table("history")),
    ("table-curves", || recordings::table("curves")),
];

/// The stage of that name.
///
/// # Errors
/// If there is none of that name, or it cannot be set up.
pub fn stage(name: &str) -> Result<Stage, Refused> {
    let make = READERS.iter().find(|(known, _)| *known == name).map(|(_, make)| make);
    make.ok_or_else(|| format!("no reader `{name}`"))?()
}
