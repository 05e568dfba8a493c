//! HREM: two encoders into one space, which while they are trained see a graph of the whole batch; what an image and a text mean for
//! other images and texts is learnt with it and left behind. Fu, Mao, Song and Zhang, CVPR 2023; code CrossmodalGroup/HREM@1ad2612.
//!
//! With regions `x` of an image, words `w` of a text, `d = embedding`, and `N` a layer of relations ([`RelatingLayer`](crate::nn::RelatingLayer)):
//!
//! ```text
//! z = W x + MLP(x),  MLP = W_2 relu(BatchNorm(W_1 x))                regions                                       (1)
//! z = read(w_1 .. w_T)                                               words                                         (2)
//! v = alpha pool(z) + (1 - alpha) mean of N(z)                       pool: mean of the k largest of a channel, or GPO  (3)
//! v <- v / (|v| + 1e-8)                                              the code of an item; the same for texts t     (4)
//! ```
//! In training, with `B` pairs, `z` of a word `j` and a region `i` of unit length, and no gradient:
//!
//! ```text
//! s_ij = LeakyReLU_0.1(z_j . z_i)                                                                                  (5)
//! r_j = max_i s_ij / |s_i.|,  c_i = max_j s_ij / |s_.j|              |s_i.| over words, |s_.j| over regions         (6)
//! m_t2i = mean r_j,  m_i2t = mean c_i                                of a text and an image, [B, B] each            (7)
//! A_i2i, A_t2t: the cosine is among the largest share of its row; ties too                                          (8)
//! A_i2t, A_t2i: m is                                                                                                (9)
//! S_i2i = exp(-|v_a - v_b| / sigma),  S_t2t likewise                                                               (10)
//! S_t2i = MLP(top largest r_j, descending) + m_t2i,  S_i2t = MLP'(top largest c_i) + m_i2t                         (11)
//! M = mu S where A, else -inf                                        [2B, 2B], blocks [[i2i, i2t], [t2i, t2t]]      (12)
//! [v'; t'] = unit(N_g([v; t], M))                                    fusion: M is added to every head's logits      (13)
//! [v'; t'] = unit(N_a([v; t], M within a modality) + N_b([v; t], M between them))    standalone                     (14)
//! R = T²/B sum KL(softmax S/T || softmax G/T),  G = exp(-|v - t|)    both cross directions, rows; G constant        (15)
//! L = T(v, t) + T(v, t') + T(v', t) + T(v', t') + relation_weight R                                                (16)
//! T = sum over pairs of one item, both directions, of [margin + s_an - s_ap]+        one negative n a pair          (17)
//! ```
//! `n` in (17) is drawn by [`DistanceWeighted`] among the texts (images) of other images, or is the hardest, or all of them.
//!
//! (13), (15), (16) and all defaults are those of the code. (14) is not in it: the paper has a mechanism of this name, of whose details
//! we are not sure; here each half of the graph stands alone, on all of `v` and `t` with weights of its own, and the two results are
//! summed before they are scaled, so that neither sees what the other made.
//!
//! Departures. There is no BERT: words are read by the encoders of this program, under its names, and (2) has no CLS. The MLP of (1)
//! ends without the second batch normalisation that the code makes and does not use. In (3) `k` is the least of `k` and an item's own
//! fragments; the code lets a short item lower it for all behind. Behind a text of fewer than `top` words, and beside regions that are
//! left out, the code's (6) and (7) see padding; here a missing value of (11) is 0 and nothing else sees it. Of the words that are left
//! out, replaced or hidden (20 %), the first and the last token are none; what hides is a word of its own. A pair of (17) whose anchor
//! has no negative within reach costs nothing; in the code it makes the whole direction 0. `sampling_width` is 512 in the code whatever
//! `d`. `graph_after` is 8,000 steps there, of some 34,000; ours is as large a share of a training of 850 steps. At the commit before,
//! A_i2i and A_t2t of (8) were taken from cross-modal products (its issue 5). The paper's batches of neighbours (`sampling`) are not in the code,
//! whose author says that they gave little (issue 4); here they are a batch of `each` pairs of each of some clusters of image codes, made
//! anew every epoch by k-means. Model selection there is on the test split; here on validation data, as everywhere. `sigma` and `T` are 1.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use xmbench_datasets::random::Seed;

pub use self::{
    body::{Encoders, Options, Shape, TextModel},
    graph::Interaction,
    pooled::Pooling,
};
use self::{
    graph::{Graph, Links, Nodes, Settings},
    matching::Side,
};
use crate::{
    Codes, Error, Result, Training,
    card::Card,
    golden::Operation,
    linalg::k_means::k_means,
    loss::{DistanceWeighted, Relation, Relations, hinge, sampled_hinge},
    params::out_of_range,
    train::{Optimiser, Sampler, Schedule},
    trained::{Batch, Body, Fitting, Loss, Shared, Trained},
};

mod body;
mod golden;
mod graph;
mod matching;
mod pooled;

