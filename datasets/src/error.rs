use std::path::PathBuf;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a dataset. Each variant names the place, what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be opened, read or mapped.
    #[error("cannot read {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that cannot be made, written or put in its place.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file whose content is not what its format or its siblings promise.
    #[error("{path}{place}: expected {expected}, found {found}; {next}", path = path.display(), place = place_suffix(place))]
    Content {
        /// The file.
        path: PathBuf,
        /// Row, line, key or byte offset inside the file; empty for the whole file.
        place: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// What the user can do next.
        next: String,
    },
    /// An option or a name that does not exist or is out of range.
    #[error("{name}: expected {expected}, found {found}; {next}")]
    Option {
        /// The option's name.
        name: String,
        /// What is allowed.
        expected: String,
        /// What was given.
        found: String,
        /// What the user can do next.
        next: String,
    },
}

fn place_suffix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(", {place}") }
}

impl Error {
    /// A closure for `map_err` that keeps the path beside the operating system's message.
    pub fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// As [`io`](Self::io), of a file that is written.
    pub fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }

    /// Shorthand for [`Error::Content`].
    pub fn content(
        path: impl Into<PathBuf>,
        place: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Content {
            path: path.into(),
            place: place.into(),
            expected: expected.into(),
            found: found.into(),
            next: next.into(),
        }
    }

    /// Shorthand for [`Error::Option`].
    pub fn option(
        name: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self::Option { name: name.into(), expected: expected.into(), found: found.into(), next: next.into() }
    }
}
