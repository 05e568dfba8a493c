//! What every command that runs experiments takes.

use std::{num::NonZeroUsize, path::PathBuf};

use crate::run::device;

/// Options of `run` and `repro`.
#[derive(clap::Args)]
pub struct Shared {
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: device::Choice,
    /// Where datasets lie that are not built in; the variable XMBENCH_DATA when absent
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where tables and plots go
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub reports: PathBuf,
    /// Threads; every core when absent
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Remove what the folder has recorded and begin anew
    #[arg(long)]
    pub fresh: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}
