//! Towers that see: CLIP, SigLIP, ViT, DINOv2.
//!
//! A picture `[s, s, 3]` is cut into `floor(s / p)^2` patches of `p x p` pixels:
//!
//! - (1) a patch becomes a token by a linear layer over its values; CLIP's has no bias
//! - (2) a class token stands before them (not in SigLIP), and each place has a position that is added
//! - (3) CLIP: layer normalisation; blocks; the vector is `W N(x_class)`, the regions are `x`
//! - (4) ViT, DINOv2: blocks and layer normalisation; the vector is the class token, the regions are the others
//! - (5) SigLIP: blocks and layer normalisation; the regions are the tokens `x`; a learnt query gets `a` of them by attention, and the vector is `a + M(N(a))`
//!
//! The regions are `last_hidden_state` of the reference. ViT's vector is its class token before the pooler that some files hold, which was
//! trained for classification.
//!
//! DINOv2 has positions for another size than it is mostly run at: they are interpolated as PyTorch does, cubic with a = -3/4, an output `i`
//! standing at `(i + 1/2) m / n - 1/2` of `m` places, places outside counting as those at the edge. The other towers are refused pictures of
//! another size, as the reference does.

use xmbench_datasets::{Error, Result};

use super::{
    arrays::{Arrays, CLIP, DINO, Form, VIT},
    config::Seeing,
    layers::{Attention, Block, Linear, Mlp, Norm, add},
};
use crate::weights::Weights;

/// A tower for pictures.
pub(super) struct Vision {
    side: usize,
    patch: usize,
    width: usize,
    patches: Linear,
    /// What stands before the patches; empty for nothing.
    class: Vec<f32>,
    /// `[tokens, width]`.
    positions: Vec<f32>,
    before: Option<Norm>,
    blocks: Vec<Block>,
    norm: Norm,
    head: Head,
}

/// From tokens to a vector.
enum Head {
    /// (3)
    Projected(Linear),
    /// (4)
    Class,
    /// (5)
    Asked(Box<Pool>),
}

/// A learnt query and what is done with its answer (5).
struct Pool {
    probe: Vec<f32>,
    attention: Attention,
    norm: Norm,
    mlp: Mlp,
}

/// What comes out.
pub(super) struct Looked {
    pub vector: Vec<f32>,
    /// `[cells, cells, width]`.
    pub tokens: Vec<f32>,
}

/// Only DINOv2's positions are made to fit.
fn fits(seeing: &Seeing, side: usize) -> Result<()> {
    if seeing.side == side {
        return Ok(());
    }
    let expected = format!("{} pixels a side, for which this network has positions", seeing.side);
    let next = "let preprocessor_config.json say the same as config.json";
    Err(Error::option("preprocessor_config.json", expected, format!("{side}"), next))
}

/// A convolution whose steps are as long as it is wide, as a linear layer over patches `[p, p, 3]`.
fn patches(from: &Arrays<'_>, name: &str, seeing: &Seeing, biased: bool) -> Result<Linear> {
    let (width, patch) = (seeing.form.width, seeing.patch);
    let stored = from.take(&format!("{name}.weight"), &[width, 3, patch, patch])?;
    let bias = if biased { from.take(&format!("{name}.bias"), &[width])? } else { Vec::new() };
    let places = patch * patch;
    let mut weights = Vec::with_capacity(stored.len());
    for filter in stored.chunks_exact(3 * places) {
        weights.extend((0..places).flat_map(|place| (0..3).map(move |channel| filter[channel * places + place])));
    }
    Ok(Linear::new(weights, bias, 3 * places))
}

