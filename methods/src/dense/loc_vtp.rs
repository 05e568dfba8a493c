//! LocVTP (Cao, Yang, Weng, Zhang, Wang, Zou, ECCV 2022): videos and sentences are contrasted as wholes, their clips and words with
//! each other, and what a place looks like must follow from another place and the way between them. Here clips are an image's fragments
//! in order: frames in time, or regions by rows.
//!
//! With `x` the vectors of the encoders, `P` a projection of each modality, `V_b [k, e]` the clips and `W_b [n_b, e]` the words of pair
//! `b`, `v_b` the mean of `V_b` and `s_b` the projection of the text's vector:
//!
//! ```text
//! P(x) = LN(p + dropout(gelu(p) B + b)),  p = x A + a                                                             (1)
//! z_bc = s_b . v_c / tau,   y = softmax(tau (v v^T + s s^T) / 2),   by rows                                        (2)
//! L_coarse = -1/2 mean_b [ sum_c y_bc log softmax(z_b)_c + sum_c y_cb log softmax(z^T_b)_c ]                          (3)
//! C_r = the K words with the largest V_r . W_n of the pair; of a word, clips alike (see `clip_match`)               (4)
//! nce(q, p) = -log( e^(cos(q, p) / t) / (e^(cos(q, p) / t) + sum_N e^(cos(q, n) / t)) )                             (5)
//! L_fine = mean nce(V_r, W_c) over r and c in C_r  +  the same of words and clips                                  (6)
//! u_r = W_s + S(sign d) + D(|d|),   d = s - c_r,   s drawn anew, c_r the best of C_r                              (7)
//! L_warp = mean nce(V_r, u_r)  +  the same of words and clips                                                      (8)
//! L_order = mean_b log(1 + e^((s'_b - s_b) . v_b / tau)),   s'_b of the text with its words the other way round       (9)
//! L = L_coarse + w_fine L_fine + w_warp L_warp + w_order L_order                                                  (10)
//! ```
//!
//! S and D are linear maps of one number to `e`, for clips and for words apart. Codes are `v_b` and `s_b`, compared by one dot product as in
//! (2); with `normalise` both are scaled to unit length first, and so they are in (2), (3) and (9).
//!
//! mengcaopku/LocVTP@229bef6 calls itself uncleaned; it differs from the paper, and where they differ there is a parameter: `matches` K is 1
//! there and 3 in the paper; N of (5) are `draws` words of the same text there, the match perhaps among them (`fine_negatives = "sentence"`),
//! and all words of other texts in the paper ("captions", the default). With K above 1 the matches of a query are positives one by one,
//! none a negative of another. Of a word it takes the clip with the largest V . W behind a softmax over words (`clip_match = "released"`),
//! which is not the largest ("own", the default). In (7) it takes, for all words, the offsets at one place, that of the last clip, by a
//! variable left over from a loop (`warp = "released"`; an error where there is no such word). The gradient runs through y, whose columns do
//! not sum to 1 in (3).
//!
//! The paper's order loss finds where clips of another video begin. Regions have no time, so that (9), ours, asks for the order of words
//! instead: a text with the words between its marks reversed or shuffled is a further negative of its image. A text that comes out the
//! same takes no part. Left out: C3D and DistilBERT, in whose place the encoders are those of VSE++ on fragments and words (read both ways).

use candle_core::{D, Tensor};
use candle_nn::ops;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Images, Texts, random::Stream};

use self::{
    fine::{Fine, Negatives, Side, pick},
    projection::{Offsets, Projection},
};
use super::parts::{self, Parts, select};
use crate::{
    AttentionMap, Codes, Result, Similarity,
    card::Card,
    golden::Operation,
    loss::against,
    nn::{Finish, ImagePooling, Joint, Scaling, cross::Direction, unit},
    params::out_of_range,
    trained::{Batch, Fitting, Loss, Shared, Trained},
};

mod fine;
mod golden;
mod projection;

const NAME: &str = "loc_vtp";

/// The method.
pub static LOC_VTP: Trained<Params> = Trained::new();

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// Width e of the projections.
    pub projection: usize,
    /// Dropout of (1).
    pub projection_dropout: f64,
    /// Temperature tau of (2).
    pub temperature: f64,
    /// Whether wholes are scaled to unit length.
    pub normalise: bool,
    /// Temperature t of (5).
    pub fine_temperature: f64,
    /// Matches K of (4).
    pub matches: usize,
    /// Which clip matches a word.
    pub clip_match: ClipMatch,
    /// What N of (5) is.
    pub fine_negatives: FineNegatives,
    /// Negatives that are drawn of the same text.
    pub draws: usize,
    /// Which offsets (7) has.
    pub warp: Warp,
    /// Order of an image's fragments.
    pub region_order: RegionOrder,
    /// How the order of words is broken in (9).
    pub order: Order,
    /// Weight of (6).
    pub fine_weight: f64,
    /// Weight of (8).
    pub warp_weight: f64,
    /// Weight of (9).
    pub order_weight: f64,
}

