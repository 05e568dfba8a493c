//! The experiments that are part of the program.

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// Name and text, in the order of their numbers.
        pub const BUILTIN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../experiments/", $name, ".toml")))),*];
    };
}
builtin![
    "01-emoji-pairs",
    "02-emoji-hashing",
    "03-wiki-correlation",
    "03-wiki-sensitivity",
    "04-f8k-pairs",
    "05-mnist-features",
    "05-mnist-halves",
    "06-emoji-correlation",
    "07-emoji-classes",
    "07-emoji-losses",
    "08-f8k-losses",
    "08-wiki-losses",
    "09-emoji-attention",
    "10-emoji-thresholds",
    "11-f8k-attention",
    "12-emoji-dense",
    "13-f8k-dense",
    "14-emoji-relations",
    "15-f8k-relations",
    "16-wiki-hashing",
    "16-wiki-held-out",
    "17-clipart-pairs",
    "18-emoji-features",
    "19-clipart-curve",
    "20-f8k-curve",
];
