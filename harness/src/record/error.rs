use std::path::PathBuf;

/// Result of reading or writing a recording.
pub type Result<T> = std::result::Result<T, Error>;

/// What can be wrong with a recording folder. Each variant names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file that is not what this program writes: truncated, edited or foreign.
    #[error("{path} is damaged: expected {expected}, found {found}; {next}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
        /// What the user can do next.
        next: &'static str,
    },
    /// A layout that another version of xmbench wrote.
    #[error("{path} has format {found}, this xmbench reads format {expected}; read it with xmbench {version} or choose another folder", path = path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// The format that this program reads.
        expected: u32,
        /// The format that the file has.
        found: u32,
        /// The version of xmbench that wrote the file.
        version: String,
    },
    /// Another run holds the folder.
    #[error("{path} is in use by another run ({holder}); wait for it or choose another folder with --out", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// `process 1234`, as far as it is known.
        holder: String,
    },
    /// The folder, or the lock in it, was removed while a run wrote into it.
    #[error("{path} disappeared while the run wrote into it; {kept}", path = path.display())]
    Disappeared {
        /// The folder.
        path: PathBuf,
        /// What became of what was recorded.
        kept: String,
    },
    /// The folder holds a recording that this run may not extend.
    #[error("{path} holds a recording with {what} `{found}`, this run has `{wanted}`; choose another folder with --out, or start it anew with --fresh", path = path.display())]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// The property: `profile`.
        what: &'static str,
        /// Its value in the folder.
        found: String,
        /// Its value in this run.
        wanted: String,
    },
}

impl Error {
    /// A closure for `map_err` that keeps the path and the action beside the operating system's message.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
