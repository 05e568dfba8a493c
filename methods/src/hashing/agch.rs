//! Aggregation-based graph convolutional hashing (Zhang, Li, Huang, Xu, IEEE TMM 24, 2022): one affinity of both modalities' features joined,
//! graph convolutions over a batch that spread features along it, and a fused code that both modalities are drawn to.
//!
//! For a batch of `m` pairs with affinity features `F_v`, `F_t`, rows of hat(.) of unit norm, and network inputs `X_v`, `X_t`:
//!
//! ```text
//! z_i = [g_v hat(f_v,i), g_t hat(f_t,i)],   C_ij = z_i . z_j,   D_ij = exp(-|z_i - z_j| / rho)              (1)
//! S   = C (.) D,   A = N^-1/2 S N^-1/2,   N the row sums of S on its diagonal                               (2)
//! G_k = tanh(relu(A relu(A X_k W_1) W_2) W_3 + w)    a graph code of each modality, k = v, t                (3)
//! H_h = tanh([X_v, X_t] W + w)                       the fused code                                        (4)
//! L = alpha sum over k = v, t, h of |2S - 1 - cos(H_k, H_k)|²
//!   + delta sum over k = v, t of (|2S - 1 - cos(G_k, G_k)|² + |G_k - H_k|²)
//!   + beta sum over k = v, t of |2S - 1 - cos(H_k, H_h)|² + lambda sum over k = v, t of |H_k - H_h|²         (5)
//! ```
//!
//! In (5) codes are rows of unit length; `|.|²` is the mean over all `m²` entries of a matrix of cosines and the mean over items of squared
//! distances of codes. The paper prints sums, which its rates do not fit. Only the networks of the codes `H_v`, `H_t` are used
//! afterwards: graph and fusion are there to train them.
//!
//! The exponent of (1) is printed in two ways; the paper's worked example (0.92 at `rho` = 4) fixes it to the plain distance. The product of (1)
//! weighs cosines by `g_v²` and `g_t²`, the text by `g_v` and `g_t`: `inner` is `squared` or `plain`, or `unit`, the squares over their sum, whose
//! maximum is 1 whatever the weights.
//!
//! No released code; an unofficial program (natsuki221/AGCH-Impl) was looked at. Departures: those of DJSRH; graph and fusion
//! read the inputs that are given, not the text network's hidden layer; a negative entry of `S`, which centred features may have, is
//! no edge in (2).

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use super::{
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    loss::{cosines, mixture, reconstruct, squared_distances},
    nn::{Linear, Weights, unit},
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

const NAME: &str = "agch";

/// The method.
pub static AGCH: Trained<Params> = Trained::new();

/// Its parameters; the defaults are those for Wikipedia.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// `g_v` of equation (1).
    pub image_weight: f64,
    /// `g_t` of equation (1).
    pub text_weight: f64,
    /// How the weights enter the product of equation (1).
    pub inner: Inner,
    /// `rho` of equation (1).
    pub rho: f64,
    /// Weight of the codes' affinity in equation (5).
    pub alpha: f64,
    /// Weight of the affinity with the fused code in equation (5).
    pub beta: f64,
    /// Weight of the graph in equation (5); 0 leaves it out.
    pub delta: f64,
    /// Weight of the fused code in equation (5).
    pub lambda: f64,
    /// Width of the graph's layers.
    pub graph_hidden: usize,
}

/// What multiplies the cosines of images and of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inner {
    /// `g_v²` and `g_t²`.
    Squared,
    /// `g_v` and `g_t`.
    Plain,
    /// `g_v²` and `g_t²` over their sum.
    Unit,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            image_weight: 1.0,
            text_weight: 0.8,
            inner: Inner::Squared,
            rho: 4.0,
            alpha: 0.4,
            beta: 0.3,
            delta: 0.01,
            lambda: 5.0,
            graph_hidden: 2048,
        }
    }
}

/// Equation (3) of one modality.
pub struct Convolutions {
    first: Tensor,
    second: Tensor,
    last: Linear,
}

impl Convolutions {
    fn new(weights: &mut Weights, name: &str, [input, hidden, bits]: [usize; 3]) -> Result<Self> {
        let mut layer = |at: &str, rows: usize| {
            weights.uniform(&format!("{name}.{at}.weight"), &[rows, hidden], 1.0 / (rows as f64).sqrt())
        };
        let (first, second) = (layer("0", input)?, layer("1", hidden)?);
        Ok(Self { first, second, last: Linear::new(weights, &format!("{name}.2"), hidden, bits)? })
    }

    fn forward(&self, adjacency: &Tensor, inputs: &Tensor) -> Result<Tensor> {
        let first = adjacency.matmul(&inputs.matmul(&self.first)?)?.relu()?;
        let second = adjacency.matmul(&first.matmul(&self.second)?)?.relu()?;
        Ok(self.last.forward(&second)?.tanh()?)
    }
}

/// What makes the graph codes, if they count, and the fused code.
pub struct Head {
    graph: Option<[Convolutions; 2]>,
    fusion: Linear,
}

