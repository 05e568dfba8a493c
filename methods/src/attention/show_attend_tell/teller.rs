//! Pairs scored by how likely the text is.

use candle_core::Tensor;

use super::decoder::{Decoder, Scene};
use crate::{
    AttentionMap, Error, Result,
    nn::cross::{Direction, Interaction, Padded, Pairing, Side},
};

/// Values that a tensor of a step may hold: 16 MiB of f32.
const LIMIT: usize = 1 << 22;

/// Equation (8) and (9).
#[derive(Clone)]
pub(super) struct Teller {
    pub decoder: Decoder,
    /// beta, and the mean image, `[1, 1, D]`; nothing where beta is 0.
    pub prior: Option<(f64, Tensor)>,
    /// Values that a tensor of a step may hold.
    pub limit: usize,
}

impl Teller {
    pub fn new(decoder: Decoder, prior: Option<(f64, Tensor)>) -> Self {
        Self { decoder, prior, limit: LIMIT }
    }

    /// Values of a step's largest tensor, a pair: the vocabulary, the gates, the hidden layer of the attention on every region, or
    /// what it sums where each text has an image of its own.
    fn a_pair(&self, made: &[Tensor], matching: bool) -> Result<usize> {
        let ((_, regions, attention), (_, _, width)) = (made[0].dims3()?, made[1].dims3()?);
        let an_image = if matching { attention.max(width) } else { attention };
        let sizes = &self.decoder.sizes;
        Ok(sizes.vocabulary.max(4 * sizes.hidden).max(regions * an_image))
    }

    /// Log-likelihoods of texts, `[texts, images]` with `matching` false, else `[texts, 1]`.
    fn log_likelihoods(
        &self,
        made: &[Tensor],
        real: Option<&Tensor>,
        texts: &[&[u32]],
        matching: bool,
    ) -> Result<Tensor> {
        let images = made[0].dim(0)?;
        let most = (self.limit / self.a_pair(made, matching)?).max(1);
        let scene = |start: usize, len: usize| -> Result<Scene> {
            let part = |x: &Tensor| -> Result<Tensor> {
                let x = x.narrow(0, start, len)?.contiguous()?;
                Ok(x.unsqueeze(usize::from(matching))?)
            };
            let real = real.map(|real| part(real)?.unsqueeze(2).map_err(Error::from)).transpose()?;
            Ok(Scene {
                keys: part(&made[0])?,
                values: part(&made[1])?,
                real,
                start: [part(&made[2])?, part(&made[3])?],
            })
        };
        let mut keep = |x: Tensor| Ok(x);
        if matching {
            let parts = texts.chunks(most).enumerate().map(|(at, texts)| {
                Ok(self.decoder.tell(&scene(at * most, texts.len())?, texts, &mut keep)?.log_likelihood)
            });
            return Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?);
        }
        let wide = most.min(images);
        let mut rows = Vec::new();
        for texts in texts.chunks((most / wide).max(1)) {
            let mut columns = Vec::new();
            for start in (0..images).step_by(wide) {
                let scene = scene(start, wide.min(images - start))?;
                columns.push(self.decoder.tell(&scene, texts, &mut keep)?.log_likelihood);
            }
            rows.push(Tensor::cat(&columns, 1)?);
        }
        Ok(Tensor::cat(&rows, 0)?)
    }

    /// Token numbers of texts that are given as vectors of length 1.
    fn tokens(&self, texts: &Padded) -> Result<Vec<Vec<u32>>> {
        let (_, steps, width) = texts.vectors().dims3()?;
        if width != 1 {
            return Err(Error::Numeric(format!(
                "show_attend_tell: expected token numbers, vectors of length 1, found length {width}; encode texts with this matcher"
            )));
        }
        let values = texts.vectors().flatten_all()?.to_vec1::<f32>()?;
        let real = texts.real().map(|real| real.flatten_all()?.to_vec1::<u8>()).transpose()?;
        let mut out = Vec::new();
        for (text, row) in values.chunks_exact(steps).enumerate() {
            let length = match &real {
                Some(real) => real[text * steps..(text + 1) * steps].iter().filter(|&&there| there != 0).count(),
                None => steps,
            };
            let row = &row[..length];
            let known = |&&x: &&f32| x >= 0.0 && x.fract() == 0.0 && (x as usize) < self.decoder.sizes.vocabulary;
            if let Some(other) = row.iter().find(|x| !known(x)) {
                return Err(Error::Numeric(format!(
                    "show_attend_tell: expected token numbers below {}, found {other}; encode texts with this matcher",
                    self.decoder.sizes.vocabulary
                )));
            }
            out.push(row.iter().map(|&x| x as u32).collect());
        }
        Ok(out)
    }
}

impl Teller {
    /// The weights `alpha` of every step of one text before one image, `[1, 1, steps, k]`.
    fn looks(&self, image: &Side, tokens: &[u32]) -> Result<Tensor> {
        let [keys, values, h, c] = [0, 1, 2, 3].map(|at| image.made[at].clone());
        let scene = Scene {
            keys: keys.unsqueeze(0)?,
            values: values.unsqueeze(0)?,
            real: None,
            start: [h.unsqueeze(0)?, c.unsqueeze(0)?],
        };
        let mut states = scene.start.clone();
        let mut looks = Vec::new();
        for &before in tokens {
            let step = self.decoder.step(&scene, &[before], [&states[0], &states[1]])?;
            looks.push(step.alpha);
            states = step.states;
        }
        Ok(Tensor::stack(&looks, 2)?)
    }
}

impl Interaction for Teller {
    fn attention(&self, image: &Side, text: &Side) -> Result<Vec<AttentionMap>> {
        let tokens = self.tokens(&text.items)?.remove(0);
        // The step that tells a word stands in its row: nothing was looked at to tell the start.
        let looks = self.looks(image, &tokens[..tokens.len() - 1])?;
        let before = looks.narrow(2, 0, 1)?.zeros_like()?;
        let looks = Tensor::cat(&[before, looks], 2)?;
        Ok(vec![AttentionMap::of("what is looked at to tell a word", Direction::T2i, &looks)?])
    }

    fn images(&self, images: &Padded) -> Result<Vec<Tensor>> {
        Ok(self.decoder.prepared(images)?.into())
    }

    /// Training has no scores: it follows the likelihood of each text given its own image.
    fn scores(&self, images: &Side, texts: &Side, pairing: Pairing) -> Result<Tensor> {
        let tokens = self.tokens(&texts.items)?;
        let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let matching = pairing == Pairing::Matching;
        let mut scores = self.log_likelihoods(&images.made, images.items.real(), &tokens, matching)?;
        if let Some((beta, mean)) = &self.prior {
            let made = self.decoder.prepared(&Padded::full(mean)?)?;
            let prior = self.log_likelihoods(&made, None, &tokens, false)?;
            scores = scores.broadcast_sub(&(prior * *beta)?)?; // (9)
        }
        let steps: Vec<f32> = tokens.iter().map(|text| text.len().saturating_sub(1).max(1) as f32).collect();
        let steps = Tensor::from_vec(steps, (tokens.len(), 1), scores.device())?.to_dtype(scores.dtype())?;
        let scores = scores.broadcast_div(&steps)?; // (8)
        Ok(if matching { scores.squeeze(1)? } else { scores.t()?.contiguous()? })
    }
}
