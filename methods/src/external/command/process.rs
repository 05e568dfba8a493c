//! Runs a program to its end, or to the end of its time.

use std::{
    ffi::OsString,
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// Bytes of what a program printed last that a reason quotes at most.
const TAIL: usize = 1500;

/// A call of a program.
pub struct Call<'a> {
    /// What the shell runs.
    pub command: &'a str,
    /// For messages.
    pub phase: &'a str,
    /// Where it runs; where xmbench does when absent.
    pub folder: Option<&'a Path>,
    /// Added to the environment.
    pub variables: Vec<(&'static str, OsString)>,
    /// How long it may take.
    pub limit: Duration,
    /// The file that takes what it prints.
    pub printed: &'a Path,
    /// Set from outside to end it.
    pub stop: Option<&'a AtomicBool>,
}

impl Call<'_> {
    /// Runs the program; when it has ended, so have its children.
    ///
    /// # Errors
    /// If it cannot be started, ends with another code than 0, or takes too long; [`Error::Interrupted`].
    pub fn run(&self) -> Result<()> {
        let out = File::create(self.printed).map_err(Error::io(self.printed))?;
        let err = out.try_clone().map_err(Error::io(self.printed))?;
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.command).stdin(Stdio::null()).stdout(out).stderr(err);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        // A group of its own, so that its children can be ended with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(Error::io("sh"))?;
        let (start, mut pause) = (Instant::now(), Duration::from_millis(2));
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Err(error) => break Err(self.failed(&format!("cannot be waited for: {error}"))),
                Ok(None) => {}
            }
            if self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                break Err(Error::Interrupted);
            }
            if start.elapsed() >= self.limit {
                let limit = self.limit.as_secs_f64();
                break Err(self.failed(&format!("took longer than `time_limit`, {limit} s, and was ended")));
            }
            std::thread::sleep(pause);
            pause = (2 * pause).min(Duration::from_millis(100));
        };
        end(&mut child);
        match status? {
            status if status.success() => Ok(()),
            status => Err(self.failed(&format!("ended with {status}"))),
        }
    }

    fn failed(&self, how: &str) -> Error {
        let bytes = std::fs::read(self.printed).unwrap_or_default();
        let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]).into_owned();
        let lines: Vec<&str> = tail.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(8)..].join(" | ");
        let said = if last.is_empty() { "it printed nothing".into() } else { format!("its last lines: {last}") };
        Error::Numeric(format!("the program `{}` {how} in phase `{}`; {said}", self.command, self.phase))
    }
}

/// Ends whatever is left of a program and its children.
fn end(child: &mut Child) {
    #[cfg(unix)]
    {
        let group = format!("-{}", child.id());
        // None may be left, which is no error.
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    }
    let _ = child.kill();
    let _ = child.wait();
}
