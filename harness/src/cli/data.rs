//! `xmbench data`: what there is to read, what is in a file, whether a dataset is sound.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;

use super::Status;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the datasets and where each is from
    List,
    /// Show what a feature or data file holds
    Inspect {
        /// The file
        path: PathBuf,
    },
}

pub fn run(args: &Args) -> Result<Status> {
    match &args.command {
        Command::List | Command::Inspect { .. } => anyhow::bail!("not wired yet"),
    }
}
