# Each recipe is a line that a person could have typed; `cargo` alone is enough.

default: bench-all

# Train and time every method, then write tables, plots and one HTML page into reports/.
bench-all *ARGS:
    cargo bench-all {{ARGS}}

# The tests.
test:
    cargo test --workspace

# Render reports/ from the newest recording again.
report *ARGS:
    cargo run --release --package xmbench -- report {{ARGS}}

# Run tables of papers again and judge every cell.
repro *ARGS:
    cargo run --release --package xmbench -- repro {{ARGS}}

# Compare our functions with the authors' inputs and outputs.
verify *ARGS:
    cargo run --release --package xmbench -- verify {{ARGS}}

# Hostile files for every reader, or one: just fuzz npy --runs 100000
fuzz *ARGS="all":
    cargo run --release --package xmbench --example fuzz -- {{ARGS}}

# Speed: exact search, scoring, training steps.
bench:
    cargo bench --workspace

# Format every source, also those that a macro declares, which `cargo fmt` never reaches.
format *ARGS:
    find datasets encoders fuzz/readers fuzz/src fuzz/fuzz_targets harness methods -name '*.rs' -print0 | xargs -0 rustfmt --edition 2024 {{ARGS}}

# Everything that has to hold before a commit.
check:
    just format --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# A second binary for machines with an NVIDIA GPU, built without one.
cuda-build:
    bash scripts/cuda-build.sh

# With an NVIDIA GPU: golden files, metrics and speed there and on the processor; see docs/GPU.md.
gpu-check BINARY GOLDEN="golden":
    bash scripts/gpu-check.sh {{BINARY}} {{GOLDEN}}

# Where the time of a clean build goes.
timings:
    cargo build --release --workspace --timings
