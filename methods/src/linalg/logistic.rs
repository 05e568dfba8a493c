//! Logistic regression with a quadratic penalty, solved to convergence.
//!
//! For rows `x_i [d]` with class sets `T_i`, weights `W [d, K]` and biases `b [K]`, which are not penalised:
//!
//! ```text
//! P(c | x) = exp(b_c + w_cᵀ x) / sum_l exp(b_l + w_lᵀ x)                                   (1)
//! min  -sum_i sum_c t_ic log P(c | x_i) + |W|² / (2 C),    t_ic = 1 / |T_i| for c in T_i   (2)
//! H S = Xᵀ R + S / C,    R = P * (X S) - P * rowsum(P * (X S))                             (3)
//! H <= M = Xᵀ X / 2 + I / C    (on weights that sum to zero over classes)                  (4)
//! ```
//!
//! An item of several classes counts in equal parts for each, an item of none is left out. The objective (2) is convex and has
//! one minimum. It is found by Newton's method: conjugate gradients solve (3) with Böhning's bound (4) as preconditioner (Annals
//! of the Institute of Statistical Mathematics 44, 1992), which is the same for every class and so small, and the step is halved
//! until the objective falls. One-vs-rest is a two-class problem (1) a class: with weights `-w/2` and `w/2`, half the `C` is the
//! same penalty. Rows with more columns than there are rows are rotated into their own span first, where the minimum lies.

use faer::{Mat, MatRef};
use serde::{Deserialize, Serialize};

use super::{Cholesky, Svd, multiply, scatter, svd};
use crate::{Error, Result};

/// Newton steps at most; a dozen are common.
const NEWTON_STEPS: usize = 200;
/// Conjugate gradient steps for one Newton step at most.
const GRADIENT_STEPS: usize = 1000;
/// What a Newton step leaves of the gradient, in the preconditioner's norm.
const FORCING: f64 = 1e-4;
/// The last step is the one that promises less than this share of the objective.
const TOLERANCE: f64 = 1e-16;

/// How more than two classes are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// One regression over all classes, equation (1).
    Multinomial,
    /// One regression a class against all others, normalised to sum to one, as LIBLINEAR does.
    OneVsRest,
}

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Inverse strength of the penalty, `C` in equation (2).
    pub c: f64,
    /// How more than two classes are told apart.
    pub scheme: Scheme,
}

/// A fitted regression.
#[derive(Debug, Clone, PartialEq)]
pub struct Logistic {
    /// `[d, K]`.
    pub weights: Mat<f64>,
    /// `K` values; minus infinity for a class that no training row has, whose posterior is 0.
    pub bias: Vec<f64>,
    /// How the classes are told apart.
    pub scheme: Scheme,
}

/// Fits rows `[n, d]` with the sorted classes, out of `count`, of each.
///
/// # Errors
/// Features that are not finite, a `C` that is not above 0, fewer than two classes among the rows, or no convergence.
pub fn fit(rows: MatRef<'_, f64>, classes: &[Vec<u32>], count: usize, options: &Options) -> Result<Logistic> {
    let wrong = |expected: &str, found: String| {
        Err(Error::Numeric(format!("logistic regression: expected {expected}, found {found}")))
    };
    if !(options.c > 0.0 && options.c.is_finite()) {
        return wrong("a C above 0", options.c.to_string());
    }
    if classes.len() != rows.nrows() {
        return wrong("the classes of every row", format!("{} for {} rows", classes.len(), rows.nrows()));
    }
    let kept: Vec<usize> = (0..rows.nrows()).filter(|&i| !classes[i].is_empty()).collect();
    if let Some(class) = classes.iter().flatten().find(|&&class| class as usize >= count) {
        return wrong(&format!("classes below {count}"), class.to_string());
    }
    let present: Vec<usize> =
        (0..count).filter(|&class| kept.iter().any(|&i| classes[i].contains(&(class as u32)))).collect();
    if present.len() < 2 {
        return wrong("training items of at least 2 classes", format!("{} of {} items", present.len(), kept.len()));
    }
    for j in 0..rows.ncols() {
        if let Some(&i) = kept.iter().find(|&&i| !rows[(i, j)].is_finite()) {
            return wrong("finite features", format!("{} in row {i}, column {j}; check the features", rows[(i, j)]));
        }
    }
    let x = Mat::from_fn(kept.len(), rows.ncols(), |i, j| rows[(kept[i], j)]);
    let rotated = if x.ncols() > x.nrows() { Some(svd(x.as_ref())?) } else { None };
    let design = match &rotated {
        Some(Svd { u, s, .. }) => with_ones(Mat::from_fn(u.nrows(), s.len(), |i, j| u[(i, j)] * s[j]).as_ref()),
        None => with_ones(x.as_ref()),
    };
    let d = design.ncols() - 1;
    let mut weights = Mat::zeros(d, count);
    let mut bias = vec![f64::NEG_INFINITY; count];
    let has = |i: usize, class: usize| classes[kept[i]].contains(&(class as u32));
    match options.scheme {
        Scheme::Multinomial => {
            let share = |i: usize, c: usize| f64::from(u8::from(has(i, present[c]))) / classes[kept[i]].len() as f64;
            let targets = Mat::from_fn(kept.len(), present.len(), share);
            let solution = minimise(&Problem::new(design, targets, options.c)?)?;
            for (c, &class) in present.iter().enumerate() {
                weights.col_mut(class).copy_from(solution.col(c).subrows(0, d));
                bias[class] = solution[(d, c)];
            }
        }
        Scheme::OneVsRest => {
            for &class in &present {
                if (0..kept.len()).all(|i| has(i, class)) {
                    return wrong(
                        "a class against others",
                        format!("class {class} in every training item; take the multinomial scheme"),
                    );
                }
                let targets = Mat::from_fn(kept.len(), 2, |i, side| f64::from(u8::from(has(i, class) == (side == 1))));
                let solution = minimise(&Problem::new(design.clone(), targets, 0.5 * options.c)?)?;
                for j in 0..d {
                    weights[(j, class)] = solution[(j, 1)] - solution[(j, 0)];
                }
                bias[class] = solution[(d, 1)] - solution[(d, 0)];
            }
        }
    }
    if let Some(Svd { v, .. }) = &rotated {
        weights = multiply(v.as_ref(), weights.as_ref());
    }
    Ok(Logistic { weights, bias, scheme: options.scheme })
}

