//! The graph of a batch's instances, equations (8) to (15): who is connected, how relevant they are to each other, and what vectors
//! become when they see each other.

use candle_core::{D, Device, Tensor};
use candle_nn::ops;
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Stream;

use super::matching::{Asked, Side, matching};
use crate::{
    Error, Result,
    linalg::gemm::{Mat, MatMut, gemm},
    loss::squared_distances,
    nn::{Init, Lengths, Mlp, MlpSettings, Relating, RelatingLayer, Weights, unit},
};

/// How images and texts see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interaction {
    /// Equation (13).
    Fusion,
    /// Equation (14).
    Standalone,
    /// Not at all: there is no graph.
    None,
}

/// What a graph is made by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub interaction: Interaction,
    /// Layers of (13), or of each half of (14).
    pub layers: usize,
    /// Largest similarities that (11) sees.
    pub top: usize,
    /// Share of a row that is connected.
    pub connected: f64,
    /// `mu` of (12).
    pub mask_weight: f64,
    /// Whether (13) sees vectors of unit length.
    pub unit: bool,
    /// `sigma` of (10).
    pub sigma: f64,
    /// `T` of (15).
    pub temperature: f64,
}

/// The vectors of a batch, with the fragments that they were made of.
pub struct Nodes<'a> {
    /// Of unit length, `[n, d]` each: images and texts.
    pub unit: [&'a Tensor; 2],
    /// Before they were scaled.
    pub pooled: [&'a Tensor; 2],
    /// Regions, and words.
    pub fragments: [Side<'a>; 2],
    /// Words of each text among its rows.
    pub real: &'a [usize],
}

/// Connections and relations of all instances, blocks `[[i2i, i2t], [t2i, t2t]]`, a row the one that sees.
pub struct Links {
    /// 1 where a row sees a column, u8 `[2n, 2n]`.
    pub connect: Tensor,
    /// Equations (10) and (11), `[2n, 2n]`.
    pub relation: Tensor,
    /// Equation (15).
    pub regulariser: Tensor,
}

/// What is learnt beside the encoders. Weights `graph.t2i`, `graph.i2t` (11), `graph.fusion.L` (13) or `graph.intra.L` and
/// `graph.cross.L` (14).
pub struct Graph {
    settings: Settings,
    /// Equation (11), texts and images asking.
    relevance: [Mlp; 2],
    layers: Vec<Vec<RelatingLayer>>,
}

impl Graph {
    pub fn new(weights: &mut Weights, settings: Settings, shape: Relating) -> Result<Self> {
        let top = settings.top;
        let mut relevance = |name: &str| {
            let shape = MlpSettings { init: Init::Pytorch, ..MlpSettings::default() };
            Mlp::new(weights, &format!("graph.{name}"), &[top, top, 1], shape)
        };
        let relevance = [relevance("t2i")?, relevance("i2t")?];
        let names: &[&str] = match settings.interaction {
            Interaction::Fusion => &["fusion"],
            Interaction::Standalone => &["intra", "cross"],
            Interaction::None => &[],
        };
        let mut layers = |name: &&str| -> Result<Vec<RelatingLayer>> {
            let layer = |l| RelatingLayer::new(weights, &format!("graph.{name}.{l}"), shape);
            (0..settings.layers).map(layer).collect()
        };
        let layers = names.iter().map(&mut layers).collect::<Result<_>>()?;
        Ok(Self { settings, relevance, layers })
    }

    /// Equations (8) to (11), and (15).
    pub fn links(&self, nodes: &Nodes<'_>) -> Result<Links> {
        let [v, t] = nodes.unit;
        let (n, device) = (v.dim(0)?, v.device());
        if v.dims() != t.dims() || n == 0 {
            return Err(Error::Numeric(format!(
                "instance graph: expected as many images as texts and at least one, found {:?} and {:?}",
                v.dims(),
                t.dims()
            )));
        }
        let Settings { top, connected, sigma, temperature, .. } = self.settings;
        let pairs = matching(&nodes.fragments[0], &nodes.fragments[1], nodes.real, top)?;
        let relevance = |mlp: &Mlp, asked: &Asked| -> Result<Tensor> {
            let input =
                Tensor::from_slice(&asked.top, (n * n, top), &Device::Cpu)?.to_device(device)?.to_dtype(v.dtype())?;
            let mean = Tensor::from_slice(&asked.mean, (n, n), &Device::Cpu)?.to_device(device)?.to_dtype(v.dtype())?;
            Ok((mlp.forward(&input, None)?.reshape((n, n))? + mean)?) // (11)
        };
        let (t2i, i2t) = (relevance(&self.relevance[0], &pairs.t2i)?, relevance(&self.relevance[1], &pairs.i2t)?);
        let near = |x: &Tensor, y: &Tensor| -> Result<Tensor> { Ok((distances(x, y)? / -sigma)?.exp()?) }; // (10)
        let blocks = |[a, b, c, d]: [&Tensor; 4]| -> Result<Tensor> {
            Ok(Tensor::cat(&[Tensor::cat(&[a, b], 1)?, Tensor::cat(&[c, d], 1)?], 0)?)
        };
        let relation = blocks([&near(v, v)?, &i2t, &t2i, &near(t, t)?])?;
        let wide = |mean: &[f32]| mean.iter().map(|&mean| f64::from(mean)).collect::<Vec<f64>>();
        let nearest = |scores: Vec<f64>| nearest(&scores, n, connected, device);
        let (i2i, t2t) = (nearest(cosines(v)?)?, nearest(cosines(t)?)?); // (8)
        let connect = blocks([&i2i, &nearest(wide(&pairs.i2t.mean))?, &nearest(wide(&pairs.t2i.mean))?, &t2t])?; // (9)
        let guide = near(&v.detach(), &t.detach())?;
        let one = divergence(&i2t, &guide, temperature)?;
        let regulariser = (one + divergence(&t2i, &guide.t()?.contiguous()?, temperature)?)?; // (15)
        Ok(Links { connect, relation, regulariser })
    }

    /// Images and texts after they have seen each other, of unit length, `[n, d]` each. With a stream it is training.
    pub fn enhanced(&self, nodes: &Nodes<'_>, links: &Links, mut training: Option<&mut Stream>) -> Result<[Tensor; 2]> {
        let from = if self.settings.unit { &nodes.unit } else { &nodes.pooled };
        let all = Tensor::cat(from, 0)?;
        let n = all.dim(0)? / 2;
        let weighted = (&links.relation * self.settings.mask_weight)?;
        let one = Lengths::new([2 * n])?;
        let mut seen: Option<Tensor> = None;
        for (which, layers) in self.layers.iter().enumerate() {
            let open = match self.settings.interaction {
                Interaction::Standalone => links.connect.mul(&within(n, which == 0, all.device())?)?,
                _ => links.connect.clone(),
            };
            let closed = Tensor::full(f32::NEG_INFINITY, weighted.shape(), all.device())?.to_dtype(weighted.dtype())?;
            let mask = open.where_cond(&weighted, &closed)?; // (12)
            let mut x = all.clone();
            for layer in layers {
                x = layer.forward(&x, &one, Some(&mask), training.as_deref_mut())?;
            }
            seen = Some(match seen {
                Some(before) => (before + x)?, // (14)
                None => x,                     // (13)
            });
        }
        let seen = unit(&seen.unwrap_or(all))?;
        Ok([seen.narrow(0, 0, n)?, seen.narrow(0, n, n)?])
    }

    /// Whether (14) sees a modality at a time.
    #[cfg(test)]
    pub fn parts(&self) -> usize {
        self.layers.len()
    }
}

/// 1 within a modality, or between the two, u8 `[2n, 2n]`.
fn within(n: usize, same: bool, device: &Device) -> Result<Tensor> {
    let part = |i: usize| (0..2 * n).map(move |j| u8::from(((i < n) == (j < n)) == same));
    Ok(Tensor::from_vec((0..2 * n).flat_map(part).collect::<Vec<u8>>(), (2 * n, 2 * n), device)?)
}

/// `|x_i - y_j|`, with a gradient of 0 where it is 0.
fn distances(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let squares = squared_distances(x, y)?;
    let zero = squares.eq(0.0)?;
    // The root's slope at 0 is infinite, and infinity times 0 no number: it is taken elsewhere.
    let root = zero.where_cond(&squares.ones_like()?, &squares)?.sqrt()?;
    Ok(zero.where_cond(&root.zeros_like()?, &root)?)
}

/// Products of all rows, `[n, n]`: in f64, so that equal rows have equal products.
fn cosines(x: &Tensor) -> Result<Vec<f64>> {
    let (n, d) = x.dims2()?;
    let rows = x.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let mut out = vec![0.0; n * n];
    gemm(1.0, Mat::new(&rows, n, d), Mat::new(&rows, n, d).t(), 0.0, MatMut::new(&mut out, n, n));
    Ok(out)
}

/// Equations (8) and (9): 1 where an entry is not below the `k`-th largest of its row, `k` a share of the row and at least 1; u8
/// `[n, n]`.
fn nearest(scores: &[f64], n: usize, share: f64, device: &Device) -> Result<Tensor> {
    let k = ((n as f64 * share) as usize).clamp(1, n);
    let mut connect = Vec::with_capacity(n * n);
    for row in scores.chunks_exact(n) {
        let mut sorted = row.to_vec();
        sorted.sort_unstable_by(|a, b| b.total_cmp(a));
        connect.extend(row.iter().map(|&score| u8::from(score >= sorted[k - 1])));
    }
    Ok(Tensor::from_vec(connect, (n, n), device)?)
}

/// One direction of (15), rows summed over `n`.
fn divergence(relation: &Tensor, guide: &Tensor, temperature: f64) -> Result<Tensor> {
    let log = |x: &Tensor| ops::log_softmax(&(x / temperature)?, D::Minus1);
    let (r, g) = (log(relation)?, log(guide)?);
    let n = relation.dim(0)? as f64;
    Ok(((r.exp()? * (&r - g)?)?.sum_all()? * (temperature * temperature / n))?)
}

#[cfg(test)]
mod tests {
    use xmbench_datasets::random::Seed;

    use super::*;

    fn rows(label: &str, n: usize) -> Tensor {
        let mut stream = Seed(9).stream(&[label]);
        let values: Vec<f32> = (0..n * 6).map(|_| stream.normal() as f32).collect();
        unit(&Tensor::from_vec(values, (n, 6), &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn standalone_halves_see_nothing_of_each_other() {
        let settings = Settings {
            interaction: Interaction::Standalone,
            layers: 1,
            top: 2,
            connected: 0.5,
            mask_weight: 1.5,
            unit: true,
            sigma: 1.0,
            temperature: 1.0,
        };
        let shape = Relating { width: 6, heads: 2, hidden: 6, dropout: 0.0 };
        let graph = Graph::new(&mut Weights::new(Seed(1), &Device::Cpu), settings, shape).unwrap();
        let (v, t) = (rows("v", 4), rows("t", 4));
        let (regions, words) = (rows("regions", 12), rows("words", 8));
        let (each, texts) = (Lengths::new([3; 4]).unwrap(), Lengths::new([1, 4, 2, 1]).unwrap());
        let nodes = Nodes {
            unit: [&v, &t],
            pooled: [&v, &t],
            fragments: [Side { fragments: &regions, lengths: &each }, Side { fragments: &words, lengths: &texts }],
            real: texts.as_slice(),
        };
        let links = graph.links(&nodes).unwrap();
        let seen = Tensor::cat(&graph.enhanced(&nodes, &links, None).unwrap(), 0).unwrap().to_vec2::<f32>().unwrap();
        let (connect, relation) = (links.connect.to_vec2::<u8>().unwrap(), links.relation.to_vec2::<f32>().unwrap());
        let all = Tensor::cat(&[&v, &t], 0).unwrap();
        // Row by row: one instance with those that it sees in one half, the others left out of the sequence.
        let half = |i: usize, same: bool| -> Vec<f32> {
            let sees: Vec<usize> = (0..8).filter(|&j| connect[i][j] == 1 && ((i < 4) == (j < 4)) == same).collect();
            assert!(!sees.is_empty());
            let members: Vec<usize> = [vec![i], sees.clone()].concat();
            let index: Vec<u32> = members.iter().map(|&j| j as u32).collect();
            let index = Tensor::from_vec(index, members.len(), &Device::Cpu).unwrap();
            let n = members.len();
            let mut mask = vec![0f32; n * n];
            mask[0] = f32::NEG_INFINITY;
            sees.iter().enumerate().for_each(|(at, &j)| mask[at + 1] = 1.5 * relation[i][j]);
            let mask = Tensor::from_vec(mask, (n, n), &Device::Cpu).unwrap();
            let layer = &graph.layers[usize::from(!same)][0];
            let x = all.index_select(&index, 0).unwrap();
            let y = layer.forward(&x, &Lengths::new([n]).unwrap(), Some(&mask), None).unwrap();
            y.get(0).unwrap().to_vec1().unwrap()
        };
        for (i, seen) in seen.iter().enumerate() {
            let sum: Vec<f32> = half(i, true).iter().zip(half(i, false)).map(|(a, b)| a + b).collect();
            let length = sum.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!(sum.iter().zip(seen).all(|(a, b)| (a / length - b).abs() < 1e-5), "{i}");
        }
    }

    #[test]
    fn ties_are_connected_and_a_row_has_at_least_one() {
        let connect = |scores: &[f64], share| nearest(scores, 3, share, &Device::Cpu).unwrap().to_vec2::<u8>().unwrap();
        let scores = [0.1, 0.5, 0.3, 0.2, 0.2, 0.2, 0.9, 0.4, 0.9];
        assert_eq!(connect(&scores, 0.5), [[0, 1, 0], [1, 1, 1], [1, 0, 1]]);
        assert_eq!(connect(&scores, 0.7), [[0, 1, 1], [1, 1, 1], [1, 0, 1]]);
        assert_eq!(connect(&scores, 1.0), [[1; 3]; 3]);
        assert_eq!(connect(&scores, 1e-9), [[0, 1, 0], [1, 1, 1], [1, 0, 1]]);
    }

    #[test]
    fn a_divergence_by_hand() {
        let tensor = |rows: [[f64; 2]; 2]| Tensor::new(&rows, &Device::Cpu).unwrap();
        // softmax (ln 3, 0) is (3/4, 1/4); against a half each: 3/4 ln 3/2 + 1/4 ln 1/2. The second row has none.
        let relation = tensor([[3f64.ln(), 0.0], [2.0, 2.0]]);
        let one = divergence(&relation, &tensor([[0.7, 0.7], [0.0, 0.0]]), 1.0).unwrap().to_scalar::<f64>().unwrap();
        assert!((one - (0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln()) / 2.0).abs() < 1e-12);
        // At temperature 2 the logarithm is halved, and the whole is 4 times as large.
        let two = divergence(&(relation * 2.0).unwrap(), &tensor([[0.7, 0.7], [0.0, 0.0]]), 2.0).unwrap();
        assert!((two.to_scalar::<f64>().unwrap() - 4.0 * one).abs() < 1e-12);
    }

    #[test]
    fn a_distance_of_nothing_has_no_gradient() {
        let x = candle_core::Var::new(&[[0f64, 0.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let d = distances(&x, &x).unwrap();
        assert_eq!(d.to_vec2::<f64>().unwrap(), [[0.0, 5.0], [5.0, 0.0]]);
        let grads = d.sum_all().unwrap().backward().unwrap();
        let grads = grads.get(&x).unwrap().to_vec2::<f64>().unwrap();
        for (found, expected) in grads.concat().iter().zip([-1.2, -1.6, 1.2, 1.6]) {
            assert!((found - expected).abs() < 1e-12, "{grads:?}");
        }
    }
}
