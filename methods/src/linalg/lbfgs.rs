//! Limited-memory BFGS with a line search to the strong Wolfe conditions (Nocedal and Wright, Numerical Optimization, 2nd ed.,
//! algorithms 7.4, 7.5, 3.5 and 3.6).
//!
//! For a smooth `f`, its gradient `g`, and the last `m` changes `s = x' - x`, `y = g' - g`:
//!
//! ```text
//! p = -H g                 by two loops over the pairs, H0 = (s·y / y·y) I of the latest pair          (1)
//! f(x + t p) <= f(x) + c1 t g·p                                                                        (2)
//! |g(x + t p)·p| <= c2 |g·p|                                                                           (3)
//! ```
//!
//! Sums run over fixed blocks, so that the number of threads does not change a bit.

use std::collections::VecDeque;

use rayon::prelude::*;

use crate::{Error, Result};

/// Values a task takes.
const CHUNK: usize = 1 << 14;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Pairs that are kept, `m`.
    pub memory: usize,
    /// `c1` of the condition of sufficient decrease, equation (2).
    pub decrease: f64,
    /// `c2` of the curvature condition, equation (3).
    pub curvature: f64,
    /// Evaluations that one line search may take.
    pub evaluations: usize,
    /// The largest entry of a gradient that counts as zero.
    pub tolerance: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self { memory: 10, decrease: 1e-4, curvature: 0.9, evaluations: 25, tolerance: 1e-8 }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It went on to a lower value.
    Moved,
    /// The gradient is zero within the tolerance; nothing moved.
    Converged,
    /// No point along the direction is lower by more than rounding; nothing moved.
    Stuck,
}

/// A function with its gradient: takes `x`, writes the gradient, gives the value.
pub type Function<'a> = dyn FnMut(&[f64], &mut [f64]) -> Result<f64> + 'a;

/// A minimisation under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Lbfgs {
    /// Where it stands.
    pub x: Vec<f64>,
    /// `f(x)`.
    pub value: f64,
    /// Its gradient.
    pub gradient: Vec<f64>,
    /// `(s, y)`, the oldest first; this, `x` and what `f` makes of it are the whole state.
    pub pairs: VecDeque<(Vec<f64>, Vec<f64>)>,
    options: Options,
}

/// A point on the line that is searched.
struct Point {
    t: f64,
    value: f64,
    slope: f64,
    x: Vec<f64>,
    gradient: Vec<f64>,
}

impl Lbfgs {
    /// Starts at `x`, with the pairs of an earlier minimisation if it goes on.
    ///
    /// # Errors
    /// A value or gradient at `x` that is not finite, or an error of `f`.
    pub fn new(
        x: Vec<f64>,
        pairs: VecDeque<(Vec<f64>, Vec<f64>)>,
        options: Options,
        f: &mut Function<'_>,
    ) -> Result<Self> {
        let mut gradient = vec![0.0; x.len()];
        let value = f(&x, &mut gradient)?;
        if !value.is_finite() || gradient.iter().any(|g| !g.is_finite()) {
            return Err(Error::Numeric(format!(
                "L-BFGS: expected a finite value and gradient at the start, found the value {value}; start elsewhere"
            )));
        }
        Ok(Self { x, value, gradient, pairs, options })
    }

    /// One step.
    ///
    /// # Errors
    /// An error of `f`; a point that is not finite is avoided and no error.
    pub fn step(&mut self, f: &mut Function<'_>) -> Result<Progress> {
        if self.gradient.iter().fold(0.0, |most: f64, g| most.max(g.abs())) <= self.options.tolerance {
            return Ok(Progress::Converged);
        }
        let mut direction = self.direction();
        if dot(&direction, &self.gradient) >= 0.0 {
            // Rounding spoilt the pairs.
            self.pairs.clear();
            direction = self.direction();
        }
        // Without pairs the length of the gradient says nothing: start with a step of length 1.
        let first = match self.pairs.is_empty() {
            true => 1.0 / dot(&self.gradient, &self.gradient).sqrt().max(1.0),
            false => 1.0,
        };
        let Some(found) = self.search(&direction, first, f)? else { return Ok(Progress::Stuck) };
        let (s, y) = (difference(&found.x, &self.x), difference(&found.gradient, &self.gradient));
        // Curvature condition (3) makes this positive; a search that ended early may not.
        if dot(&s, &y) > 1e-10 * dot(&y, &y).sqrt() * dot(&s, &s).sqrt() {
            self.pairs.push_back((s, y));
            if self.pairs.len() > self.options.memory {
                self.pairs.pop_front();
            }
        }
        (self.x, self.value, self.gradient) = (found.x, found.value, found.gradient);
        Ok(Progress::Moved)
    }

