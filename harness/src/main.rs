//! The `xmbench` binary.

fn main() -> std::process::ExitCode {
    xmbench::cli::main()
}