impl Logistic {
    /// Posterior probabilities of rows `[n, d]`, `[n, K]`; every row sums to one.
    ///
    /// # Errors
    /// Rows of another width.
    pub fn posterior(&self, rows: MatRef<'_, f64>) -> Result<Mat<f64>> {
        if rows.ncols() != self.weights.nrows() {
            return Err(Error::Numeric(format!(
                "logistic regression: expected vectors of {} values as in training, found {}",
                self.weights.nrows(),
                rows.ncols()
            )));
        }
        let mut scores = multiply(rows, self.weights.as_ref());
        for (c, bias) in self.bias.iter().enumerate() {
            scores.col_mut(c).iter_mut().for_each(|score| *score += bias);
        }
        match self.scheme {
            Scheme::Multinomial => {
                softmax(&mut scores);
            }
            Scheme::OneVsRest => {
                for i in 0..scores.nrows() {
                    scores.row_mut(i).iter_mut().for_each(|score| *score = 1.0 / (1.0 + (-*score).exp()));
                    let sum: f64 = scores.row(i).iter().sum();
                    scores.row_mut(i).iter_mut().for_each(|score| *score /= sum);
                }
            }
        }
        Ok(scores)
    }
}

/// Mean of `-log P(T_i | x_i)` over rows that have classes, equation (2) without its penalty; 0 if none has.
pub fn log_loss(posterior: &Mat<f64>, classes: &[Vec<u32>]) -> f64 {
    // A class that no training row had must not make every setting equally infinite.
    const LEAST: f64 = 1e-15;
    let losses: Vec<f64> = classes
        .iter()
        .enumerate()
        .filter(|(_, own)| !own.is_empty())
        .map(|(i, own)| {
            let logs = own.iter().map(|&class| posterior[(i, class as usize)].max(LEAST).ln());
            -logs.sum::<f64>() / own.len() as f64
        })
        .collect();
    losses.iter().sum::<f64>() / losses.len().max(1) as f64
}

fn with_ones(x: MatRef<'_, f64>) -> Mat<f64> {
    Mat::from_fn(x.nrows(), x.ncols() + 1, |i, j| if j < x.ncols() { x[(i, j)] } else { 1.0 })
}

/// Scores to probabilities, row by row; returns the logarithms of the denominators.
fn softmax(scores: &mut Mat<f64>) -> Vec<f64> {
    let mut denominators = Vec::with_capacity(scores.nrows());
    for i in 0..scores.nrows() {
        let most = scores.row(i).iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores.row_mut(i).iter_mut().for_each(|score| *score = (*score - most).exp());
        let sum: f64 = scores.row(i).iter().sum();
        scores.row_mut(i).iter_mut().for_each(|score| *score /= sum);
        denominators.push(most + sum.ln());
    }
    denominators
}

/// The objective (2): its unknowns are `[d + 1, K]`, the biases in the last row.
struct Problem {
    /// Rows with a last column of ones `[n, d + 1]`.
    x: Mat<f64>,
    /// `t_ic [n, K]`.
    targets: Mat<f64>,
    c: f64,
    /// `M` of equation (4).
    bound: Cholesky,
}

impl Problem {
    fn new(x: Mat<f64>, targets: Mat<f64>, c: f64) -> Result<Self> {
        let width = x.ncols();
        let mut gram = Mat::zeros(width, width);
        scatter(gram.as_mut(), x.as_ref());
        let mut bound = gram * faer::Scale(0.5);
        for j in 0..width - 1 {
            bound[(j, j)] += 1.0 / c;
        }
        Ok(Self { bound: Cholesky::new(bound.as_ref())?, x, targets, c })
    }

