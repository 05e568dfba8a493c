//! `xmbench bench-device`: training steps, scoring and search, timed on a device.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::Result;
use serde_json::json;

use super::Status;
use crate::{
    output::{answer, json as to_json},
    run::{
        device::{self, Choice},
        machine,
    },
    speed::{self, Sizes},
};

#[derive(clap::Args)]
pub struct Args {
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: Choice,
    /// Seconds for each piece of work, after a warm-up of at most half of that
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    seconds: u64,
    /// Threads; every core when absent
    #[arg(long, value_name = "N", value_parser = super::shared::threads)]
    pub threads: Option<NonZeroUsize>,
    /// Print one JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<Status> {
    let (device, name) = device::open(args.device)?;
    if !args.json {
        answer(speed::HEAD)?;
    }
    // Each as it comes: what was measured is not lost if the rest takes too long.
    let mut written = Ok(());
    let heard = |row: &speed::Row| {
        if !args.json && written.is_ok() {
            written = answer(&speed::line(row));
        }
    };
    let rows = speed::measure((&device, &name), &Sizes::default(), Duration::from_secs(args.seconds), heard)?;
    written?;
    if args.json {
        let manifest = machine::circumstances();
        let threads = rayon::current_num_threads();
        answer(&to_json(&json!({ "device": name, "cpu": manifest.cpu, "threads": threads, "rows": rows })))?;
    }
    Ok(Status::Done)
}
