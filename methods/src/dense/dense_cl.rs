//! DenseCL (Wang, Zhang, Shen, Kong, Li, CVPR 2021): beside whole items, their parts are contrasted, each with the part of the other
//! view that it matches best. Here the second view of an image is its text.
//!
//! With `V_i [k, d]` the vectors of the regions of image `i` in the joint space and `v_i` of the image, `T_i [n_i, d]` and `t_i` of the
//! words and text of its pair, unit vectors `[.]`, heads `G` (global) and `D` (dense) of each modality, two layers each:
//!
//! ```text
//! g_i = [G_I v_i],  h_i = [G_T t_i]                    codes; an image and a text are compared by g . h                  (1)
//! c_r = argmax_j a_ir . b_ij                           a, b: regions and words in the space of (1), no gradient          (2)
//! q_r = [D (row r)],  p_i = [mean_r D (row r)]         keys of parts, and their mean as the key of a whole             (3)
//! L_dense(T->I) = mean_r -log( e^(q_r . k_c_r / tau) / (e^(q_r . k_c_r / tau) + sum_N e^(q_r . p_N / tau)) )            (4)
//! L_global(T->I) = the same of h_i with its g_i and the negatives g_N                                                  (5)
//! L = (1 - lambda) (L_global(T->I) + L_global(I->T)) / 2 + lambda (L_dense(T->I) + L_dense(I->T)) / 2                  (6)
//! lambda is 0 in the first `warmup` epochs.                                                                            (7)
//! ```
//!
//! Two modalities have no common backbone to match in: (2) takes the space that (5) aligns, each fragment through the global heads, or the
//! joint space itself without them (`global_heads = false`, where (1) is the unit vectors of the encoders). Until (5) has aligned it, matches
//! mean nothing: hence (7), for which WXinlong/DenseCL@b64bbb6 has a hook in steps. The mean in (4) is over all rows of a batch.
//!
//! Negatives N are the batch's other images, or with `queue` above 0 that many keys of past steps and no others, as released: rings that
//! begin with random vectors; keys then have no gradient. `momentum` m above 0 makes keys with slow heads, `slow <- m slow + (1 - m) head`
//! after each step, on the vectors of the current encoders: the paper's slow copy of the whole network is left out, for features are given
//! and encoders small. What belongs to the query's item is no negative, in a queue neither (`negatives = "paper"`: it is).
//!
//! `views = "image"` is the paper's own form beside (5): two altered views of an image's features (`dense_cl/views.rs` says how), with
//! heads of their own, `w` being `view_weight`:
//!
//! ```text
//! L = (L_global(T->I) + L_global(I->T)) / 2 + w ((1 - lambda) L_single(1->2) + lambda L_dense(1->2))                   (8)
//! ```
//!
//! where (2) takes the joint vectors of the two views, as the paper does its backbone's, L_single is (5) of the means of the views, and
//! gradients run through both. Departures besides: parts of the score other than (1) are left out at test; Adam instead of SGD.

use std::sync::{Mutex, PoisonError};

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts};

use self::{
    heads::{Heads, MOMENTUM, Sizes},
    negatives::Negatives,
    queue::{LANES, Queue},
    terms::Dense,
};
use super::parts::{self, Parts};
use crate::{
    AttentionMap, Codes, Result,
    card::Card,
    golden::Operation,
    nn::{Finish, Joint, Lengths, Scaling, Weights, cross::Direction, unit},
    params::out_of_range,
    train::Step,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

mod golden;
mod heads;
mod negatives;
mod queue;
mod terms;
mod views;

const NAME: &str = "dense_cl";

/// The method.
pub static DENSE_CL: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// What the parts of an image are contrasted with.
    pub views: Second,
    /// Weight lambda of (4) against (5).
    pub lambda: f64,
    /// Epochs without (4).
    pub warmup: usize,
    /// Temperature tau.
    pub temperature: f64,
    /// Whether (1) has heads.
    pub global_heads: bool,
    /// Width of the heads' hidden layer.
    pub head_hidden: usize,
    /// Width of what the heads make.
    pub head_width: usize,
    /// Keys of past steps; 0 for the batch's.
    pub queue: usize,
    /// Share m of the slow heads that stays in a step; 0 for none.
    pub momentum_heads: f64,
    /// Weight w of the terms between views of an image.
    pub view_weight: f64,
    /// Smallest share of a side of the grid that a view has.
    pub view_window: f64,
    /// Noise of a view, in root mean squares of the features.
    pub view_noise: f64,
    /// Share of a view's values that are 0.
    pub view_drop: f64,
}

/// What the parts of an image are contrasted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Second {
    /// The words of its text, (6).
    Words,
    /// The parts of another view of itself, (8).
    Image,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            views: Second::Words,
            lambda: 0.5,
            warmup: 2,
            temperature: 0.2,
            global_heads: true,
            head_hidden: 2048,
            head_width: 128,
            queue: 0,
            momentum_heads: 0.0,
            view_weight: 1.0,
            view_window: 0.5,
            view_noise: 0.1,
            view_drop: 0.1,
        }
    }
}

