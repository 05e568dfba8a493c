//! The clock: monotonic, after a warm-up to steady state, every sample kept.

use std::time::{Duration, Instant};

use super::Profile;

/// How much time a phase may take, and how many samples are enough.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Most time for the warm-up.
    pub warm_up: Duration,
    /// Most time for the samples; at least one is always taken.
    pub budget: Duration,
    /// Most samples.
    pub samples: usize,
}

impl Effort {
    /// For a phase that takes microseconds to milliseconds, as one query.
    pub fn short(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self::new(20, 50, 20),
            Profile::Quick => Self::new(100, 200, 200),
            Profile::Full | Profile::Paper => Self::new(1000, 3000, 1000),
        }
    }

    /// For a phase that takes milliseconds to seconds, as encoding a split.
    pub fn long(profile: Profile) -> Self {
        match profile {
            Profile::Smoke => Self::new(40, 100, 2),
            Profile::Quick => Self::new(100, 300, 5),
            Profile::Full | Profile::Paper => Self::new(2000, 10_000, 20),
        }
    }

    /// What is left for one of so many rounds.
    pub fn share(self, rounds: usize) -> Self {
        let Self { warm_up, budget, samples } = self;
        let parts = u32::try_from(rounds.max(1)).unwrap_or(u32::MAX);
        Self { warm_up: warm_up / parts, budget: budget / parts, samples: samples.div_ceil(rounds.max(1)) }
    }

    /// How many of `all` queries one call answers within the budget, by what they take one by one: not fewer than 64,
    /// as a batch of a handful is none.
    pub fn fits(self, one: &[f64], all: usize) -> usize {
        let fastest = one.iter().copied().fold(f64::INFINITY, f64::min);
        // A float that is too large for a number of queries becomes the largest.
        let within = (self.budget.as_secs_f64() / fastest) as usize;
        within.max(TOGETHER).min(all)
    }

    fn new(warm_up: u64, budget: u64, samples: usize) -> Self {
        Self { warm_up: Duration::from_millis(warm_up), budget: Duration::from_millis(budget), samples }
    }
}

/// Queries that ask together, if there are as many.
const TOGETHER: usize = 64;

/// Calls in one window of the warm-up.
const WINDOW: usize = 5;

/// Two windows in a row whose medians differ by less than this share are a steady state.
const STEADY: f64 = 0.05;

/// Seconds of each call of `work` once it runs steadily; `work` is given the number of the call.
///
/// # Errors
/// The first error of `work`.
pub fn sample<E>(effort: Effort, mut work: impl FnMut(usize) -> Result<(), E>) -> Result<Vec<f64>, E> {
    let mut calls = 0;
    let mut timed = || {
        let start = Instant::now();
        let outcome = work(calls);
        calls += 1;
        outcome.map(|()| start.elapsed().as_secs_f64())
    };
    let begin = Instant::now();
    let (mut window, mut before) = (Vec::with_capacity(WINDOW), f64::NAN);
    while begin.elapsed() < effort.warm_up {
        let seconds = timed()?;
        // A call that takes longer than all the time there is has warmed up in its first moments.
        if seconds > (effort.warm_up + effort.budget).as_secs_f64() {
            return Ok(vec![seconds]);
        }
        window.push(seconds);
        if window.len() == WINDOW {
            let now = median(&mut window);
            window.clear();
            if (now - before).abs() < STEADY * now {
                break;
            }
            before = now;
        }
    }
    let begin = Instant::now();
    let mut seconds = vec![timed()?];
    while seconds.len() < effort.samples && begin.elapsed() < effort.budget {
        seconds.push(timed()?);
    }
    Ok(seconds)
}

/// The value in the middle of an odd number of values; sorts them.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn the_first_slow_calls_are_not_among_the_samples() {
        let slow = Duration::from_millis(40);
        let effort = Effort { warm_up: Duration::from_secs(5), budget: Duration::from_secs(5), samples: 10 };
        let seconds = sample::<Infallible>(effort, |call| {
            std::thread::sleep(if call < WINDOW { slow } else { Duration::from_millis(4) });
            Ok(())
        })
        .unwrap();
        assert_eq!(seconds.len(), 10);
        assert!(seconds.iter().all(|&second| second >= 0.004));
        assert!(median(&mut seconds[..9].to_vec()) < 0.03);
    }

    #[test]
    fn one_sample_is_taken_even_without_time() {
        let none = Effort { warm_up: Duration::ZERO, budget: Duration::ZERO, samples: 100 };
        assert_eq!(sample::<Infallible>(none, |_| Ok(())).unwrap().len(), 1);
    }

    #[test]
    fn a_batch_is_as_large_as_there_is_time_for() {
        let effort = Effort::new(0, 1000, 5);
        assert_eq!(effort.fits(&[0.5, 0.001, 0.002], 5000), 1000);
        assert_eq!(effort.fits(&[0.001], 300), 300);
        assert_eq!(effort.fits(&[3.0], 5000), TOGETHER);
        assert_eq!(effort.fits(&[3.0], 5), 5);
        assert_eq!(effort.fits(&[0.0], 5000), 5000);
    }

    #[test]
    fn an_error_ends_the_sampling() {
        let effort = Effort { warm_up: Duration::ZERO, budget: Duration::from_secs(1), samples: 100 };
        assert_eq!(sample(effort, |call| if call == 3 { Err("bad") } else { Ok(()) }), Err("bad"));
    }
}
