//! Show, Attend and Tell: a network that writes captions, made a matcher. An image and a text belong together if the network would
//! write the text when it sees the image.
//!
//! With `a_1 .. a_k` the regions of an image, `a_i = W x_i + b` in `R^D`, and a text `y_0 .. y_{T+1}` between its start and its end:
//!
//! ```text
//! h_0 = f_s(W_h mean a + b_h),  c_0 = f_s(W_c mean a + b_c)                    f_s = tanh, or none              (1)
//! e_ti = u . f(P a_i + b + W_d h_{t-1})                                      f = tanh, or relu               (2)
//! alpha_t = softmax over i of e_t                                                                           (3)
//! z_t = s_t sum_i alpha_ti a_i,  s_t = sigmoid(W_s h_{t-1} + b_s)              one number, or D                (4)
//! h_t, c_t = LSTM([E y_{t-1}, z_t], h_{t-1}, c_{t-1})                                                       (5)
//! l_t = W_o tanh(L_h h_t + E y_{t-1} + L_z z_t) + b_o                        output = deep                   (6a)
//! l_t = W_o h_t + b_o                                                        output = linear                 (6b)
//! log p(y | I) = sum_{t=1}^{T+1} log softmax(l_t)[y_t]                                                      (7)
//! s(I, y) = (log p(y | I) - pmi log p(y | mean image)) / (T + 1)                                        (8), (9)
//! L = mean over the batch of -log p(y | I) + alpha_c DS                                                     (10)
//! DS, of d_bi = (1 - sum_t alpha_ti)^2:  sum_i d_bi, mean over b     ds_mode = paper                        (11a)
//!                                        mean over i, sum over b     arctic                                 (11b)
//!                                        mean over both              tutorial                               (11c)
//! ```
//! Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel and Bengio, ICML 2015, soft attention; code kelvinxu/arctic-captions, and
//! sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning@cc9c7e2, which has `relu`, `vector`, starts by `identity`, `linear` and
//! `tutorial`. The paper has no retrieval: that (7) ranks is the idea of the captioners of its time, (8) and (9) are ours. `pmi = 0` is the plain
//! likelihood. The end counts as a word. The division by `T + 1` leaves the order of images for a text alone.
//!
//! Departures. A layer stands between features and `a`, as in the other methods here. `y_0` is the start token, where arctic-captions
//! puts a zero vector. Its options of two layers inside (1) and (2) are left out; its dropout does not rescale, ours does. (11) sums over
//! a text's own steps; in arctic-captions over the padding of the batch too. Whatever `ds_mode`, (10) sums a text's words (the tutorial
//! takes their mean). Adam at one rate, without arctic's early stop by likelihood. The mean image of (9) is one region with the mean of
//! all training features.
//!
//! `P a`, and with a scalar `s_t` the products of `a` with the LSTM's and the output's weights, are made once an image; the words' part
//! of the gates once a token and tile, not a pair. The softmax over the vocabulary cannot be had cheaper: a pair takes about 100 million
//! products at the defaults and 10,000 words, so this is meant to rank again the best of a cheaper method. In scoring no tensor of a
//! step holds more than 16 MiB.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use self::{
    body::Regions,
    decoder::{Decoder, Scene, Sizes, Told},
    teller::Teller,
};
pub use self::{
    body::{Options, Shape},
    decoder::{Output, Selector},
};
use crate::{
    Result, Similarity,
    card::Card,
    golden::Operation,
    nn::{
        Activation,
        cross::{InteractionScorer, Padded},
        dropout,
    },
    params::out_of_range,
    train::Schedule,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

mod body;
mod decoder;
mod golden;
mod teller;

const NAME: &str = "show_attend_tell";

/// The method.
pub static SHOW_ATTEND_TELL: Trained<Params> = Trained::new();

/// How equation (11) averages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DsMode {
    /// (11a).
    Paper,
    /// (11b).
    Arctic,
    /// (11c).
    Tutorial,
}

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Length of the decoder's states, n.
    pub hidden: usize,
    /// Length of a word vector, m.
    pub word: usize,
    /// Width of the hidden layer of (2), A.
    pub attention_width: usize,
    /// `f` of (2): `tanh` or `relu`.
    pub attention: Activation,
    /// `s_t` of (4).
    pub selector: Selector,
    /// `f_s` of (1): `tanh` or `identity`.
    pub start: Activation,
    /// Equation (6).
    pub output: Output,
    /// Share of states that is dropped in training, before each product of (6).
    pub dropout: f64,
    /// Equation (11).
    pub ds_mode: DsMode,
    /// Weight of (11) in (10); 0 leaves it out.
    pub alpha_c: f64,
    /// Weight of the mean image in (9); 0 leaves it out.
    pub pmi: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            hidden: 512,
            word: 512,
            attention_width: 512,
            attention: Activation::Tanh,
            selector: Selector::Scalar,
            start: Activation::Tanh,
            output: Output::Deep,
            dropout: 0.5,
            ds_mode: DsMode::Paper,
            alpha_c: 1.0,
            pmi: 0.0,
        }
    }
}