    /// `-H g`, equation (1).
    fn direction(&self) -> Vec<f64> {
        let mut q: Vec<f64> = self.gradient.iter().map(|g| -g).collect();
        let mut alphas = Vec::with_capacity(self.pairs.len());
        for (s, y) in self.pairs.iter().rev() {
            let alpha = dot(s, &q) / dot(s, y);
            add(&mut q, -alpha, y);
            alphas.push(alpha);
        }
        if let Some((s, y)) = self.pairs.back() {
            let scale = dot(s, y) / dot(y, y);
            q.iter_mut().for_each(|value| *value *= scale);
        }
        for ((s, y), alpha) in self.pairs.iter().zip(alphas.into_iter().rev()) {
            let beta = dot(y, &q) / dot(s, y);
            add(&mut q, alpha - beta, s);
        }
        q
    }

    /// A point that meets (2) and (3); if the evaluations run out, the lowest that meets (2); `None` if there is none.
    fn search(&self, direction: &[f64], first: f64, f: &mut Function<'_>) -> Result<Option<Point>> {
        let slope = dot(&self.gradient, direction);
        let start = Point { t: 0.0, value: self.value, slope, x: Vec::new(), gradient: Vec::new() };
        let mut at = |t: f64| -> Result<Point> {
            let mut x = self.x.clone();
            add(&mut x, t, direction);
            let mut gradient = vec![0.0; x.len()];
            let value = f(&x, &mut gradient)?;
            let slope = dot(&gradient, direction);
            // What is not finite is as high as can be, so that the search turns back.
            let value = if value.is_finite() && slope.is_finite() { value } else { f64::INFINITY };
            Ok(Point { t, value, slope, x, gradient })
        };
        let Options { decrease, curvature, evaluations, .. } = self.options;
        let lower = |point: &Point| point.value <= self.value + decrease * point.t * slope; // (2)
        let flat = |point: &Point| point.slope.abs() <= curvature * slope.abs(); // (3)
        let (mut low, mut high): (Point, Option<Point>) = (start, None);
        let mut t = first;
        for _ in 0..evaluations {
            let point = at(t)?;
            if !lower(&point) || point.value >= low.value && low.t > 0.0 {
                high = Some(point);
            } else if flat(&point) {
                return Ok(Some(point));
            } else {
                // The minimum lies between the new lowest point and whichever end its slope points to.
                let turned = match &high {
                    Some(high) => point.slope * (high.t - point.t) >= 0.0,
                    None => point.slope >= 0.0,
                };
                let before = std::mem::replace(&mut low, point);
                if turned {
                    high = Some(before);
                }
            }
            t = match &high {
                None => 2.0 * low.t,
                Some(high) => interpolate(&low, high),
            };
            let width = high.as_ref().map_or(f64::INFINITY, |high| (high.t - low.t).abs());
            if width <= 1e-14 * t.abs() || t <= f64::MIN_POSITIVE {
                break;
            }
        }
        Ok((low.t > 0.0 && low.value < self.value).then_some(low))
    }
}

/// Minimum of the cubic through values and slopes of two points, kept off the ends of the interval; its middle if an end is infinite.
fn interpolate(low: &Point, high: &Point) -> f64 {
    let width = high.t - low.t;
    let middle = low.t + 0.5 * width;
    if !high.value.is_finite() {
        return low.t + 0.1 * width;
    }
    let d1 = low.slope + high.slope - 3.0 * (high.value - low.value) / width;
    let d2 = (d1 * d1 - low.slope * high.slope).sqrt() * width.signum();
    let t = high.t - width * (high.slope + d2 - d1) / (high.slope - low.slope + 2.0 * d2);
    let inside = (t - low.t) / width;
    if (0.1..=0.9).contains(&inside) { t } else { middle }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let parts: Vec<f64> = a
        .par_chunks(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>())
        .collect();
    parts.iter().sum()
}