/// Which clip matches a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClipMatch {
    /// That with the largest product.
    Own,
    /// That with the largest softmax over words of its products.
    Released,
}

/// What a clip or word is told apart from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FineNegatives {
    /// All words of other texts of the batch, all clips of other images.
    Captions,
    /// Some of the same text or image, drawn.
    Sentence,
}

/// Which offsets are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Warp {
    /// Each query's own.
    Own,
    /// For words, those at the place of the last clip.
    Released,
}

/// Order of an image's fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionOrder {
    /// By the centres of their boxes, row by row; as given where there are no boxes.
    Raster,
    /// That of the dataset.
    Given,
}

/// How the order of words is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Backwards.
    Reverse,
    /// At random.
    Shuffle,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            projection: 256,
            projection_dropout: 0.1,
            temperature: 1.0,
            normalise: false,
            fine_temperature: 0.07,
            matches: 3,
            clip_match: ClipMatch::Own,
            fine_negatives: FineNegatives::Captions,
            draws: 4,
            warp: Warp::Own,
            region_order: RegionOrder::Raster,
            order: Order::Reverse,
            fine_weight: 1.0,
            warp_weight: 1.0,
            order_weight: 1.0,
        }
    }
}

impl Loss for Params {
    type Body = Joint;
    type Head = Head;

