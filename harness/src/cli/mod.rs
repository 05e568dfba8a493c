//! The command line: what there is to type, and which file answers.

mod bench_device;
mod check;
mod claims;
mod compare;
mod data;
mod eval;
mod explain;
mod extract;
mod list;
mod query;
mod report;
mod repro;
mod rerun;
mod run;
mod shared;
mod trec;
mod tune;

use std::{
    ffi::OsString,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use xmbench_methods::{Method, train::memory};

use crate::{
    output::{self, Unwritten, plain},
    run::Methods,
    verify,
};

/// A reproducible benchmark of cross-modal image-text retrieval.
#[derive(Parser)]
#[command(
    name = "xmbench",
    version,
    after_help = "exit codes: 0 done, 1 a check did not hold or a trial failed, 2 wrong usage, bad input or a result that cannot be written, \
                  130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what there is: methods, datasets, experiments
    List(list::Args),
    /// Look at datasets and feature files, check them, or make features of pictures
    Data(data::Args),
    /// Run experiments and record every trial
    Run(run::Args),
    /// Find parameters of trained rows on validation data, the same number of settings for every row
    Tune(tune::Args),
    /// Render tables and plots from a recording
    Report(report::Args),
    /// Run trials of a recording again, from the recording alone, and say whether every bit is equal
    Rerun(rerun::Args),
    /// Run tables of papers again and judge every cell
    Repro(repro::Args),
    /// Ask rows of a recording: the best items for a caption, for words of your own, or for an image
    Query(query::Args),
    /// Set two recordings, or two rows, side by side
    Compare(compare::Args),
    /// Print the metrics of two files of embeddings, or of one of scores
    Eval(eval::Args),
    /// Write a recording's best items as runs of TREC, or print the metrics of a run
    Trec(trec::Args),
    /// Say what holds of a recording: checksums, ranges, metrics computed again from its queries
    Check(check::Args),
    /// Put what papers claim to a recording: supported, not supported, undecided
    Claims(claims::Args),
    /// Show what a method looked at: words and regions, over the picture
    Explain(explain::Args),
    /// Compare with the values that the authors' code computes
    Verify(verify::VerifyArgs),
    /// Time training steps, scoring and search on a device
    BenchDevice(bench_device::Args),
}

/// How a command ended.
enum Status {
    Done,
    /// A check did not hold, or a trial failed.
    Failed,
    Interrupted,
}

/// Runs the command line with the process's arguments; returns the exit code.
pub fn main() -> ExitCode {
    main_with(&[])
}

/// As [`main`], with methods of another crate beside the built-in ones: experiments name them like any other.
pub fn main_with(extra: &[&'static dyn Method]) -> ExitCode {
    output::hush();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some(argument) = arguments.iter().find(|argument| argument.to_str().is_none()) {
        output::progress(&format!(
            "error: the argument `{}` is not UTF-8; rename the file or folder that it names",
            argument.to_string_lossy()
        ));
        return ExitCode::from(2);
    }
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; clap knows which stream they go to.
            let written = error.print().is_ok();
            return ExitCode::from(if error.use_stderr() || !written { 2 } else { 0 });
        }
    };
    let answered = catch_unwind(AssertUnwindSafe(|| {
        match &cli.command {
            Command::Run(run::Args { shared, .. }) | Command::Repro(repro::Args { shared, .. }) => {
                run::set_threads(shared.means.threads)?;
                shared.fits.max_memory.into_iter().for_each(memory::set_limit);
            }
            Command::Tune(args) => {
                run::set_threads(args.means.threads)?;
                args.fits.max_memory.into_iter().for_each(memory::set_limit);
            }
            Command::BenchDevice(args) => run::set_threads(args.threads)?,
            Command::Query(_) => run::set_threads(None)?,
            Command::Explain(args) => run::set_threads(args.means.threads)?,
            Command::Rerun(args) => run::set_threads(args.means.threads)?,
            Command::Data(args) => args.threads().map_or(Ok(()), run::set_threads)?,
            _ => {}
        }
        dispatch(cli.command, &Methods::with(extra))
    }));
    match answered {
        Ok(Ok(Status::Done)) => ExitCode::SUCCESS,
        Ok(Ok(Status::Failed)) => ExitCode::from(1),
        Ok(Ok(Status::Interrupted)) => ExitCode::from(130),
        Ok(Err(error)) => {
            if !error.downcast_ref::<Unwritten>().is_some_and(Unwritten::is_gone) {
                output::progress(&format!("error: {}", message(&error)));
            }
            ExitCode::from(2)
        }
        Err(payload) => {
            output::progress(&format!("error: {}", output::of_panic(&*payload)));
            ExitCode::from(2)
        }
    }
}

/// Characters of the longest message: what is quoted in one may have come from a file of any size.
const LONGEST: usize = 4_000;

/// An error with its causes, one behind the other; a cause that an error has already quoted is not said again.
fn message(error: &anyhow::Error) -> String {
    let whole = error.chain().map(ToString::to_string).fold(String::new(), |said, next| match said {
        said if said.is_empty() => next,
        said if said.ends_with(&next) => said,
        said => format!("{said}: {next}"),
    });
    output::short(&whole, LONGEST).into_owned()
}

fn dispatch(command: Command, methods: &Methods) -> Result<Status> {
    match command {
        Command::List(args) => list::run(&args, methods),
        Command::Data(args) => data::run(&args),
        Command::Run(args) => run::run(&args, methods),
        Command::Tune(args) => tune::run(&args, methods),
        Command::Report(args) => report::run(&args, methods),
        Command::Repro(args) => repro::run(&args, methods),
        Command::Rerun(args) => rerun::run(&args, methods),
        Command::Query(args) => query::run(&args, methods),
        Command::Compare(args) => compare::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Trec(args) => trec::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Claims(args) => claims::run(&args, methods),
        Command::Explain(args) => explain::run(&args, methods),
        Command::BenchDevice(args) => bench_device::run(&args),
        Command::Verify(args) => Ok(if verify::run(&args)? { Status::Done } else { Status::Failed }),
    }
}

/// The data folder that was named, or that of the variable XMBENCH_DATA.
fn data_folder(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| std::env::var_os("XMBENCH_DATA").filter(|value| !value.is_empty()).map(PathBuf::from))
}

/// `KEY=VALUE` words as a table; what does not read as a TOML value is a plain word.
fn assignments(words: &[String]) -> Result<toml::Table> {
    let mut table = toml::Table::new();
    for word in words {
        let (key, word) = word.split_once('=').with_context(|| format!("`{word}`: expected KEY=VALUE"))?;
        let value = format!("value = {word}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        table.insert(key.into(), value.unwrap_or_else(|| toml::Value::String(word.into())));
    }
    Ok(table)
}

/// Rows as aligned columns, two spaces apart, the first row a heading.
fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<_>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
