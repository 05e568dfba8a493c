//! Convolutions over maps `[rows, columns, channels]`, the channel varying fastest, on the calling thread.
//!
//! In this order a 1 x 1 convolution is one matrix product over all places, and a filter of each channel by itself is a loop over channels whose
//! steps have nothing to do with each other: sixteen of them fit into one instruction.

use std::ops::Range;

use gemm::{Parallelism, gemm};

/// The largest value that ReLU6 lets pass.
const CAP: f32 = 6.0;

/// What is done to a convolution's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// `min(max(x, 0), 6)`.
    Relu6,
    Nothing,
}

/// A 1 x 1 convolution, or any other product by a matrix: `y = x w + b`.
pub(super) struct Pointwise {
    /// `[inputs, outputs]`.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    pub inputs: usize,
    pub after: After,
}

impl Pointwise {
    pub fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `out [places, outputs]` from `x [places, inputs]`; `skip`, of the shape of `out`, is added.
    pub fn apply(&self, x: &[f32], out: &mut [f32], skip: Option<&[f32]>) {
        let (k, n) = (self.inputs, self.outputs());
        let places = out.len() / n;
        assert_eq!((x.len(), out.len(), self.weights.len()), (places * k, places * n, k * n), "shapes of a product");
        // SAFETY: the lengths were compared above, and a mutable slice overlaps no other.
        unsafe {
            gemm(
                places,
                n,
                k,
                out.as_mut_ptr(),
                1,
                n as isize,
                false,
                x.as_ptr(),
                1,
                k as isize,
                self.weights.as_ptr(),
                1,
                n as isize,
                0.0,
                1.0,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        match (self.after, skip) {
            (After::Relu6, None) => rows(out, &self.bias, |x, b| (x + b).clamp(0.0, CAP)),
            (After::Nothing, None) => rows(out, &self.bias, |x, b| x + b),
            (after, Some(skip)) => {
                rows(out, &self.bias, |x, b| if after == After::Relu6 { (x + b).clamp(0.0, CAP) } else { x + b });
                out.iter_mut().zip(skip).for_each(|(x, s)| *x += s);
            }
        }
    }
}

fn rows(out: &mut [f32], bias: &[f32], f: impl Fn(f32, f32) -> f32) {
    for row in out.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(x, &b)| *x = f(*x, b));
    }
}

/// Zeros before the first of `n` values, of `SAME` padding.
pub(super) fn before(n: usize, kernel: usize, stride: usize) -> usize {
    ((n.div_ceil(stride) - 1) * stride + kernel).saturating_sub(n) / 2
}

/// A convolution of each channel by itself, with ReLU6 behind it.
pub(super) struct Depthwise {
    /// `[kernel, kernel, channels]`.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    pub kernel: usize,
    pub stride: usize,
}

/// A map that is `side` places high and wide, of which some rows are there.
pub(super) struct Band<'a> {
    pub side: usize,
    pub rows: Range<usize>,
    pub values: &'a [f32],
}

impl Depthwise {
    pub fn channels(&self) -> usize {
        self.bias.len()
    }

    /// The rows of the input that some rows of the output need.
    pub fn needs(&self, side: usize, rows: &Range<usize>) -> Range<usize> {
        let pad = before(side, self.kernel, self.stride);
        let first = (rows.start * self.stride).saturating_sub(pad);
        let last = ((rows.end - 1) * self.stride + self.kernel).saturating_sub(pad);
        first..last.min(side)
    }

    /// Some rows of the output, from a band that holds what they need.
    pub fn apply(&self, band: &Band<'_>, rows: &Range<usize>, out: &mut [f32]) {
        let needs = self.needs(band.side, rows);
        let (channels, width) = (self.channels(), band.side.div_ceil(self.stride));
        assert!(band.rows.start <= needs.start && needs.end <= band.rows.end, "rows of a band");
        assert_eq!(band.values.len(), band.rows.len() * band.side * channels, "values of a band");
        assert_eq!(out.len(), rows.len() * width * channels, "values of the result");
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma") {
                // SAFETY: the processor has these instructions.
                return unsafe { wide(self, band, rows, out) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                return unsafe { narrow(self, band, rows, out) };
            }
        }
        body::<false>(self, band, rows, out);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,fma")]
fn wide(conv: &Depthwise, band: &Band<'_>, rows: &Range<usize>, out: &mut [f32]) {
    body::<true>(conv, band, rows, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn narrow(conv: &Depthwise, band: &Band<'_>, rows: &Range<usize>, out: &mut [f32]) {
    body::<true>(conv, band, rows, out);
}

/// Channels whose sums stay in registers over all places of the filter.
const LANES: usize = 48;

#[inline(always)]
fn body<const FUSED: bool>(conv: &Depthwise, band: &Band<'_>, rows: &Range<usize>, out: &mut [f32]) {
    let (channels, kernel, stride, side) = (conv.channels(), conv.kernel, conv.stride, band.side);
    let pad = before(side, kernel, stride);
    let width = side.div_ceil(stride);
    // Places of the filter that lie on the map when it begins `at - pad`.
    let on_map = |at: usize| pad.saturating_sub(at)..kernel.min(side + pad - at);
    for (y, out) in rows.clone().zip(out.chunks_exact_mut(width * channels)) {
        let down = on_map(y * stride);
        for (x, out) in out.chunks_exact_mut(channels).enumerate() {
            let across = on_map(x * stride);
            let column = x * stride + across.start - pad;
            let mut c = 0;
            while c + LANES <= channels {
                let mut sums: [f32; LANES] = conv.bias[c..c + LANES].try_into().expect("as many as there are lanes");
                for i in down.clone() {
                    let row = (y * stride + i - pad - band.rows.start) * side + column;
                    for (place, j) in across.clone().enumerate() {
                        let values = &band.values[(row + place) * channels + c..][..LANES];
                        let weights = &conv.weights[(i * kernel + j) * channels + c..][..LANES];
                        for lane in 0..LANES {
                            sums[lane] = if FUSED {
                                values[lane].mul_add(weights[lane], sums[lane])
                            } else {
                                values[lane] * weights[lane] + sums[lane]
                            };
                        }
                    }
                }
                out[c..c + LANES].iter_mut().zip(&sums).for_each(|(out, sum)| *out = sum.clamp(0.0, CAP));
                c += LANES;
            }
            for (c, out) in out.iter_mut().enumerate().skip(c) {
                let mut sum = conv.bias[c];
                for i in down.clone() {
                    let row = (y * stride + i - pad - band.rows.start) * side + column;
                    for (place, j) in across.clone().enumerate() {
                        let (value, weight) =
                            (band.values[(row + place) * channels + c], conv.weights[(i * kernel + j) * channels + c]);
                        sum = if FUSED { value.mul_add(weight, sum) } else { value * weight + sum };
                    }
                }
                *out = sum.clamp(0.0, CAP);
            }
        }
    }
}
