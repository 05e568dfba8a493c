//! The golden operation: clips and words `[b, steps, e]`, with the random places of a run.

use candle_core::{DType, Tensor, Var};

use super::{
    ClipMatch, coarse,
    fine::{Fine, Negatives, Side, pick},
    projection::Offsets,
};
use crate::{
    Error, Result,
    golden::{Answer, Case, Operation},
    nn::{Lengths, Linear},
};

pub(super) fn operations() -> Vec<Operation> {
    vec![Operation { name: "dense.locvtp", run: locvtp, ignored: &[] }]
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

fn offsets(case: &Case, side: &str) -> Result<Offsets> {
    let layer = |name: &str| -> Result<Linear> {
        let part = |part: &str| case.get(&format!("param.{name}{side}.{part}"))?.tensor(DType::F64);
        Ok(Linear::from_parts(part("weight")?.t()?.contiguous()?, part("bias")?))
    };
    Ok(Offsets::from_parts(layer("signProj")?, layer("distProj")?))
}

fn locvtp(case: &Case) -> Result<Answer> {
    case.only(&["num_neg", "temperature_clip", "temperature_fg"])?;
    let get = |name: &str| case.get(name)?.tensor(DType::F64);
    let (vid, word, sent) =
        (Var::from_tensor(&get("in.vid")?)?, Var::from_tensor(&get("in.word")?)?, Var::from_tensor(&get("in.sent")?)?);
    let ((b, clips, e), words) = (vid.dims3()?, word.dim(1)?);
    let loss = coarse(&vid.mean(1)?, &sent, case.config("temperature_clip")?)?;
    let mut answer = Answer::default().with("out.clip_loss", values(&loss)?);
    let grads = loss.backward()?;
    for (name, var) in [("grad.clip_sent", &sent), ("grad.clip_vid", &vid)] {
        if let Some(grad) = grads.get(var) {
            answer = answer.with(name, values(grad)?);
        }
    }
    let rows = [vid.reshape((b * clips, e))?, word.reshape((b * words, e))?];
    let steps = [clips, words];
    let lengths = [Lengths::new(std::iter::repeat_n(clips, b))?, Lengths::new(std::iter::repeat_n(words, b))?];
    let sides = [Side::new(&rows[0], &lengths[0])?, Side::new(&rows[1], &lengths[1])?];
    let picked = pick(&sides, 1, ClipMatch::Released)?;
    let places = |picked: &[Vec<usize>]| picked.iter().map(|places| places[0] as f64).collect::<Vec<_>>();
    answer = answer.with("out.word_match", places(&picked[0])).with("out.clip_match", places(&picked[1]));
    let draws: usize = case.config("num_neg")?;
    let temperature = case.config("temperature_fg")?;
    for (q, k, negatives, shifted, matched, warped, offsets) in [
        (
            0,
            1,
            "in.neg_word_index",
            "in.shift_word_index",
            "out.fg_vid_word",
            "out.fg_vid_shiftword",
            offsets(case, "Word")?,
        ),
        (
            1,
            0,
            "in.neg_clip_index",
            "in.shift_clip_index",
            "out.fg_word_vid",
            "out.fg_word_shiftvid_fixed",
            offsets(case, "Vid")?,
        ),
    ] {
        let drawn: Vec<usize> = case.get(negatives)?.indices();
        let s = case.get(shifted)?.indices();
        if drawn.len() != b * steps[q] * draws
            || s.len() != b * steps[q]
            || drawn.iter().chain(&s).any(|&place| place >= steps[k])
        {
            return Err(Error::Format {
                file: case.file.clone(),
                expected: format!("{draws} places below {} a query in `{negatives}`, one in `{shifted}`", steps[k]),
                found: format!("{} and {} places for {} queries", drawn.len(), s.len(), b * steps[q]),
            });
        }
        let first = |at: usize, each: usize| at / (each * steps[q]) * steps[k];
        let drawn: Vec<usize> = drawn.iter().enumerate().map(|(at, place)| first(at, draws) + place).collect();
        let fine = Fine::new([&sides[q], &sides[k]], temperature, &Negatives::Drawn(&drawn))?;
        let loss = fine.matched(&picked[q])?;
        answer =
            answer.with(matched, values(&loss)?).with(warped, values(&fine.warped(&picked[q], &s, &offsets, None)?)?);
        if q == 0 {
            let grads = loss.backward()?;
            for (name, var) in [("grad.fg_vid_word_vid", &vid), ("grad.fg_vid_word_word", &word)] {
                if let Some(grad) = grads.get(var) {
                    answer = answer.with(name, values(grad)?);
                }
            }
        } else if case.has("out.fg_word_shiftvid_upstream") && clips <= words {
            // With more clips than words the released code stops.
            let loss = fine.warped(&picked[q], &s, &offsets, Some(clips - 1))?;
            answer = answer.with("out.fg_word_shiftvid_upstream", values(&loss)?);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_passes() {
        crate::golden::assert_files(&super::operations());
    }
}