const NAME: &str = "hrem";

/// The method.
pub static HREM: Trained<Params> = Trained::new();

/// Which negatives of (17) count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Triplet {
    /// One a pair, drawn by distance.
    Sampled,
    /// The hardest of a query.
    Hardest,
    /// All of a query.
    Sum,
}

/// How batches are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// At random.
    Random,
    /// Pairs of neighbouring images together.
    Neighbours,
}

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Equation (13), (14), or no graph.
    pub interaction: Interaction,
    /// Steps before the graph takes part.
    pub graph_after: usize,
    /// Layers of (13), or of each half of (14).
    pub graph_layers: usize,
    /// Similarities that (11) sees.
    pub top: usize,
    /// Share of (8) and (9).
    pub connected: f64,
    /// `mu` of (12).
    pub mask_weight: f64,
    /// Weight of (15) in (16).
    pub relation_weight: f64,
    /// Whether (13) and (14) see vectors of unit length.
    pub graph_unit: bool,
    /// Whether (16) has its mixed terms, `T(v, t')` and `T(v', t)`.
    pub consistency: bool,
    /// Margin of (17).
    pub margin: f64,
    /// Negatives of (17).
    pub triplet: Triplet,
    /// Distance from which on a negative is never drawn.
    pub cutoff: f64,
    /// Dimensions of the sphere whose distances weigh the draw.
    pub sampling_width: usize,
    /// How batches are drawn.
    pub sampling: Sampling,
    /// Epochs of random batches before neighbours come together.
    pub neighbours_after: usize,
    /// Clusters of training images.
    pub clusters: usize,
    /// Pairs of a cluster in a batch.
    pub each: usize,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            interaction: Interaction::Fusion,
            graph_after: 200,
            graph_layers: 1,
            top: 10,
            connected: 0.5,
            mask_weight: 1.0,
            relation_weight: 10.0,
            graph_unit: true,
            consistency: true,
            margin: 0.2,
            triplet: Triplet::Sampled,
            cutoff: 1.7,
            sampling_width: 512,
            sampling: Sampling::Random,
            neighbours_after: 2,
            clusters: 32,
            each: 8,
        }
    }
}

impl Loss for Params {
    type Body = Encoders;
    type Head = Option<Graph>;