    fn card() -> &'static Card {
        crate::card!("loc_vtp.toml")
    }

    fn shared() -> Shared<Joint> {
        Shared { options: parts::encoders(), ..Shared::default() }
    }

    fn imply(written: &mut toml::Table) {
        parts::imply(written);
    }

    fn check(&self, shared: &Shared<Joint>) -> Result<()> {
        parts::check(NAME, shared)?;
        shared.has_negatives(NAME)?;
        if shared.options.image_pooling != ImagePooling::Mean {
            return Err(out_of_range(NAME, "image_pooling", "mean, which is taken behind the projection", "gpo"));
        }
        for (key, value, most) in
            [("projection", self.projection, 1 << 16), ("matches", self.matches, 64), ("draws", self.draws, 1024)]
        {
            if !(1..=most).contains(&value) {
                return Err(out_of_range(NAME, key, &format!("1 to {most}"), value));
            }
        }
        for (key, value) in [("temperature", self.temperature), ("fine_temperature", self.fine_temperature)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number above 0", value));
            }
        }
        for (key, value) in
            [("fine_weight", self.fine_weight), ("warp_weight", self.warp_weight), ("order_weight", self.order_weight)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(out_of_range(NAME, key, "a number from 0 up", value));
            }
        }
        if !(0.0..1.0).contains(&self.projection_dropout) {
            return Err(out_of_range(NAME, "projection_dropout", "a number in [0, 1)", self.projection_dropout));
        }
        let default = Self::default();
        if self.fine_negatives == FineNegatives::Captions && self.draws != default.draws {
            let expected = format!("{} where `fine_negatives` is captions", default.draws);
            return Err(out_of_range(NAME, "draws", &expected, self.draws));
        }
        Ok(())
    }

    fn ends(&self) -> Finish {
        Finish::both(Scaling::None)
    }

    fn head(&self, fitting: &mut Fitting<'_, Joint>) -> Result<Head> {
        let (width, e) = (fitting.body.width(), self.projection);
        let offsets = |fitting: &mut Fitting<'_, Joint>, name: &str| match self.warp_weight > 0.0 {
            true => Offsets::new(fitting.weights, name, e).map(Some),
            false => Ok(None),
        };
        Ok(Head {
            clips: Projection::new(fitting.weights, "clips", width, e)?,
            words: Projection::new(fitting.weights, "words", width, e)?,
            clip_offsets: offsets(fitting, "clips")?,
            word_offsets: offsets(fitting, "words")?,
        })
    }

    fn loss(&self, head: &Head, batch: &Batch<'_, Joint>) -> Result<Tensor> {
        let (images, texts) = (self.ordered(batch)?, Parts::texts(batch)?);
        let project =
            |layer: &Projection, x: &Tensor| layer.forward(x, self.projection_dropout, Some(&mut batch.stream()));
        let clips = project(&head.clips, &images.fragments)?; // (1)
        let v = self.scaled(&images.lengths.mean(&clips)?)?;
        let s = self.scaled(&project(&head.words, &texts.whole)?)?;
        let mut loss = coarse(&v, &s, self.temperature)?; // (3)
        if self.fine_weight > 0.0 || self.warp_weight > 0.0 {
            let words = project(&head.words, &texts.fragments)?;
            let sides = [Side::new(&clips, &images.lengths)?, Side::new(&words, &texts.lengths)?];
            let picked = pick(&sides, self.matches, self.clip_match)?; // (4)
            let others = match self.fine_negatives {
                FineNegatives::Captions => {
                    let (cosines, relations) = (sides[0].units.matmul(&sides[1].units.t()?)?, batch.relations()?);
                    Some([(cosines.clone(), relations.clone()), (cosines.t()?, relations.t())])
                }
                FineNegatives::Sentence => None,
            };
            for way in 0..2 {
                let [q, k] = [&sides[way], &sides[1 - way]];
                let drawn;
                let negatives = match &others {
                    Some(others) => Negatives::Others(&others[way].0, &others[way].1),
                    None => {
                        drawn = self.draw(k, q, &mut batch.stream());
                        Negatives::Drawn(&drawn)
                    }
                };
                let fine = Fine::new([q, k], self.fine_temperature, &negatives)?;
                if self.fine_weight > 0.0 {
                    loss = (loss + (fine.matched(&picked[way])? * self.fine_weight)?)?; // (6)
                }
                let offsets = if way == 0 { &head.word_offsets } else { &head.clip_offsets };
                if let Some(offsets) = offsets {
                    let shifts = shifts(q, k, &mut batch.stream());
                    // Of the released code's two ways one has the fault.
                    let slot = (way == 1 && self.warp == Warp::Released).then(|| images.lengths.as_slice()[0] - 1);
                    loss = (loss + (fine.warped(&picked[way], &shifts, offsets, slot)? * self.warp_weight)?)?; // (8)
                }
            }
        }
        if self.order_weight > 0.0 {
            let (turned, differs) = self.turned(batch)?;
            let turned = self.scaled(&project(&head.words, &turned)?)?;
            let logits = Tensor::stack(&[(&v * &s)?.sum(1)?, (&v * turned)?.sum(1)?], 1)?;
            let rows = against(&(logits / self.temperature)?, |b, _| differs[b])?; // (9)
            loss = (loss + (rows.mean_all()? * self.order_weight)?)?;
        }
        Ok(loss) // (10)
    }

    fn encode_images(&self, head: &Head, body: &Joint, images: &Images) -> Result<Codes> {
        parts::image_codes(body, images, self.projection, |parts| {
            self.scaled(&parts.lengths.mean(&head.clips.forward(&parts.fragments, 0.0, None)?)?)
        })
    }

    fn encode_texts(&self, head: &Head, body: &Joint, texts: &Texts) -> Result<Codes> {
        parts::text_codes(body, texts, self.projection, |parts| {
            self.scaled(&head.words.forward(&parts.whole, 0.0, None)?)
        })
    }

    fn similarity<'a>(&'a self, _: &'a Head) -> Similarity<'a> {
        if self.normalise { Similarity::Cosine } else { Similarity::Dot }
    }

    /// Where each word is: the softmax over an image's fragments, in the dataset's order, of cosines over t.
    fn attention(
        &self,
        head: &Head,
        body: &Joint,
        image: (&Images, usize),
        text: (&Texts, usize),
    ) -> Result<Vec<AttentionMap>> {
        let [clips, words] = parts::pair(body, image, text)?;
        let clips = unit(&head.clips.forward(&clips, 0.0, None)?)?;
        let words = unit(&head.words.forward(&words, 0.0, None)?)?;
        let cosines = words.matmul(&clips.t()?)?;
        let weights = ops::softmax(&(cosines / self.fine_temperature)?, D::Minus1)?;
        Ok(vec![AttentionMap::of("", Direction::T2i, &weights)?])
    }

    fn remark(&self) -> Option<String> {
        (self.fine_weight == 0.0 && self.warp_weight == 0.0)
            .then(|| "wholes alone: no word is set against a clip".into())
    }

    fn operations() -> Vec<Operation> {
        golden::operations()
    }
}

impl Params {
    fn scaled(&self, x: &Tensor) -> Result<Tensor> {
        if self.normalise { unit(x) } else { Ok(x.clone()) }
    }