    /// The objective, and the posteriors that it sees.
    fn value(&self, w: &Mat<f64>) -> (f64, Mat<f64>) {
        let mut scores = multiply(self.x.as_ref(), w.as_ref());
        let explained = dot(&scores, &self.targets);
        let denominators = softmax(&mut scores);
        let penalty: f64 = columns(w).map(|column| column.iter().map(|w| w * w).sum::<f64>()).sum();
        (denominators.iter().sum::<f64>() - explained + penalty / (2.0 * self.c), scores)
    }

    fn gradient(&self, w: &Mat<f64>, posterior: &Mat<f64>) -> Mat<f64> {
        self.with_penalty(multiply(self.x.transpose(), (posterior - &self.targets).as_ref()), w)
    }

    /// `H S`, equation (3).
    fn curve(&self, posterior: &Mat<f64>, s: &Mat<f64>) -> Mat<f64> {
        let mut change = multiply(self.x.as_ref(), s.as_ref());
        for i in 0..change.nrows() {
            let p = posterior.row(i);
            let mean: f64 = change.row(i).iter().zip(p.iter()).map(|(a, p)| a * p).sum();
            change.row_mut(i).iter_mut().zip(p.iter()).for_each(|(a, p)| *a = p * (*a - mean));
        }
        self.with_penalty(multiply(self.x.transpose(), change.as_ref()), s)
    }

    /// `out + w / C` for weights, `out` for biases.
    fn with_penalty(&self, mut out: Mat<f64>, w: &Mat<f64>) -> Mat<f64> {
        for c in 0..out.ncols() {
            for j in 0..out.nrows() - 1 {
                out[(j, c)] += w[(j, c)] / self.c;
            }
        }
        out
    }

    /// Solves `H S = -gradient` by preconditioned conjugate gradients.
    fn direction(&self, posterior: &Mat<f64>, gradient: &Mat<f64>) -> Mat<f64> {
        let precondition = |residual: &Mat<f64>| {
            let mut out = residual.clone();
            self.bound.solve(out.as_mut());
            out
        };
        let mut s = Mat::zeros(gradient.nrows(), gradient.ncols());
        let mut residual = gradient * faer::Scale(-1.0);
        let mut conditioned = precondition(&residual);
        let mut along = conditioned.clone();
        let mut norm = dot(&residual, &conditioned);
        let enough = FORCING * FORCING * norm;
        for _ in 0..GRADIENT_STEPS {
            if norm <= enough {
                break;
            }
            let curved = self.curve(posterior, &along);
            let bend = dot(&along, &curved);
            // Only rounding makes a convex objective look flat.
            if bend <= 0.0 {
                break;
            }
            let length = faer::Scale(norm / bend);
            s += &along * length;
            residual -= &curved * length;
            conditioned = precondition(&residual);
            let next = dot(&residual, &conditioned);
            along = &conditioned + &along * faer::Scale(next / norm);
            norm = next;
        }
        s
    }
}

fn minimise(problem: &Problem) -> Result<Mat<f64>> {
    let mut w = Mat::zeros(problem.x.ncols(), problem.targets.ncols());
    let (mut value, mut posterior) = problem.value(&w);
    let mut promised = f64::INFINITY;
    for _ in 0..NEWTON_STEPS {
        let gradient = problem.gradient(&w, &posterior);
        let step = problem.direction(&posterior, &gradient);
        promised = -dot(&gradient, &step);
        if promised <= TOLERANCE * (1.0 + value) {
            return Ok(w + step);
        }
        // What rounding can do to a sum of this size must not refuse a step.
        let slack = 1e-12 * (1.0 + value);
        let mut length = 1.0;
        loop {
            let next = &w + &step * faer::Scale(length);
            let (found, there) = problem.value(&next);
            if found <= value - 1e-4 * length * promised + slack {
                (w, value, posterior) = (next, found, there);
                break;
            }
            length *= 0.5;
            if length < 1e-12 {
                return Err(stuck(promised));
            }
        }
    }
    Err(stuck(promised))
}

fn stuck(promised: f64) -> Error {
    Error::Numeric(format!(
        "logistic regression: expected convergence within {NEWTON_STEPS} Newton steps, found one that still promises \
         {promised:.1e}; lower C or scale the features"
    ))
}

/// The columns without their last entry, the bias.
fn columns(w: &Mat<f64>) -> impl Iterator<Item = faer::ColRef<'_, f64>> {
    (0..w.ncols()).map(|c| w.col(c).subrows(0, w.nrows() - 1))
}

fn dot(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (0..a.ncols()).map(|c| a.col(c).iter().zip(b.col(c).iter()).map(|(a, b)| a * b).sum::<f64>()).sum()
}

#[cfg(test)]
mod tests;
