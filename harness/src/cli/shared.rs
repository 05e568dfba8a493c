//! What commands that compute take.

use std::{num::NonZeroUsize, path::PathBuf};

use candle_core::Device;

use crate::run::{Profile, device, side_by_side};

/// What a command computes on, and with which data.
#[derive(clap::Args)]
pub struct Means {
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: device::Choice,
    /// Where datasets lie that are not built in; the variable XMBENCH_DATA when absent
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Threads; every core when absent
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<NonZeroUsize>,
}

impl Means {
    /// The folder of datasets that are not built in.
    pub fn data(&self) -> Option<PathBuf> {
        super::data_folder(self.data_dir.clone())
    }
}

/// Options of `run` and `repro`.
#[derive(clap::Args)]
pub struct Shared {
    #[command(flatten)]
    pub means: Means,
    /// Where tables and plots go
    #[arg(long, value_name = "DIR", default_value = "reports")]
    pub reports: PathBuf,
    #[command(flatten)]
    pub fits: Fits,
    /// Remove what the folder has recorded and begin anew
    #[arg(long)]
    pub fresh: bool,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// Options of whatever fits.
#[derive(clap::Args)]
pub struct Fits {
    /// Memory that a fit may take, 8GiB or 500MB, by an estimate before it starts; what the machine has when absent
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_memory: Option<u64>,
    /// Fits side by side, which share threads and memory: one a thread and at most 4 in the profiles smoke and quick, and 1 in the
    /// others, when absent
    #[arg(long, value_name = "N", value_parser = threads)]
    jobs: Option<NonZeroUsize>,
}

impl Fits {
    /// Fits side by side.
    pub fn jobs(&self, profile: Profile, device: &Device) -> usize {
        self.jobs.map_or_else(|| side_by_side(profile, device), NonZeroUsize::get)
    }
}

/// The most threads that make sense: eight a core, so that any machine can be asked what another one's number of threads gives, and
/// 64 where there are few cores. Each has a stack of its own, and thousands of them wait for each other.
pub fn most_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get).saturating_mul(8).max(64)
}

/// A number of threads.
///
/// # Errors
/// If it is none, or more than [`most_threads`].
pub fn threads(text: &str) -> Result<NonZeroUsize, String> {
    match text.parse::<NonZeroUsize>() {
        Ok(threads) if threads.get() <= most_threads() => Ok(threads),
        _ => Err(format!("expected a number from 1 to {}", most_threads())),
    }
}

/// A number of bytes: `8GiB`, `500 MB`, `1073741824`.
///
/// # Errors
/// If it is none, or 0.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "t" | "tib" => Some(1 << 40),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        "tb" => Some(1_000_000_000_000),
        _ => None,
    };
    let bytes =
        text[..digits].parse::<u64>().ok().zip(unit).and_then(|(number, unit): (u64, u64)| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or("expected a size as 8GiB, 500MB or a number of bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let sizes = [("8GiB", 8 << 30), ("8g", 8 << 30), ("500 MB", 500_000_000), ("4096", 4096)];
        sizes.into_iter().for_each(|(text, bytes)| assert_eq!(size(text), Ok(bytes)));
        for wrong in ["", "0", "GiB", "8 pints", "-1", "1.5G", "99999999999999T"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
