//! EfficientNet-Lite (M. Tan, Q. V. Le, EfficientNet, ICML 2019; the Lite form by R. Liu, TensorFlow blog, March 2020): inverted residual
//! bottlenecks without squeeze-and-excitation, ReLU6 in place of swish.
//!
//! For a picture of 224 x 224 x 3, values `(v - 127) / 128` with `v` from 0 to 255:
//!
//! - (1) stem: convolution 3 x 3, stride 2, to 32 channels; batch normalisation; ReLU6
//! - (2) sixteen blocks in seven stages. A block widens by a factor `e` with a 1 x 1 convolution (none where `e = 1`), filters each channel by
//!   itself with a `k x k` convolution of stride `s`, and narrows with a 1 x 1 convolution; batch normalisation after each, ReLU6 after the
//!   first two. Where `s = 1` and the width stays, the input is added. (The reference compares a list with 1 in the first block
//!   of a stage and adds nothing there; in this layout no such block has stride 1 and keeps its width.)
//! - (3) head: 1 x 1 convolution to 1280 channels, batch normalisation, ReLU6: a map of 7 x 7 x 1280, the regions
//! - (4) the mean of the map over its places, 1280 values: the vector of the picture
//! - (5) a linear layer to 1000 classes of ImageNet, which is not part of the features
//!
//! Padding is TensorFlow's `SAME`: of `max((ceil(n / s) - 1) s + k - n, 0)` zeros the smaller half comes first. Batch normalisation has
//! `eps = 1e-3` and is folded into the convolution before it: `w' = w g / sqrt(var + eps)`, `b' = b - mean g / sqrt(var + eps)`, in f64.
//! Names of arrays and the network's form are those of `efficientnet_lite_pytorch` 0.1.0 (its `model.py`), whose outputs the tests
//! compare with.
//!
//! Departures: the evaluation transform of the release is cubic interpolation of a central crop; here it is linear (see
//! [`picture`](crate::picture)), and of the whole picture unless [`Fit::Crop`](crate::picture::Fit) is asked for, so that regions cover what captions speak of.

mod conv;
mod layout;
mod network;

pub use layout::{LITE0, Layout, Stage};
#[cfg(feature = "transformers")]
pub(crate) use network::mean;
pub use network::{Lite, Scratch};

#[cfg(test)]
mod tests;
