//! Layers of a transformer over rows of tokens, on the calling thread.
//!
//! For tokens `x [n, w]`, heads of width `d = w / h`:
//!
//! - (1) linear layer: `y = x W^T + b`, weights `[outputs, inputs]` as they are stored
//! - (2) layer normalisation: `(x - mean) / sqrt(var + eps) g + b`, mean and biased variance over the width, summed in f64
//! - (3) attention: `softmax(Q_h K_h^T / sqrt(d)) V_h` for each head, side by side, and a linear layer; `causal` lets a token see those before it and itself
//! - (4) block, normalised before: `x += s_1 A(N_1 x)`, `x += s_2 M(N_2 x)`; or after, as in BERT: `x = N_1(x + A x)`, `x = N_2(x + M x)`;
//!   `M` is two linear layers with an activation between them, `s` a factor a channel (DINOv2) or one

use std::f32::consts::FRAC_1_SQRT_2;

use gemm::{Parallelism, gemm};
use xmbench_datasets::Result;

use super::arrays::Arrays;

/// A part of a matrix that lies in a slice: where it begins, and elements from one row and from one column to the next.
#[derive(Clone, Copy)]
struct Part<'a> {
    values: &'a [f32],
    row: usize,
    column: usize,
}

/// `out [m, n] = factor a [m, k] b [k, n]`, rows of `out` being `row` apart.
fn product([m, n, k]: [usize; 3], factor: f32, a: Part<'_>, b: Part<'_>, out: &mut [f32], row: usize) {
    let last = |rows: usize, columns: usize, part: &Part<'_>| (rows - 1) * part.row + (columns - 1) * part.column;
    assert!(m > 0 && n > 0 && k > 0, "sizes of a product");
    assert!(last(m, k, &a) < a.values.len() && last(k, n, &b) < b.values.len(), "factors of a product");
    assert!(row >= n && (m - 1) * row + n <= out.len(), "result of a product");
    // SAFETY: the furthest element of each matrix was held against its slice above, and a mutable slice overlaps no other.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            row as isize,
            false,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            0.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A linear layer (1).
pub(super) struct Linear {
    /// `[outputs, inputs]`.
    weights: Vec<f32>,
    /// Empty for none.
    bias: Vec<f32>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// `NAME.weight` and, if it has one, `NAME.bias`.
    pub fn read(from: &Arrays<'_>, name: &str, [inputs, outputs]: [usize; 2], biased: bool) -> Result<Self> {
        let weights = from.take(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = if biased { from.take(&format!("{name}.bias"), &[outputs])? } else { Vec::new() };
        Ok(Self { weights, bias, inputs, outputs })
    }

    /// Of weights that lie elsewhere or in another form.
    pub fn new(weights: Vec<f32>, bias: Vec<f32>, inputs: usize) -> Self {
        let outputs = weights.len() / inputs;
        Self { weights, bias, inputs, outputs }
    }

    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// `[rows, outputs]`.
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let mut out = vec![0.0; rows * self.outputs];
        let x = Part { values: x, row: self.inputs, column: 1 };
        let turned = Part { values: &self.weights, row: 1, column: self.inputs };
        product([rows, self.outputs, self.inputs], 1.0, x, turned, &mut out, self.outputs);
        if !self.bias.is_empty() {
            for row in out.chunks_exact_mut(self.outputs) {
                row.iter_mut().zip(&self.bias).for_each(|(value, bias)| *value += bias);
            }
        }
        out
    }
}

/// Layer normalisation (2).
pub(super) struct Norm {
    gain: Vec<f32>,
    bias: Vec<f32>,
    eps: f64,
}

impl Norm {
    pub fn read(from: &Arrays<'_>, name: &str, width: usize, eps: f64) -> Result<Self> {
        let part = |part: &str| from.take(&format!("{name}.{part}"), &[width]);
        Ok(Self { gain: part("weight")?, bias: part("bias")?, eps })
    }

    pub fn apply(&self, x: &mut [f32]) {
        let width = self.gain.len();
        for row in x.chunks_exact_mut(width) {
            let mean = row.iter().map(|&value| f64::from(value)).sum::<f64>() / width as f64;
            let square = |value: f32| (f64::from(value) - mean).powi(2);
            let variance = row.iter().map(|&value| square(value)).sum::<f64>() / width as f64;
            let factor = 1.0 / (variance + self.eps).sqrt();
            for ((value, gain), bias) in row.iter_mut().zip(&self.gain).zip(&self.bias) {
                *value = ((f64::from(*value) - mean) * factor) as f32 * gain + bias;
            }
        }
    }

    fn applied(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        self.apply(&mut x);
        x
    }
}

/// What stands between the layers of an `M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activation {
    /// `x sigmoid(1.702 x)`: CLIP as OpenAI trained it.
    QuickGelu,
    /// `x (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    pub const NAMES: &[(&str, Self)] = &[
        ("quick_gelu", Self::QuickGelu),
        ("gelu", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("relu", Self::Relu),
    ];

    pub fn apply(self, x: &mut [f32]) {
        match self {
            Self::QuickGelu => x.iter_mut().for_each(|x| *x /= 1.0 + (-1.702 * *x).exp()),
            Self::Gelu => x.iter_mut().for_each(|x| *x *= 0.5 * (1.0 + libm::erff(*x * FRAC_1_SQRT_2))),
            Self::GeluTanh => {
                const FACTOR: f32 = 0.797_884_6;
                x.iter_mut().for_each(|x| {
                    let inner = FACTOR * (*x + 0.044_715 * *x * *x * *x);
                    *x *= 0.5 * (1.0 + inner.tanh());
                });
            }
            Self::Relu => x.iter_mut().for_each(|x| *x = x.max(0.0)),
        }
    }
}

