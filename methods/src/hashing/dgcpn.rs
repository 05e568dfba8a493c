//! Deep graph-neighbour coherence preserving network (Yu, Zhou, Zhan, Tao, AAAI 2021): an affinity that asks how many neighbours two pairs
//! have in common in the whole training set, and training that is half real and half binary.
//!
//! With cosines `C_I`, `C_T` of the features of all training pairs ([`graph`]) and those of the codes of a batch of `m` pairs, `C_IT = cos(H_I, H_T)`
//! and so on:
//!
//! ```text
//! P = a1 C_T + (1 - a1) C_I                                                                       (1)
//! Q = P with all but a share `neighbours` of each row, and the largest entry, set to 0; rows over their sums   (2)
//! G = scale k Q Qᵀ,   k the entries that (2) leaves                                               (3)
//! S = 2 ((1 - a2) P + a2 G) - 1                                                                   (4)
//! L = |diag C_IT - K|² + dw (|C_TT - S|² + |C_IT - S|² + |C_II - S|²), diagonals left out         (5)
//!   + cw (|C_IT - C_II|² + |C_IT - C_TT|² + |C_II - C_TT|² + |C_IT - C_ITᵀ|²)                     (6)
//! ```
//!
//! where `|.|²` is a mean, over all `m²` entries in (5) too. The largest entry of a row is the pair itself. Each batch makes three steps
//! (`half_binary`): all weights by the relaxed codes; the image network, text codes replaced by their signs; the text network, image
//! codes by theirs. Signs have no gradient.
//!
//! The released code (Atmegal/DGCPN@9f62c56) counts what (2) removes, `knn_number` = 3000 of 5000; the paper counts what stays. Here it
//! is a share, 0.4, and `scale` is in units of what stays: 2 is its 4000.
//!
//! **Memory.** The affinity of `n` training pairs takes `4 n²` bytes, twice that while it is made: 100 MB for the paper's 5000. Up to
//! `affinity_rows` pairs it is made once, before training. Of more, that many are drawn, and neighbours are sought among these: rows of (1) and (2) are
//! then made batch by batch from their features, and no `n²` is.
//!
//! Departures: features given; both networks as wide as those on VGG features there; PyTorch's initial weights for the last layer of texts, too; one rule for
//! which epoch is kept. Released are settings for MIRFlickr.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use self::graph::Graph;
use super::{
    cosines::Cosines,
    golden::{Inputs, values},
    networks::{Networks, Options},
    settings,
};
use crate::{
    Result,
    card::Card,
    golden::{Answer, Case, Operation},
    params::out_of_range,
    train::{Moves, Phase, Schedule},
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

pub mod graph;

const NAME: &str = "dgcpn";

/// The method.
pub static DGCPN: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Weight of the texts in equation (1).
    pub a1: f64,
    /// Weight of the neighbours in equation (4).
    pub a2: f64,
    /// Share of a row that equation (2) leaves.
    pub neighbours: f64,
    /// Scale of equation (3).
    pub scale: f64,
    /// `K`, what cosines of pairs are drawn to.
    pub pair_target: f64,
    /// Weight of the affinity in equation (5).
    pub dw: f64,
    /// Weight of equation (6).
    pub cw: f64,
    /// Whether a batch makes all three steps.
    pub half_binary: bool,
    /// Training pairs among which neighbours are sought.
    pub affinity_rows: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            a1: 0.01,
            a2: 0.3,
            neighbours: 0.4,
            scale: 2.0,
            pair_target: 1.5,
            dw: 1.0,
            cw: 1.0,
            half_binary: true,
            affinity_rows: 5000,
        }
    }
}

impl Loss for Params {
    type Body = Networks;
    /// Only while training.
    type Head = Option<Graph>;

