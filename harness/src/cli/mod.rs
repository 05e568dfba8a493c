//! The command line.

/// Runs the command line with the given arguments; returns the exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
