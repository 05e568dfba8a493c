//! Hostile files by the thousand: every reader is given mutations of sound bytes, and none may panic, take a gigabyte, or take a
//! second for a file of less than 100 kB.
//!
//! ```text
//! cargo run --release -p xmbench --example fuzz -- all --runs 1000
//! cargo run --release -p xmbench --example fuzz -- npy --runs 100000 --seed 7
//! cargo run --release -p xmbench --example fuzz -- npy --from 4711 --runs 1    # one run again; --write FILE keeps its bytes
//! cargo run --release -p xmbench --example fuzz -- all --seconds 2             # as many as two seconds a reader allow
//! ```
//!
//! The bytes of a run follow from the seed, the reader's name and the run's number alone. The readers are those of the targets of
//! cargo-fuzz (`fuzz/readers`), which finds more and needs a nightly compiler.

#[path = "../../../fuzz/readers/mod.rs"]
mod readers;

mod mutate;
mod watch;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use xmbench_datasets::random::Seed;

use self::{
    readers::{READERS, Stage, stage},
    watch::{Heard, Watch},
};

#[global_allocator]
static MEMORY: watch::Counting = watch::Counting;

/// What a run may take at most.
const MEMORY_LIMIT: usize = 1 << 30;
const TIME_LIMIT: Duration = Duration::from_secs(1);
/// Larger files may take longer.
const SMALL: usize = 100_000;

/// Give readers hostile bytes.
#[derive(Parser)]
struct Args {
    /// The reader, or `all`
    reader: String,
    /// Of `all`, leave out readers whose names begin so
    #[arg(long, value_name = "PREFIX")]
    without: Option<String>,
    /// Runs of each reader
    #[arg(long, default_value_t = 1000)]
    runs: u64,
    /// Number of the first run
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Root seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// No more runs of a reader after so many seconds
    #[arg(long)]
    seconds: Option<f64>,
    /// Write the bytes of the first run to a file and do not read them
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Write the bytes that runs begin from into a folder and do not read them
    #[arg(long, value_name = "DIR")]
    seeds: Option<PathBuf>,
}

/// What came of the runs of a reader.
#[derive(Default)]
struct Tally {
    runs: u64,
    read: u64,
    slowest: Duration,
    largest: usize,
    /// Runs that panicked, took too much memory or too much time, with what is known of them.
    panics: Vec<(u64, String)>,
    greedy: Vec<(u64, String)>,
    slow: Vec<(u64, String)>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let names: Vec<&str> = match args.reader.as_str() {
        "all" => {
            let left_out = |name: &str| args.without.as_ref().is_some_and(|prefix| name.starts_with(prefix.as_str()));
            READERS.iter().map(|(name, _)| *name).filter(|name| !left_out(name)).collect()
        }
        one => vec![one],
    };
    let heard = watch::listen();
    let (mut sound, mut runs) = (true, 0);
    println!(
        "{:18} {:>8} {:>8} {:>7} {:>7} {:>7} {:>9} {:>8}",
        "reader", "runs", "read", "panics", "> 1 GB", "> 1 s", "slowest", "largest"
    );
    for name in names {
        let stage = match stage(name) {
            Ok(stage) => stage,
            Err(error) => {
                eprintln!("{name}: {error}");
                return ExitCode::from(2);
            }
        };
        if let Some(written) = write(&stage, name, &args) {
            if let Err(error) = written {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
            continue;
        }
        for (number, seed) in stage.seeds.iter().enumerate() {
            // What nobody touched is read, but for the bomb.
            if let Err(error) = stage.read(seed) {
                println!("{name}: seed {number} is refused: {error}");
            }
        }
        let tally = run(&stage, name, &args, &heard);
        println!(
            "{name:18} {:8} {:8} {:7} {:7} {:7} {:6} ms {:5} MB",
            tally.runs,
            tally.read,
            tally.panics.len(),
            tally.greedy.len(),
            tally.slow.len(),
            tally.slowest.as_millis(),
            tally.largest >> 20,
        );
        for (kind, found) in [("panics", &tally.panics), ("memory", &tally.greedy), ("time", &tally.slow)] {
            for (number, said) in found.iter().take(5) {
                println!("  {kind}: --from {number} --seed {}: {said}", args.seed);
            }
            sound &= found.is_empty();
        }
        runs += tally.runs;
    }
    println!("{runs} runs{}", if sound { ", nothing found" } else { "" });
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes bytes where that is asked for in the place of runs.
fn write(stage: &Stage, name: &str, args: &Args) -> Option<std::io::Result<()>> {
    if let Some(file) = &args.write {
        return Some(std::fs::write(file, bytes_of(stage, name, args, args.from)));
    }
    let folder = args.seeds.as_ref()?;
    let each = |(number, seed): (usize, &Vec<u8>)| std::fs::write(folder.join(format!("{name}-{number}")), seed);
    Some(std::fs::create_dir_all(folder).and_then(|()| stage.seeds.iter().enumerate().try_for_each(each)))
}

/// The bytes of a run, which nothing else has a part in.
fn bytes_of(stage: &Stage, name: &str, args: &Args, number: u64) -> Vec<u8> {
    mutate::mutated(&stage.seeds, &mut Seed(args.seed).stream(&["fuzz", name, &number.to_string()]))
}

fn run(stage: &Stage, name: &str, args: &Args, heard: &Heard) -> Tally {
    let (begun, mut tally) = (Instant::now(), Tally::default());
    let over = || args.seconds.is_some_and(|seconds| begun.elapsed().as_secs_f64() > seconds);
    let watch = Watch::over(name);
    for number in args.from..args.from.saturating_add(args.runs) {
        if over() {
            break;
        }
        let bytes = bytes_of(stage, name, args, number);
        watch.begin(number);
        let before = watch::level();
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| stage.read(&bytes).map_err(|error| error.to_string())));
        let (mut took, memory) = (start.elapsed(), watch::peak().saturating_sub(before));
        watch.end();
        // A busy machine is no fault of the reader's: what is slow must be so again.
        for _ in 0..2 {
            if took > TIME_LIMIT && bytes.len() < SMALL {
                let start = Instant::now();
                let _ = catch_unwind(AssertUnwindSafe(|| stage.read(&bytes).is_ok()));
                took = took.min(start.elapsed());
            }
        }
        tally.runs += 1;
        tally.slowest = tally.slowest.max(took);
        tally.largest = tally.largest.max(memory);
        match outcome {
            Ok(Ok(())) => tally.read += 1,
            Ok(Err(_)) => {}
            Err(_) => tally.panics.push((number, heard.last())),
        }
        if memory > MEMORY_LIMIT {
            tally.greedy.push((number, format!("{} MB for {} bytes", memory >> 20, bytes.len())));
        }
        if took > TIME_LIMIT && bytes.len() < SMALL {
            tally.slow.push((number, format!("{} ms for {} bytes", took.as_millis(), bytes.len())));
        }
    }
    tally
}