/// Two linear layers with an activation between them.
pub(super) struct Mlp {
    pub wide: Linear,
    pub narrow: Linear,
    pub activation: Activation,
}

impl Mlp {
    pub fn apply(&self, x: &[f32]) -> Vec<f32> {
        let mut inner = self.wide.apply(x);
        self.activation.apply(&mut inner);
        self.narrow.apply(&inner)
    }
}

/// Attention (3).
pub(super) struct Attention {
    pub query: Linear,
    pub key: Linear,
    pub value: Linear,
    pub out: Linear,
    pub heads: usize,
}

impl Attention {
    /// What `asking [m, w]` gets of `asked [n, w]`.
    pub fn apply(&self, asking: &[f32], asked: &[f32], causal: bool) -> Vec<f32> {
        let (query, key, value) = (self.query.apply(asking), self.key.apply(asked), self.value.apply(asked));
        let width = self.query.outputs();
        let (m, n, head) = (asking.len() / width, asked.len() / width, width / self.heads);
        let mut joined = vec![0.0; m * width];
        let mut shares = vec![0.0; m * n];
        let factor = 1.0 / (head as f32).sqrt();
        for first in (0..self.heads).map(|number| number * head) {
            let of = |values, row, column| Part { values, row, column };
            // (3)
            let keys = of(&key[first..], 1, width);
            product([m, n, head], factor, of(&query[first..], width, 1), keys, &mut shares, n);
            for (row, shares) in shares.chunks_exact_mut(n).enumerate() {
                let seen = if causal { row + 1 } else { n };
                softmax(&mut shares[..seen]);
                shares[seen..].fill(0.0);
            }
            let values = of(&value[first..], width, 1);
            product([m, head, n], 1.0, of(&shares, n, 1), values, &mut joined[first..], width);
        }
        self.out.apply(&joined)
    }
}

fn softmax(x: &mut [f32]) {
    let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in x.iter_mut() {
        *value = (*value - most).exp();
        sum += *value;
    }
    x.iter_mut().for_each(|value| *value /= sum);
}

/// A block (4).
pub(super) struct Block {
    pub attention: Attention,
    pub mlp: Mlp,
    pub norms: [Norm; 2],
    /// A factor for each channel of what is added; `None` for one.
    pub scales: Option<[Vec<f32>; 2]>,
    /// Normalised after what is added and not before.
    pub after: bool,
    pub causal: bool,
}

impl Block {
    pub fn apply(&self, x: &mut [f32]) {
        let [first, second] = &self.norms;
        let [one, two] = self.scales.as_ref().map_or([&[][..]; 2], |[one, two]| [&one[..], &two[..]]);
        if self.after {
            add(x, &self.attention.apply(x, x, self.causal), one);
            first.apply(x);
            add(x, &self.mlp.apply(x), two);
            second.apply(x);
        } else {
            let seen = first.applied(x);
            add(x, &self.attention.apply(&seen, &seen, self.causal), one);
            add(x, &self.mlp.apply(&second.applied(x)), two);
        }
    }
}

/// `x += scale y`, channel by channel; an empty scale is one.
pub(super) fn add(x: &mut [f32], y: &[f32], scale: &[f32]) {
    if scale.is_empty() {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
        return;
    }
    for (x, y) in x.chunks_exact_mut(scale.len()).zip(y.chunks_exact(scale.len())) {
        x.iter_mut().zip(y).zip(scale).for_each(|((x, y), scale)| *x += y * scale);
    }
}