impl Vision {
    /// CLIP's (3), for pictures of `side` pixels; `projected` values a vector.
    pub fn clip(weights: &Weights, seeing: &Seeing, side: usize, projected: usize) -> Result<Self> {
        fits(seeing, side)?;
        let from = Arrays::new(weights, "", "");
        let Form { width, eps, .. } = seeing.form;
        let cells = side / seeing.patch;
        let at = |name: &str| format!("vision_model.{name}");
        Ok(Self {
            side,
            patch: seeing.patch,
            width,
            patches: patches(&from, &at("embeddings.patch_embedding"), seeing, false)?,
            class: from.take(&at("embeddings.class_embedding"), &[width])?,
            positions: from.take(&at("embeddings.position_embedding.weight"), &[cells * cells + 1, width])?,
            // So it is spelt in every file.
            before: Some(Norm::read(&from, &at("pre_layrnorm"), width, eps)?),
            blocks: from.blocks(&at("encoder.layers"), &CLIP, &seeing.form, false)?,
            norm: Norm::read(&from, &at("post_layernorm"), width, eps)?,
            head: Head::Projected(Linear::read(&from, "visual_projection", [width, projected], false)?),
        })
    }

    /// SigLIP's (5).
    pub fn siglip(weights: &Weights, seeing: &Seeing, side: usize) -> Result<Self> {
        fits(seeing, side)?;
        let from = Arrays::new(weights, "", "");
        let Form { width, eps, inner, heads, activation, .. } = seeing.form;
        let cells = side / seeing.patch;
        let at = |name: &str| format!("vision_model.{name}");
        let [joined, bias] = [("weight", [3 * width, width].as_slice()), ("bias", &[3 * width])]
            .map(|(part, shape)| from.take(&at(&format!("head.attention.in_proj_{part}")), shape));
        let (joined, bias) = (joined?, bias?);
        let third = |number: usize| {
            let weights = joined[number * width * width..][..width * width].to_vec();
            Linear::new(weights, bias[number * width..][..width].to_vec(), width)
        };
        let linear = |name: &str, sizes| Linear::read(&from, &at(name), sizes, true);
        let out = linear("head.attention.out_proj", [width; 2])?;
        let pool = Pool {
            probe: from.take(&at("head.probe"), &[1, 1, width])?,
            attention: Attention { query: third(0), key: third(1), value: third(2), out, heads },
            norm: Norm::read(&from, &at("head.layernorm"), width, eps)?,
            mlp: Mlp {
                wide: linear("head.mlp.fc1", [width, inner])?,
                narrow: linear("head.mlp.fc2", [inner, width])?,
                activation,
            },
        };
        Ok(Self {
            side,
            patch: seeing.patch,
            width,
            patches: patches(&from, &at("embeddings.patch_embedding"), seeing, true)?,
            class: Vec::new(),
            positions: from.take(&at("embeddings.position_embedding.weight"), &[cells * cells, width])?,
            before: None,
            blocks: from.blocks(&at("encoder.layers"), &CLIP, &seeing.form, false)?,
            norm: Norm::read(&from, &at("post_layernorm"), width, eps)?,
            head: Head::Asked(Box::new(pool)),
        })
    }

    /// ViT (4), alone or under a classifier.
    pub fn vit(weights: &Weights, seeing: &Seeing, side: usize) -> Result<Self> {
        fits(seeing, side)?;
        Self::classed(weights, "vit.", seeing, side, &VIT)
    }

    /// DINOv2 (4), whose positions are made to fit.
    pub fn dino(weights: &Weights, seeing: &Seeing, side: usize) -> Result<Self> {
        Self::classed(weights, "dinov2.", seeing, side, &DINO)
    }