    fn card() -> &'static Card {
        crate::card!("dgcpn.toml")
    }

    fn shared() -> Shared<Networks> {
        let options = Options { image_hidden: 4096, dropout: 0.5, annealed: false, ..Options::default() };
        let schedule = Schedule { validate_every: 1, patience: 10, ..settings::schedule(100, 0.005) };
        Shared { options, schedule, negatives: None }
    }

    fn check(&self, _: &Shared<Networks>) -> Result<()> {
        let Self { a1, a2, neighbours, scale, pair_target, dw, cw, affinity_rows, .. } = *self;
        settings::shares(NAME, &[("a1", a1), ("a2", a2)])?;
        settings::not_negative(NAME, &[("scale", scale), ("pair_target", pair_target), ("dw", dw), ("cw", cw)])?;
        if !(neighbours > 0.0 && neighbours <= 1.0) {
            return Err(out_of_range(NAME, "neighbours", "a share above 0 and at most 1", neighbours));
        }
        match affinity_rows {
            2..=50_000 => Ok(()),
            rows => Err(out_of_range(NAME, "affinity_rows", "2 to 50000 (4 bytes times its square)", rows)),
        }
    }

    fn phases(&self) -> Vec<Phase> {
        let under = |start: &str| Phase { weights: Moves::Under(vec![start.into()]), ..Phase::default() };
        match self.half_binary {
            true => vec![Phase::default(), under("image."), under("text.")],
            false => vec![Phase::default()],
        }
    }

    fn head(&self, fitting: &mut Fitting<'_, Networks>) -> Result<Self::Head> {
        let training = fitting.training;
        training.map(|training| Graph::new(self, fitting.body, training)).transpose()
    }

    fn loss(&self, graph: &Self::Head, batch: &Batch<'_, Networks>) -> Result<Tensor> {
        let graph = graph.as_ref().expect("made for training");
        let target = graph.affinity(self, batch)?;
        let [images, texts] = batch.relaxed()?;
        let sign = |codes: &Tensor| -> Result<Tensor> { Ok(codes.sign()?.detach()) };
        let [images, texts] = match batch.phase {
            0 => [images, texts],
            1 => [images, sign(&texts)?],
            _ => [sign(&images)?, texts],
        };
        self.parts(&Cosines::of(&images, &texts)?, &target)?.total(self)
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "hash.dgcpn", run: golden, ignored: &[] }]
    }
}

/// The terms of equations (5) and (6), unweighted.
struct Parts {
    pair: Tensor,
    image_image: Tensor,
    image_text: Tensor,
    text_text: Tensor,
    consistency: Tensor,
}

impl Params {
    fn parts(&self, codes: &Cosines, target: &Tensor) -> Result<Parts> {
        let Cosines { image_image, image_text, text_text, .. } = codes;
        let (m, dtype) = (target.dim(0)?, image_text.dtype());
        let others = Tensor::eye(m, dtype, target.device())?.affine(-1.0, 1.0)?;
        let target = target.to_dtype(dtype)?;
        let square = |x: Tensor| -> Result<Tensor> { Ok(x.sqr()?.mean_all()?) };
        let against = |cosines: &Tensor| square(((cosines - &target)? * &others)?);
        let mut consistency = square((image_text - image_image)?)?;
        for other in [(image_text - text_text)?, (image_image - text_text)?, (image_text - image_text.t()?)?] {
            consistency = (consistency + square(other)?)?; // (6)
        }
        Ok(Parts {
            pair: square((codes.paired()? - self.pair_target)?)?,
            image_image: against(image_image)?, // (5)
            image_text: against(image_text)?,
            text_text: against(text_text)?,
            consistency,
        })
    }
}

impl Parts {
    /// Equations (5) and (6).
    fn total(&self, Params { dw, cw, .. }: &Params) -> Result<Tensor> {
        let affinity = ((&self.text_text + &self.image_text)? + &self.image_image)?;
        Ok(((&self.pair + (affinity * *dw)?)? + (&self.consistency * *cw)?)?)
    }
}

/// Golden operation `hash.dgcpn`.
fn golden(case: &Case) -> Result<Answer> {
    case.only(&["K", "a1", "a2", "cw", "dw", "knn_number", "scale"])?;
    let inputs = Inputs::read(case)?;
    let params = Params {
        a1: case.config("a1")?,
        a2: case.config("a2")?,
        pair_target: case.config("K")?,
        dw: case.config("dw")?,
        cw: case.config("cw")?,
        ..Params::default()
    };
    let [images, texts] = &inputs.features;
    let pairs = graph::similar([images, texts], [images, texts], params.a1)?;
    let kept = graph::neighbours(&pairs, case.config("knn_number")?)?;
    let coherent = graph::coherent(&kept, &kept, case.config("scale")?)?;
    let target = graph::joined(&pairs, &coherent, params.a2)?;
    let parts = params.parts(&Cosines::of(&inputs.codes[0], &inputs.codes[1])?, &target)?;
    let total = parts.total(&params)?;
    let answer = Answer::default()
        .with("out.similarity_pair", values(&pairs.to_dtype(DType::F64)?)?)
        .with("out.graph", values(&coherent.to_dtype(DType::F64)?)?)
        .with("out.similarity", values(&target.to_dtype(DType::F64)?)?)
        .with("out.loss_pair", values(&parts.pair)?)
        .with("out.loss_ii", values(&parts.image_image)?)
        .with("out.loss_it", values(&parts.image_text)?)
        .with("out.loss_tt", values(&parts.text_text)?)
        .with("out.loss_consistency", values(&parts.consistency)?)
        .with("out.loss", values(&total)?);
    inputs.with_gradients(answer, &total)
}

#[cfg(test)]
mod tests;