    /// The images of a step with their fragments in order.
    fn ordered(&self, batch: &Batch<'_, Joint>) -> Result<Parts> {
        let parts = Parts::images(batch)?;
        let (RegionOrder::Raster, Some(boxes)) = (self.region_order, batch.boxes()) else { return Ok(parts) };
        let rows: Vec<usize> = (0..parts.lengths.len())
            .flat_map(|image| {
                let range = parts.lengths.range(image);
                raster(&boxes[range.clone()]).into_iter().map(move |place| range.start + place)
            })
            .collect();
        Ok(Parts { fragments: select(&parts.fragments, &rows)?, ..parts })
    }

    /// Negatives of the queries `q` that are drawn from the same item of `k`, as rows.
    fn draw(&self, k: &Side<'_>, q: &Side<'_>, stream: &mut Stream) -> Vec<usize> {
        let draw = |item: usize| k.lengths.range(item).start + stream.below(k.lengths.as_slice()[item]);
        let owners = parts::owners(q.lengths);
        owners.into_iter().flat_map(|item| std::iter::repeat_n(item, self.draws)).map(draw).collect()
    }

    /// Vectors of the texts of a step with their words in another order, `[texts, d]`, and whether that is another text.
    fn turned(&self, batch: &Batch<'_, Joint>) -> Result<(Tensor, Vec<bool>)> {
        let all = &batch.training.train.texts;
        let tokens = all.tokens.as_ref().ok_or_else(|| batch.training.missing(NAME, "texts.tokens"))?;
        let mut turned: Vec<Vec<u32>> = batch.items.texts.iter().map(|&text| tokens[text].clone()).collect();
        for text in &mut turned {
            let inside = if text.len() > 2 { 1..text.len() - 1 } else { 0..text.len() };
            match self.order {
                Order::Reverse => text[inside].reverse(),
                Order::Shuffle => batch.stream().shuffle(&mut text[inside]),
            }
        }
        let differs = turned.iter().zip(&batch.items.texts).map(|(turned, &text)| *turned != tokens[text]).collect();
        let ids = batch.items.texts.iter().map(|&text| all.ids[text].clone()).collect();
        let texts = Texts { ids, tokens: Some(turned), ..Texts::default() };
        let items: Vec<usize> = (0..texts.ids.len()).collect();
        let joint = batch.body();
        let vectors = match joint.pools_states() {
            true => joint.pool_states(&joint.states(&texts, &items)?)?,
            false => joint.training_texts(&texts, &items, Some(&mut batch.stream()))?,
        };
        Ok((vectors, differs))
    }
}

/// Places of boxes `[x0, y0, x1, y1]` row by row: by the height of their centres, then from left to right.
fn raster(boxes: &[[f32; 4]]) -> Vec<usize> {
    let centre = |b: &[f32; 4]| [b[1] + b[3], b[0] + b[2]];
    let mut order: Vec<usize> = (0..boxes.len()).collect();
    order.sort_by(|&i, &j| {
        let (a, b) = (centre(&boxes[i]), centre(&boxes[j]));
        a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1]))
    });
    order
}

/// A place in the item of `k` for each query, drawn.
fn shifts(q: &Side<'_>, k: &Side<'_>, stream: &mut Stream) -> Vec<usize> {
    parts::owners(q.lengths).into_iter().map(|item| stream.below(k.lengths.as_slice()[item])).collect()
}

/// (3) of clips' means and texts `[b, e]`.
fn coarse(v: &Tensor, s: &Tensor, temperature: f64) -> Result<Tensor> {
    let logits = (s.matmul(&v.t()?)? / temperature)?;
    let own = (v.matmul(&v.t()?)? + s.matmul(&s.t()?)?)?;
    let targets = ops::softmax(&(own * (temperature / 2.0))?, D::Minus1)?; // (2)
    let way = |targets: &Tensor, logits: &Tensor| -> Result<Tensor> {
        Ok((targets * ops::log_softmax(logits, D::Minus1)?)?.sum(1)?.mean_all()?.neg()?)
    };
    let both = (way(&targets, &logits)? + way(&targets.t()?.contiguous()?, &logits.t()?.contiguous()?)?)?;
    Ok((both * 0.5)?)
}

/// What stands behind the encoders.
pub struct Head {
    clips: Projection,
    words: Projection,
    clip_offsets: Option<Offsets>,
    word_offsets: Option<Offsets>,
}

#[cfg(test)]
mod tests;