    fn classed(
        weights: &Weights,
        prefix: &str,
        seeing: &Seeing,
        side: usize,
        names: &super::arrays::Names,
    ) -> Result<Self> {
        let from = Arrays::new(weights, prefix, "embeddings.cls_token");
        let Form { width, eps, .. } = seeing.form;
        let (there, cells) = (seeing.side / seeing.patch, side / seeing.patch);
        if cells == 0 {
            let expected = format!("at least the {} pixels of a patch", seeing.patch);
            return Err(Error::option("preprocessor_config.json", expected, side.to_string(), "let it say more"));
        }
        let stored = from.take("embeddings.position_embeddings", &[1, there * there + 1, width])?;
        let mut positions = stored[..width].to_vec();
        positions.extend(interpolated(&stored[width..], there, cells, width));
        Ok(Self {
            side,
            patch: seeing.patch,
            width,
            patches: patches(&from, "embeddings.patch_embeddings.projection", seeing, true)?,
            class: from.take("embeddings.cls_token", &[1, 1, width])?,
            positions,
            before: None,
            blocks: from.blocks("encoder.layer", names, &seeing.form, false)?,
            norm: Norm::read(&from, "layernorm", width, eps)?,
            head: Head::Class,
        })
    }

    /// Cells a side of the map of patches.
    pub fn cells(&self) -> usize {
        self.side / self.patch
    }

    /// Pixels a side of a cell.
    pub fn cell(&self) -> usize {
        self.patch
    }

    /// Values of a token.
    pub fn token_width(&self) -> usize {
        self.width
    }

    /// What is made of a picture `[side, side, 3]`.
    pub fn look(&self, seen: &[f32]) -> Looked {
        let (cells, patch, side) = (self.cells(), self.patch, self.side);
        let mut cut = Vec::with_capacity(cells * cells * patch * patch * 3);
        for (y, x) in (0..cells).flat_map(|y| (0..cells).map(move |x| (y, x))) {
            for row in 0..patch {
                cut.extend_from_slice(&seen[((y * patch + row) * side + x * patch) * 3..][..patch * 3]);
            }
        }
        // (1), (2)
        let mut x = self.class.clone();
        x.extend(self.patches.apply(&cut));
        add(&mut x, &self.positions, &[]);
        if let Some(norm) = &self.before {
            norm.apply(&mut x);
        }
        self.blocks.iter().for_each(|block| block.apply(&mut x));
        match &self.head {
            // (3)
            Head::Projected(projection) => {
                let tokens = x.split_off(self.width);
                self.norm.apply(&mut x);
                Looked { vector: projection.apply(&x), tokens }
            }
            // (4)
            Head::Class => {
                self.norm.apply(&mut x);
                let tokens = x.split_off(self.width);
                Looked { vector: x, tokens }
            }
            // (5)
            Head::Asked(pool) => {
                self.norm.apply(&mut x);
                let mut vector = pool.attention.apply(&pool.probe, &x, false);
                let mut normed = vector.clone();
                pool.norm.apply(&mut normed);
                add(&mut vector, &pool.mlp.apply(&normed), &[]);
                Looked { vector, tokens: x }
            }
        }
    }
}

/// Positions `[m, m, width]` as `[n, n, width]`.
fn interpolated(positions: &[f32], m: usize, n: usize, width: usize) -> Vec<f32> {
    if m == n {
        return positions.to_vec();
    }
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let taps = |i: usize| {
        let at = (i as f64 + 0.5) * (m as f64 / n as f64) - 0.5;
        let (first, part) = (at.floor() as isize, at - at.floor());
        let weights = [far(part + 1.0), near(part), near(1.0 - part), far(2.0 - part)];
        let place = |tap: isize| (first - 1 + tap).clamp(0, m as isize - 1) as usize;
        [0, 1, 2, 3].map(|tap| (place(tap as isize), weights[tap]))
    };
    let mut out = Vec::with_capacity(n * n * width);
    for (down, across) in (0..n).flat_map(|y| (0..n).map(move |x| (taps(y), taps(x)))) {
        out.extend((0..width).map(|channel| {
            let line = |y: usize| -> f64 {
                across.iter().map(|&(x, weight)| weight * f64::from(positions[(y * m + x) * width + channel])).sum()
            };
            down.iter().map(|&(y, weight)| weight * line(y)).sum::<f64>() as f32
        }));
    }
    out
}
