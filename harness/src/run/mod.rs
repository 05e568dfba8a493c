//! From experiments to recorded trials.
//!
//! [`Experiment`] reads the TOML, [`plan()`] multiplies its grids out and checks every parameter, [`sweep()`] opens each dataset
//! once and runs what is not recorded yet: `fits` has so many trials under way at a time (`beside`), each of which [`execute`] fits, encodes
//! and scores, and `clock` measures them when all are through. Rows that are made of fitted rows are planned in `stages` and run in
//! `combine`.

mod bench;
mod beside;
pub mod builtin;
mod clock;
mod combine;
pub mod device;
pub mod entry;
pub mod execute;
pub mod experiment;
mod explain;
mod files;
mod fits;
pub mod machine;
mod methods;
pub mod plan;
mod profile;
mod progress;
mod score;
pub mod splits;
mod stages;
mod stated;
pub mod sweep;
pub mod timing;
pub mod trial;
pub mod tune;
pub mod tuned;

pub use bench::name;
pub use beside::side_by_side;
pub use experiment::Experiment;
pub use explain::explain;
pub use files::Places;
pub use methods::Methods;
pub use plan::{Combined, Job, Planned, plan};
pub use profile::Profile;
pub use progress::Progress;
pub use score::{evaluate, validate};
pub use sweep::{Clocking, Settings, Summary, sweep};

/// `; did you mean `x`?` with the known name that is most like `name`, or nothing if none is.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    xmbench_datasets::nearest(name, known).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default()
}