impl Loss for Params {
    type Body = Regions;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("show_attend_tell.toml")
    }

    fn shared() -> Shared<Regions> {
        let schedule = Schedule { batch: 64, learning_rate: 4e-4, decay_every: 0, clip: 5.0, ..Schedule::default() };
        Shared { schedule, negatives: None, ..Shared::default() }
    }

    fn check(&self, _: &Shared<Regions>) -> Result<()> {
        for (key, value) in [("hidden", self.hidden), ("word", self.word), ("attention_width", self.attention_width)] {
            if value == 0 || value > 1 << 16 {
                return Err(out_of_range(NAME, key, "1 to 65536", value));
            }
        }
        for (key, value) in [("alpha_c", self.alpha_c), ("pmi", self.pmi)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(out_of_range(NAME, "dropout", "a number from 0 to below 1", self.dropout));
        }
        if !matches!(self.attention, Activation::Tanh | Activation::Relu) {
            return Err(out_of_range(NAME, "attention", "tanh or relu", format!("{:?}", self.attention)));
        }
        if !matches!(self.start, Activation::Tanh | Activation::Identity) {
            return Err(out_of_range(NAME, "start", "tanh or identity", format!("{:?}", self.start)));
        }
        if self.alpha_c == 0.0 && self.ds_mode != DsMode::Paper {
            let found = format!("{:?}", self.ds_mode);
            return Err(out_of_range(NAME, "ds_mode", "the default where `alpha_c` is 0", found));
        }
        Ok(())
    }

    fn head(&self, fitting: &mut Fitting<'_, Regions>) -> Result<Head> {
        let (device, body) = (fitting.device(), fitting.body);
        let shape = crate::trained::Body::shape(body);
        let sizes = Sizes {
            context: fitting.shared.options.embedding,
            hidden: self.hidden,
            word: self.word,
            attention: self.attention_width,
            vocabulary: shape.vocabulary,
            activation: self.attention,
            start: self.start,
            selector: self.selector,
            output: self.output,
        };
        let decoder = Decoder::new(fitting.weights, sizes)?;
        let prior = match self.pmi > 0.0 {
            true => {
                let mean = match fitting.training {
                    Some(training) => body.mean(&training.train.images)?,
                    None => Tensor::zeros(shape.image_width, candle_core::DType::F32, &device)?,
                };
                // What training found is among the weights of the matcher.
                let mean = fitting.weights.state(MEAN, mean)?.as_detached_tensor();
                Some((self.pmi, body.annotations(&mean.reshape((1, 1, shape.image_width))?)?.detach()))
            }
            false => None,
        };
        Ok(Head(InteractionScorer { interaction: Teller::new(decoder, prior), device }))
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Regions>) -> Result<Tensor> {
        let (body, train, items) = (batch.body(), batch.training.train, &batch.items);
        let regions = Padded::full(&body.annotations(&body.features(&train.images, &items.images)?)?)?;
        let texts = body.tokens(&train.texts, &items.texts)?;
        let decoder = &head.0.interaction.decoder;
        let mut stream = batch.stream();
        let told = told(decoder, &regions, &texts, &mut |x| match self.dropout > 0.0 {
            true => dropout(&x, self.dropout, &mut stream),
            false => Ok(x),
        })?;
        let loss = (told.log_likelihood.sum_all()? / -(texts.len() as f64))?;
        if self.alpha_c == 0.0 {
            return Ok(loss);
        }
        Ok((loss + (self.ds_mode.of(&told.looked.squeeze(1)?)? * self.alpha_c)?)?) // (10)
    }

    fn similarity<'a>(&'a self, head: &'a Head) -> Similarity<'a> {
        Similarity::Pairwise(&head.0)
    }

    fn remark(&self) -> Option<String> {
        Some("trained to write captions, without negatives; ranks by likelihood".into())
    }

    fn operations() -> Vec<Operation> {
        vec![Operation { name: "attn.sat", run: golden::run, ignored: &[] }]
    }
}

/// The decoder.
pub struct Head(InteractionScorer<Teller>);

/// The weights' name of the mean features of (9).
const MEAN: &str = "mean_features";

/// Each text given its own image.
fn told(
    decoder: &Decoder,
    images: &Padded,
    texts: &[&[u32]],
    drop: &mut dyn FnMut(Tensor) -> Result<Tensor>,
) -> Result<Told> {
    let [keys, values, h, c] = decoder.prepared(images)?;
    let real = images.real().map(|real| real.unsqueeze(1)?.unsqueeze(1)).transpose()?;
    let start = [h.unsqueeze(1)?, c.unsqueeze(1)?];
    decoder.tell(&Scene { keys: keys.unsqueeze(1)?, values: values.unsqueeze(1)?, real, start }, texts, drop)
}

impl DsMode {
    /// Equation (11) of attention weights summed over the steps, `[B, k]`.
    fn of(self, looked: &Tensor) -> Result<Tensor> {
        let apart = (1.0 - looked)?.sqr()?;
        Ok(match self {
            Self::Paper => apart.sum(1)?.mean(0)?,
            Self::Arctic => apart.mean(1)?.sum(0)?,
            Self::Tutorial => apart.mean_all()?,
        })
    }
}

#[cfg(test)]
mod tests;
