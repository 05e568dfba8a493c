//! The arrays of a network inside a file that may hold more than it.

use xmbench_datasets::Result;

use super::layers::{Activation, Attention, Block, Linear, Mlp, Norm};
use crate::weights::Weights;

/// Arrays whose names begin alike.
#[derive(Clone, Copy)]
pub(super) struct Arrays<'a> {
    weights: &'a Weights,
    prefix: &'a str,
}

/// How the blocks of a family are named, and what they have.
pub(super) struct Names {
    attention: [&'static str; 4],
    mlp: [&'static str; 2],
    norms: [&'static str; 2],
    scales: Option<[&'static str; 2]>,
    after: bool,
}

/// CLIP and SigLIP, both towers.
pub(super) const CLIP: Names = Names {
    attention: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
    mlp: ["mlp.fc1", "mlp.fc2"],
    norms: ["layer_norm1", "layer_norm2"],
    scales: None,
    after: false,
};

/// ViT.
pub(super) const VIT: Names = Names {
    attention: [
        "attention.attention.query",
        "attention.attention.key",
        "attention.attention.value",
        "attention.output.dense",
    ],
    mlp: ["intermediate.dense", "output.dense"],
    norms: ["layernorm_before", "layernorm_after"],
    scales: None,
    after: false,
};

/// DINOv2.
pub(super) const DINO: Names = Names {
    mlp: ["mlp.fc1", "mlp.fc2"],
    norms: ["norm1", "norm2"],
    scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    ..VIT
};

/// BERT.
pub(super) const BERT: Names = Names {
    attention: ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
    mlp: ["intermediate.dense", "output.dense"],
    norms: ["attention.output.LayerNorm", "output.LayerNorm"],
    scales: None,
    after: true,
};

/// The sizes of a tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Form {
    pub width: usize,
    pub inner: usize,
    pub layers: usize,
    pub heads: usize,
    pub activation: Activation,
    pub eps: f64,
    /// Whether queries, keys and values have a bias.
    pub biased: bool,
}

impl<'a> Arrays<'a> {
    /// The arrays of a network that stands alone, or inside another under `prefix`.
    pub fn new(weights: &'a Weights, prefix: &'a str, one: &str) -> Self {
        let prefix = if weights.has(one) { "" } else { prefix };
        Self { weights, prefix }
    }

    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.weights.take(&format!("{}{name}", self.prefix), shape)
    }

    /// The blocks under `at`, one behind the other.
    pub fn blocks(&self, at: &str, names: &Names, form: &Form, causal: bool) -> Result<Vec<Block>> {
        (0..form.layers).map(|layer| self.block(&format!("{at}.{layer}"), names, form, causal)).collect()
    }

    fn block(&self, at: &str, names: &Names, form: &Form, causal: bool) -> Result<Block> {
        let width = form.width;
        let linear = |name: &str, sizes, biased| Linear::read(self, &format!("{at}.{name}"), sizes, biased);
        let norm = |name: &str| Norm::read(self, &format!("{at}.{name}"), width, form.eps);
        let [query, key, value, out] = names.attention;
        let attention = Attention {
            query: linear(query, [width; 2], form.biased)?,
            key: linear(key, [width; 2], form.biased)?,
            value: linear(value, [width; 2], form.biased)?,
            out: linear(out, [width; 2], true)?,
            heads: form.heads,
        };
        let mlp = Mlp {
            wide: linear(names.mlp[0], [width, form.inner], true)?,
            narrow: linear(names.mlp[1], [form.inner, width], true)?,
            activation: form.activation,
        };
        let scale = |name: &str| self.take(&format!("{at}.{name}"), &[width]);
        let scales = names.scales.map(|[one, two]| Ok([scale(one)?, scale(two)?])).transpose()?;
        let norms = [norm(names.norms[0])?, norm(names.norms[1])?];
        Ok(Block { attention, mlp, norms, scales, after: names.after, causal })
    }
}
