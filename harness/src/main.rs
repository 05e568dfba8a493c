//! The `xmbench` binary.

/// Counts what trials hold.
#[global_allocator]
static HEAP: xmbench_methods::train::heap::Counting = xmbench_methods::train::heap::Counting;

fn main() -> std::process::ExitCode {
    xmbench::cli::main()
}