/// `a += factor b`.
fn add(a: &mut [f64], factor: f64, b: &[f64]) {
    a.par_chunks_mut(CHUNK)
        .zip(b.par_chunks(CHUNK))
        .for_each(|(a, b)| a.iter_mut().zip(b).for_each(|(a, b)| *a += factor * b));
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimise(x: Vec<f64>, most: usize, f: &mut Function<'_>) -> (Lbfgs, Progress, usize) {
        let mut search = Lbfgs::new(x, VecDeque::new(), Options::default(), f).unwrap();
        for step in 0..most {
            let before = search.value;
            match search.step(f).unwrap() {
                Progress::Moved => assert!(search.value < before),
                end => return (search, end, step),
            }
        }
        (search, Progress::Moved, most)
    }

    /// Rosenbrock's valley in many dimensions; the minimum 0 lies at all ones.
    fn rosenbrock(x: &[f64], gradient: &mut [f64]) -> Result<f64> {
        gradient.fill(0.0);
        let mut sum = 0.0;
        for i in 0..x.len() - 1 {
            let (a, b) = (1.0 - x[i], x[i + 1] - x[i] * x[i]);
            sum += a * a + 100.0 * b * b;
            gradient[i] -= 2.0 * a + 400.0 * b * x[i];
            gradient[i + 1] += 200.0 * b;
        }
        Ok(sum)
    }

    #[test]
    fn the_bottom_of_the_valley_of_rosenbrock_is_found() {
        for n in [2, 10, 50] {
            let start = (0..n).map(|i| if i % 2 == 0 { -1.2 } else { 1.0 }).collect();
            let (search, end, steps) = minimise(start, 500, &mut rosenbrock);
            assert_eq!(end, Progress::Converged, "{n}: {steps} steps, {}", search.value);
            assert!(search.x.iter().all(|x| (x - 1.0).abs() < 1e-7));
        }
    }

    #[test]
    fn a_quadratic_is_solved_and_its_curvature_conditions_hold() {
        // f = sum c (x - i)^2 / 2 with condition number 100; the minimum is at x_i = i.
        let n = 40;
        let mut evaluations = 0;
        let mut f = |x: &[f64], gradient: &mut [f64]| {
            evaluations += 1;
            let mut sum = 0.0;
            for i in 0..n {
                let c = 10f64.powf(2.0 * i as f64 / (n - 1) as f64);
                gradient[i] = c * (x[i] - i as f64);
                sum += 0.5 * c * (x[i] - i as f64).powi(2);
            }
            Ok(sum)
        };
        let (search, end, steps) = minimise(vec![0.0; n], 400, &mut f);
        assert_eq!(end, Progress::Converged, "{steps} steps");
        assert!(search.x.iter().enumerate().all(|(i, x)| (x - i as f64).abs() < 1e-7));
        assert!(search.pairs.len() == 10 && search.pairs.iter().all(|(s, y)| dot(s, y) > 0.0));
        // Most steps are accepted at once.
        assert!(evaluations < 2 * steps, "{evaluations} evaluations in {steps} steps");
    }

    #[test]
    fn walls_are_turned_back_from_and_a_corner_is_stuck() {
        // x - ln x with a wall at 0: the first step of length 1 from 0.5 stays inside, larger ones do not.
        let mut wall = |x: &[f64], g: &mut [f64]| {
            g[0] = 1.0 - 1.0 / x[0];
            Ok(x[0] - x[0].ln())
        };
        let (search, end, _) = minimise(vec![50.0], 100, &mut wall);
        assert!(end == Progress::Converged && (search.x[0] - 1.0).abs() < 1e-7);
        let mut corner = |x: &[f64], g: &mut [f64]| {
            g[0] = if x[0] < 0.0 { -1.0 } else { 1.0 };
            Ok(x[0].abs())
        };
        let (search, end, _) = minimise(vec![0.3], 100, &mut corner);
        assert!(end == Progress::Stuck && search.value < 1e-6, "{end:?} {}", search.value);
        assert!(Lbfgs::new(vec![-1.0], VecDeque::new(), Options::default(), &mut wall).is_err());
    }

    #[test]
    fn a_minimisation_that_goes_on_takes_the_same_steps() {
        let start = vec![-1.2, 1.0, -1.2, 1.0];
        let run = |search: &mut Lbfgs, steps: usize| {
            for _ in 0..steps {
                search.step(&mut rosenbrock).unwrap();
            }
        };
        let mut straight = Lbfgs::new(start, VecDeque::new(), Options::default(), &mut rosenbrock).unwrap();
        run(&mut straight, 5);
        let (x, pairs) = (straight.x.clone(), straight.pairs.clone());
        let mut resumed = Lbfgs::new(x, pairs, Options::default(), &mut rosenbrock).unwrap();
        run(&mut straight, 5);
        run(&mut resumed, 5);
        assert_eq!(straight, resumed);
    }
}