impl Loss for Params {
    type Body = Networks;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("agch.toml")
    }

    fn shared() -> Shared<Networks> {
        let options = Options { annealed: false, ..Options::default() };
        Shared { options, schedule: settings::schedule(150, 0.01), negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { image_weight, text_weight, rho, alpha, beta, delta, lambda, .. } = *self;
        settings::not_negative(NAME, &[("image_weight", image_weight), ("text_weight", text_weight)])?;
        settings::not_negative(NAME, &[("alpha", alpha), ("beta", beta), ("delta", delta), ("lambda", lambda)])?;
        if image_weight + text_weight == 0.0 {
            return Err(out_of_range(NAME, "image_weight", "above 0 where `text_weight` is 0", image_weight));
        }
        if !(rho > 0.0 && rho.is_finite()) {
            return Err(out_of_range(NAME, "rho", "a number above 0", rho));
        }
        match self.graph_hidden {
            1..=65_536 => Ok(()),
            width => Err(out_of_range(NAME, "graph_hidden", "1 to 65536", width)),
        }
    }

    /// The graph learns at a tenth of the texts' rate, as in the paper.
    fn rate(&self, weight: &str, _: &Shared<Networks>) -> f64 {
        if weight.starts_with("graph.") { 0.1 } else { 1.0 }
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Head> {
        let (bits, [images, texts]) = (fitting.body.bits(), fitting.body.widths());
        let weights = &mut *fitting.weights;
        let fusion = Linear::new(weights, "fusion", images + texts, bits)?;
        let mut convolutions = |name, width| Convolutions::new(weights, name, [width, self.graph_hidden, bits]);
        let graph = match self.delta > 0.0 {
            true => Some([convolutions("graph.image", images)?, convolutions("graph.text", texts)?]),
            false => None,
        };
        Ok(Head { graph, fusion })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let affinity = self.affinity(&batch.affinity_features()?)?;
        let inputs = batch.inputs()?;
        let fused = head.fusion.forward(&Tensor::cat(&inputs, 1)?)?.tanh()?; // (4)
        let graph = match &head.graph {
            Some([images, texts]) => {
                let adjacency = adjacency(&affinity)?;
                Some([images.forward(&adjacency, &inputs[0])?, texts.forward(&adjacency, &inputs[1])?]) // (3)
            }
            None => None,
        };
        self.total(&batch.relaxed()?, &fused, graph.as_ref(), &affinity.affine(2.0, -1.0)?)
    }
}

impl Params {
    /// `S` of equation (2), without gradient.
    fn affinity(&self, [images, texts]: &[Tensor; 2]) -> Result<Tensor> {
        let (images, texts) = (unit(&images.detach())?, unit(&texts.detach())?);
        let (g_v, g_t) = (self.image_weight, self.text_weight);
        let [first, second] = match self.inner {
            Inner::Squared => [g_v * g_v, g_t * g_t],
            Inner::Plain => [g_v, g_t],
            Inner::Unit => [g_v * g_v, g_t * g_t].map(|square| square / (g_v * g_v + g_t * g_t)),
        };
        let product = mixture(&[(&cosines(&images, &images)?, first), (&cosines(&texts, &texts)?, second)])?;
        let joined = Tensor::cat(&[(images * g_v)?, (texts * g_t)?], D::Minus1)?;
        let distances = squared_distances(&joined, &joined)?.sqrt()?;
        Ok((product * (distances / -self.rho)?.exp()?)?.detach()) // (1), (2)
    }

    /// Equation (5).
    fn total(
        &self,
        codes: &[Tensor; 2],
        fused: &Tensor,
        graph: Option<&[Tensor; 2]>,
        target: &Tensor,
    ) -> Result<Tensor> {
        let apart = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            Ok((unit(a)? - unit(b)?)?.sqr()?.sum(D::Minus1)?.mean_all()?)
        };
        let alike = |a: &Tensor, b: &Tensor| reconstruct(&cosines(a, b)?, target);
        let mut sum = (alike(fused, fused)? * self.alpha)?;
        for code in codes {
            sum = (sum + (alike(code, code)? * self.alpha)?)?;
            sum = (sum + (alike(code, fused)? * self.beta)?)?;
            sum = (sum + (apart(code, fused)? * self.lambda)?)?;
        }
        for (spread, code) in graph.into_iter().flatten().zip(codes) {
            sum = (sum + ((alike(spread, spread)? + apart(spread, code)?)? * self.delta)?)?;
        }
        Ok(sum)
    }
}

/// `A` of equation (2) for `S [m, m]`; an item without an edge has none.
fn adjacency(affinity: &Tensor) -> Result<Tensor> {
    let edges = affinity.relu()?;
    let scale = edges.sum_keepdim(D::Minus1)?.maximum(1e-12)?.sqrt()?.recip()?;
    Ok(edges.broadcast_mul(&scale)?.broadcast_mul(&scale.t()?)?)
}

#[cfg(test)]
mod tests;
