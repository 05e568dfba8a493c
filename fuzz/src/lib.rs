//! The targets of cargo-fuzz, one a reader of `readers`.
//!
//! ```text
//! cargo run --release -p xmbench --example fuzz -- npy --seeds fuzz/corpus/npy   # in the workspace: bytes to begin from
//! cargo +nightly fuzz run npy -- -rss_limit_mb=1024 -timeout=1                   # here
//! ```

#[path = "../readers/mod.rs"]
pub mod readers;

/// The target of a reader.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        std::thread_local! {
            static STAGE: $crate::readers::Stage = $crate::readers::stage($name).expect("a stage is set up");
        }
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| STAGE.with(|stage| _ = stage.read(bytes)));
    };
}

#[cfg(test)]
mod tests {
    /// Each reader has its target, and no target is of something else.
    #[test]
    fn every_reader_is_a_target() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz_targets");
        let mut targets: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().replace('_', "-"))
            .collect();
        let mut readers: Vec<&str> = super::readers::READERS.iter().map(|(name, _)| *name).collect();
        targets.sort();
        readers.sort();
        assert_eq!(targets, readers);
    }
}
