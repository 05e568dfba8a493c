/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while fitting or encoding.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A dataset's error.
    #[error(transparent)]
    Dataset(#[from] xmbench_datasets::Error),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// A file could not be read or written.
    #[error("cannot access {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A parameter that is unknown, of the wrong type or out of range.
    #[error("method `{method}`, parameter `{key}`: expected {expected}, found {found}{hint}")]
    Parameter {
        /// The method.
        method: String,
        /// The parameter.
        key: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
        /// "; did you mean `…`?", or empty.
        hint: String,
    },
    /// The dataset lacks a representation that the method needs.
    #[error(
        "method `{method}` needs {need}, which dataset `{dataset}` does not offer; choose another dataset or set the method's input parameter"
    )]
    Missing {
        /// The method.
        method: String,
        /// The representation.
        need: String,
        /// The dataset.
        dataset: String,
    },
    /// Numbers went bad: NaN, infinity, a singular matrix, a collapsed loss.
    #[error("{0}")]
    Numeric(String),
    /// What would be held in memory is more than may be.
    #[error("{what}: {takes}, and {limit} may be used; choose smaller parameters or allow more with --max-memory")]
    Memory {
        /// What is asked for.
        what: String,
        /// What it takes: `at least 29.1 PiB`.
        takes: String,
        /// What may be used.
        limit: String,
    },
    /// The run was stopped from outside.
    #[error("interrupted")]
    Interrupted,
    /// A card, saved matcher, checkpoint or golden file that does not have the documented form.
    #[error("{file}: expected {expected}, found {found}")]
    Format {
        /// The file.
        file: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl Error {
    /// A closure for `map_err` that keeps the path beside the operating system's message.
    pub fn io(path: impl Into<std::path::PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