    fn card() -> &'static Card {
        crate::card!("hrem.toml")
    }

    fn shared() -> Shared<Encoders> {
        let schedule = Schedule {
            optimiser: Optimiser::AdamW,
            learning_rate: 5e-4,
            weight_decay: 1e-4,
            decay_at: vec![15, 25],
            ..Schedule::default()
        };
        Shared { schedule, negatives: None, ..Shared::default() }
    }

    /// Who says when the rate falls says it all.
    fn imply(written: &mut toml::Table) {
        let says = ["decay_every", "rate_schedule"].iter().any(|key| written.contains_key(*key));
        if says && !written.contains_key("decay_at") {
            written.insert("decay_at".into(), toml::Value::Array(Vec::new()));
        }
    }

    fn check(&self, shared: &Shared<Encoders>) -> Result<()> {
        shared.has_negatives(NAME)?;
        for (key, value) in
            [("margin", self.margin), ("mask_weight", self.mask_weight), ("relation_weight", self.relation_weight)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        for (key, value, most) in [("top", self.top, 1 << 10), ("graph_layers", self.graph_layers, 8)] {
            if value == 0 || value > most {
                return Err(out_of_range(NAME, key, &format!("1 to {most}"), value));
            }
        }
        if !(self.connected > 0.0 && self.connected <= 1.0) {
            return Err(out_of_range(NAME, "connected", "above 0 and at most 1", self.connected));
        }
        if !(self.cutoff > 0.0 && self.cutoff <= 2.0) {
            let expected = "above 0 and at most 2, the largest distance of unit vectors";
            return Err(out_of_range(NAME, "cutoff", expected, self.cutoff));
        }
        if self.sampling_width < 2 {
            return Err(out_of_range(NAME, "sampling_width", "at least 2", self.sampling_width));
        }
        self.check_unused()?;
        if self.sampling == Sampling::Neighbours {
            let batch = shared.schedule.batch;
            if self.each == 0 || self.each > batch {
                return Err(out_of_range(NAME, "each", &format!("1 to `batch`, which is {batch}"), self.each));
            }
            if self.clusters == 0 {
                return Err(out_of_range(NAME, "clusters", "at least 1", self.clusters));
            }
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Encoders>) -> Result<Option<Graph>> {
        match self.interaction {
            Interaction::None => Ok(None),
            _ => Graph::new(fitting.weights, self.settings(), fitting.shared.options.relating()).map(Some),
        }
    }

    fn sampler(&self, _: &Option<Graph>, body: &Encoders, training: &Training<'_>, epoch: usize) -> Result<Sampler> {
        if self.sampling == Sampling::Random || epoch < self.neighbours_after {
            return Ok(Sampler::Shuffled);
        }
        let images = &training.train.images;
        if self.clusters > images.len() {
            let expected = format!("at most the {} training images", images.len());
            return Err(out_of_range(NAME, "clusters", &expected, self.clusters));
        }
        let Codes::Dense(codes) = body.encode_images(images)? else {
            return Err(Error::Numeric("hrem: expected dense codes".into()));
        };
        // Where seeds of clusters fall is the same for every seed of a training: the codes are not.
        let mut stream = Seed(epoch as u64).stream(&[NAME, "clusters"]);
        let clusters = k_means(&codes, self.clusters, &mut stream)?.assignment;
        let of = training.train.pairs.all().iter().map(|&(image, _)| clusters[image as usize]).collect();
        Ok(Sampler::Groups { of, each: self.each })
    }

    fn loss(&self, graph: &Option<Graph>, batch: &Batch<'_, Encoders>) -> Result<Tensor> {
        let (images, texts) = (batch.image_nodes()?, batch.text_nodes()?);
        let relations = same_image(&batch.relations()?);
        let mut triplet = |v: &Tensor, t: &Tensor| self.triplet(v, t, &relations, batch);
        let graph = graph.as_ref().filter(|_| batch.step >= self.graph_after);
        let Some(graph) = graph else { return triplet(&images.unit, &texts.unit) };
        let nodes = Nodes {
            unit: [&images.unit, &texts.unit],
            pooled: [&images.pooled, &texts.pooled],
            fragments: [images, texts].map(|side| Side { fragments: &side.fragments, lengths: &side.lengths }),
            real: texts.lengths.as_slice(),
        };
        let links = graph.links(&nodes)?;
        let seen = graph.enhanced(&nodes, &links, Some(&mut batch.stream()))?;
        let [_, loss] = self.total(&nodes, &links, &seen, &mut triplet)?;
        Ok(loss)
    }

    fn remark(&self) -> Option<String> {
        (self.sampling == Sampling::Neighbours).then(|| {
            format!("batches of neighbours: {} pairs of each of some of {} clusters", self.each, self.clusters)
        })
    }

    fn operations() -> Vec<Operation> {
        golden::operations()
    }
}

impl Params {
    fn settings(&self) -> Settings {
        Settings {
            interaction: self.interaction,
            layers: self.graph_layers,
            top: self.top,
            connected: self.connected,
            mask_weight: self.mask_weight,
            unit: self.graph_unit,
            sigma: 1.0,
            temperature: 1.0,
        }
    }

    /// Refuses parameters that would change nothing.
    fn check_unused(&self) -> Result<()> {
        let default = Self::default();
        let unused = |key: &str, reason: &str, found: String| {
            Err(out_of_range(NAME, key, &format!("the default, as {reason} has no use for it"), found))
        };
        if self.triplet != Triplet::Sampled {
            if self.cutoff != default.cutoff {
                return unused("cutoff", "`triplet` other than `sampled`", self.cutoff.to_string());
            }
            if self.sampling_width != default.sampling_width {
                return unused("sampling_width", "`triplet` other than `sampled`", self.sampling_width.to_string());
            }
        }
        Ok(())
    }

    /// The first term of (16), and all of it.
    fn total(
        &self,
        nodes: &Nodes<'_>,
        links: &Links,
        [seen_v, seen_t]: &[Tensor; 2],
        triplet: &mut dyn FnMut(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<[Tensor; 2]> {
        let [v, t] = nodes.unit;
        let base = triplet(v, t)?;
        let mut loss = (&base + triplet(seen_v, seen_t)?)?;
        if self.consistency {
            loss = ((loss + triplet(v, seen_t)?)? + triplet(seen_v, t)?)?;
        }
        loss = (loss + (&links.regulariser * self.relation_weight)?)?; // (16)
        Ok([base, loss])
    }

    /// Equation (17).
    fn triplet(&self, v: &Tensor, t: &Tensor, relations: &Relations, batch: &Batch<'_, Encoders>) -> Result<Tensor> {
        let scores = v.matmul(&t.t()?)?;
        match self.triplet {
            Triplet::Sampled => {
                let draw = DistanceWeighted { cutoff: self.cutoff, ..DistanceWeighted::default() };
                let mut stream = batch.stream();
                sampled_hinge(&scores, relations, self.margin, &mut |cosines| {
                    draw.draw(cosines, self.sampling_width, &mut stream)
                })
            }
            Triplet::Hardest | Triplet::Sum => hinge(&scores, self.margin, self.triplet == Triplet::Hardest, relations),
        }
    }
}

/// Pairs of one image are positives, whichever of its texts.
fn same_image(relations: &Relations) -> Relations {
    let [rows, columns] = relations.shape();
    Relations::new(rows, columns, |i, j| match relations.get(i, j) {
        Relation::Negative => Relation::Negative,
        _ => Relation::Positive,
    })
}

#[cfg(test)]
mod tests;