/// Places of the four kinds of key: the wholes of (1), then what parts are contrasted by.
const IMAGE: usize = 0;
const TEXT: usize = 1;
const THIRD: usize = 2;
const FOURTH: usize = 3;

impl Loss for Params {
    type Body = Joint;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("dense_cl.toml")
    }

    fn shared() -> Shared<Joint> {
        Shared { options: parts::encoders(), ..Shared::default() }
    }

    fn check(&self, shared: &Shared<Joint>) -> Result<()> {
        parts::check(NAME, shared)?;
        shared.has_negatives(NAME)?;
        for (key, value) in [("lambda", self.lambda), ("view_noise", self.view_noise)] {
            let most = if key == "lambda" { 1.0 } else { f64::MAX };
            if !(0.0..=most).contains(&value) {
                let expected = if key == "lambda" { "a number in [0, 1]" } else { "a number from 0 up" };
                return Err(out_of_range(NAME, key, expected, value));
            }
        }
        for (key, value) in [("momentum_heads", self.momentum_heads), ("view_drop", self.view_drop)] {
            if !(0.0..1.0).contains(&value) {
                return Err(out_of_range(NAME, key, "a number in [0, 1)", value));
            }
        }
        for (key, value) in [("temperature", self.temperature), ("view_weight", self.view_weight)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        if !(self.view_window > 0.0 && self.view_window <= 1.0) {
            return Err(out_of_range(NAME, "view_window", "a number in (0, 1]", self.view_window));
        }
        for (key, value) in [("head_hidden", self.head_hidden), ("head_width", self.head_width)] {
            if !(1..=1 << 16).contains(&value) {
                return Err(out_of_range(NAME, key, "1 to 65536", value));
            }
        }
        if self.queue > 1 << 20 {
            return Err(out_of_range(NAME, "queue", "0 to 1048576", self.queue));
        }
        self.unused()?;
        negatives::check(NAME, shared.negatives, self.queue)
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::None)
    }

    fn imply(written: &mut toml::Table) {
        parts::imply(written);
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Head> {
        let (width, fresh) = (fitting.body.width(), fitting.training.is_some());
        let sizes = Sizes { width, hidden: self.head_hidden, out: self.head_width };
        let names = self.names();
        let fast = Heads::new(fitting.weights, "", names, self.headless(), sizes)?;
        let slow = match self.momentum_heads > 0.0 {
            true => Some(Heads::new(fitting.weights, MOMENTUM, names, self.headless(), sizes)?),
            false => None,
        };
        if fresh && slow.is_some() {
            heads::follow(fitting.weights, 0.0)?;
        }
        let queue = match self.queue {
            0 => None,
            entries => {
                let lane = |lane: usize| (names[lane], fast.width(lane, width));
                Some(Queue::new(fitting.weights, [0, 1, 2, 3].map(lane), entries, fresh)?)
            }
        };
        Ok(Head { fast, slow, queue, latest: Mutex::default() })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (images, texts) = (Parts::images(batch)?, Parts::texts(batch)?);
        let lambda = if batch.epoch < self.warmup { 0.0 } else { self.lambda }; // (7)
        let negatives = Negatives::new(batch, head.queue.as_ref())?;
        let g = [unit(&head.fast.forward(IMAGE, &images.whole)?)?, unit(&head.fast.forward(TEXT, &texts.whole)?)?]; // (1)
        let keys = [head.key(IMAGE, &images.whole, &g[IMAGE])?, head.key(TEXT, &texts.whole, &g[TEXT])?];
        let toward_images = self.whole([&g[TEXT], &keys[IMAGE]], head, IMAGE, &negatives.images)?; // (5)
        let toward_texts = self.whole([&g[IMAGE], &keys[TEXT]], head, TEXT, &negatives.texts)?;
        let global = ((toward_images + toward_texts)? * 0.5)?;
        let parts = match self.views {
            // Nothing of it counts, neither now nor, through a queue, later.
            Second::Words if self.lambda == 0.0 || (lambda == 0.0 && head.queue.is_none()) => None,
            Second::Words => Some(self.words(head, [&images, &texts], &negatives, lambda > 0.0)?),
            Second::Image => Some(self.image(head, batch, &negatives, lambda)?),
        };
        let (terms, pooled) = parts.map_or((None, None), |(terms, pooled)| (terms, Some(pooled)));
        if head.queue.is_some() {
            let [third, fourth] = pooled.map_or([None, None], |pooled| pooled.map(Some));
            let [image, text] = keys;
            let keys = [Some(image), Some(text), third, fourth].map(|keys| keys.map(|keys| keys.detach()));
            let ids = batch.items.images.iter().zip(&batch.items.texts).map(|(&i, &t)| [i, t]).collect();
            *head.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((keys, ids));
        }
        match (self.views, terms) {
            (Second::Words, Some(dense)) => Ok(((global * (1.0 - lambda))? + (dense * lambda)?)?), // (6)
            (Second::Image, Some(views)) => Ok((global + (views * self.view_weight)?)?),           // (8)
            (_, None) => Ok(global),
        }
    }

    fn after(&self, head: &Head, weights: &Weights, _: &Step) -> Result<()> {
        if head.slow.is_some() {
            heads::follow(weights, self.momentum_heads)?;
        }
        let latest = head.latest.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (&head.queue, latest) {
            (Some(queue), Some((keys, ids))) => queue.push(&keys, &ids),
            _ => Ok(()),
        }
    }

    fn encode_images(&self, head: &Head, body: &Joint, images: &Images) -> Result<Codes> {
        let width = head.fast.width(IMAGE, body.width());
        parts::image_codes(body, images, width, |parts| unit(&head.fast.forward(IMAGE, &parts.whole)?))
    }

    fn encode_texts(&self, head: &Head, body: &Joint, texts: &Texts) -> Result<Codes> {
        let width = head.fast.width(TEXT, body.width());
        parts::text_codes(body, texts, width, |parts| unit(&head.fast.forward(TEXT, &parts.whole)?))
    }

    /// The softmax over regions of cosines over tau: in the space of (2), and behind the dense heads where they were trained on words.
    fn attention(
        &self,
        head: &Head,
        body: &Joint,
        image: (&Images, usize),
        text: (&Texts, usize),
    ) -> Result<Vec<AttentionMap>> {
        let [regions, words] = parts::pair(body, image, text)?;
        let map = |title: &str, lanes: [usize; 2]| -> Result<AttentionMap> {
            let rows = [(&regions, lanes[0]), (&words, lanes[1])].map(|(x, lane)| unit(&head.fast.forward(lane, x)?));
            let [regions, words] = rows;
            let cosines = words?.matmul(&regions?.t()?)?;
            let weights = candle_nn::ops::softmax(&(cosines / self.temperature)?, D::Minus1)?;
            AttentionMap::of(title, Direction::T2i, &weights)
        };
        let mut maps = vec![map("global heads", [IMAGE, TEXT])?];
        if self.views == Second::Words && self.lambda > 0.0 {
            maps.push(map("dense heads", [THIRD, FOURTH])?);
        }
        Ok(maps)
    }

    fn operations() -> Vec<Operation> {
        golden::operations()
    }
}

