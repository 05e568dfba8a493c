//! What a person sees of a long run: bars with an ETA on a terminal, plain lines otherwise. All of it on stderr.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use xmbench_methods::method::{Epoch, Observer};

use crate::output;

/// Plain lines about one trial are at least this far apart.
const BETWEEN: Duration = Duration::from_secs(20);

/// The progress of a run.
pub struct Progress {
    bar: ProgressBar,
    plain: bool,
    total: u64,
}

/// A trial that is under way.
pub struct Task {
    label: String,
    began: Instant,
    last: Instant,
}

/// Hears of one trial and shows it.
pub struct Heard<'a> {
    progress: &'a Progress,
    task: &'a mut Task,
}

impl Progress {
    /// Of a run of `total` trials; `quiet` shows nothing.
    pub fn new(total: usize, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::hidden());
        if terminal && !quiet {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            let style = "{bar:24} {pos}/{len} trials, {elapsed_precise} passed, {eta_precise} left | {wide_msg}";
            bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Self { bar, plain: !terminal && !quiet, total: total as u64 }
    }

    /// A trial begins.
    pub fn begin(&self, label: &str) -> Task {
        let label = output::plain(label).into_owned();
        self.bar.set_message(label.clone());
        let now = Instant::now();
        Task { label, began: now, last: now }
    }

    /// What hears of a trial.
    pub fn of<'a>(&'a self, task: &'a mut Task) -> Heard<'a> {
        Heard { progress: self, task }
    }

    /// A trial is over; `outcome` is what is worth saying of it.
    pub fn end(&self, task: &Task, outcome: &str) {
        self.bar.inc(1);
        let seconds = task.began.elapsed().as_secs_f64();
        self.say(&format!("[{}/{}] {}: {outcome} ({seconds:.1} s)", self.bar.position(), self.total, task.label));
    }

    /// Trials need not run.
    pub fn skip(&self, trials: usize) {
        self.bar.inc(trials as u64);
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        if self.plain {
            output::progress(line);
        } else {
            self.bar.println(output::lines(line));
        }
    }

    /// Nothing more is to come.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Heard<'_> {
    fn within(&mut self, message: &str) {
        let Self { progress, task } = self;
        if progress.plain && task.last.elapsed() >= BETWEEN {
            task.last = Instant::now();
            output::progress(&format!("        {}: {message}", task.label));
        }
        progress.bar.set_message(format!("{}: {message}", task.label));
    }
}

impl Observer for Heard<'_> {
    fn step(&mut self, done: usize, total: usize, loss: f64) {
        self.within(&format!("step {done} of {total}, loss {loss:.4}"));
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let validation = epoch.validation.map(|score| format!(", validation {score:.2}")).unwrap_or_default();
        self.within(&format!("epoch {}, loss {:.4}{validation}", epoch.epoch, epoch.loss));
    }
}