impl Params {
    /// Names of the four kinds of key.
    fn names(&self) -> [&'static str; LANES] {
        match self.views {
            Second::Words => ["image", "text", "image.dense", "text.dense"],
            Second::Image => ["image", "text", "view", "view.dense"],
        }
    }

    /// Which kinds have no head.
    fn headless(&self) -> [bool; LANES] {
        [!self.global_heads, !self.global_heads, false, false]
    }

    /// Refuses parameters that would do nothing.
    fn unused(&self) -> Result<()> {
        let default = Self::default();
        if self.views == Second::Words {
            for (key, value, idle) in [
                ("view_weight", self.view_weight, default.view_weight),
                ("view_window", self.view_window, default.view_window),
                ("view_noise", self.view_noise, default.view_noise),
                ("view_drop", self.view_drop, default.view_drop),
            ] {
                if value != idle {
                    return Err(out_of_range(NAME, key, &format!("{idle} where `views` is words"), value));
                }
            }
        }
        Ok(())
    }
}

/// What stands beside the encoders.
pub struct Head {
    fast: Heads,
    slow: Option<Heads>,
    queue: Option<Queue>,
    /// Keys of a step, for the queue.
    latest: Mutex<Option<([Option<Tensor>; LANES], Vec<[usize; 2]>)>>,
}

impl Head {
    /// The key of wholes `x`, whose query is `fresh`.
    fn key(&self, lane: usize, x: &Tensor, fresh: &Tensor) -> Result<Tensor> {
        match (&self.slow, &self.queue) {
            (Some(slow), _) => Ok(unit(&slow.forward(lane, &x.detach())?)?.detach()),
            (None, Some(_)) => Ok(fresh.detach()),
            (None, None) => Ok(fresh.clone()),
        }
    }

    /// (3) of rows.
    fn dense(&self, lane: usize, x: &Tensor, lengths: &Lengths) -> Result<Dense> {
        let rows = self.fast.forward(lane, x)?;
        let queries = unit(&rows)?;
        let rows = match (&self.slow, &self.queue) {
            (Some(slow), _) => slow.forward(lane, &x.detach())?.detach(),
            (None, Some(_)) => rows.detach(),
            (None, None) => return Ok(Dense { keys: queries.clone(), queries, pooled: unit(&lengths.mean(&rows)?)? }),
        };
        Ok(Dense { queries, keys: unit(&rows)?, pooled: unit(&lengths.mean(&rows)?)? })
    }

    /// The negatives among keys of a kind: those of past steps, or the given ones of the batch.
    fn negatives(&self, lane: usize, batch: &Tensor) -> Tensor {
        self.queue.as_ref().map_or_else(|| batch.clone(), |queue| queue.keys(lane))
    }
}

#[cfg(test)]
mod tests;
