//! A hinge over all positive pairs of a batch, each with one negative of its query that somebody chooses, such as
//! [`super::DistanceWeighted`]:
//!
//! ```text
//! sum over positives (a, p) of [margin + s_{a, n(a, p)} - s_ap]+,  rows asking, plus the same with columns asking     (1)
//! ```
//! A positive whose query has no negative to choose takes no part. No gradient passes through the choice.

use candle_core::{DType, Tensor};

use super::{Relation, Relations, rows::by_row};
use crate::Result;

/// Equation (1) of `scores [n, m]`, a scalar. `choose` is given the scores of a query with its negatives, in their order, and names one
/// by its place or none; it is called once a positive, row after row and then column after column.
///
/// # Errors
/// If the scores are of another shape than the relations, or `choose` names a place that there is not.
pub fn sampled_hinge(
    scores: &Tensor,
    relations: &Relations,
    margin: f64,
    choose: &mut dyn FnMut(&[f64]) -> Option<usize>,
) -> Result<Tensor> {
    relations.fit("sampled hinge", scores)?;
    let rows = one_way(scores, relations, margin, choose)?;
    let columns = one_way(&scores.t()?, &relations.t(), margin, choose)?;
    Ok((rows + columns)?)
}

/// Rows asking.
fn one_way(
    scores: &Tensor,
    relations: &Relations,
    margin: f64,
    choose: &mut dyn FnMut(&[f64]) -> Option<usize>,
) -> Result<Tensor> {
    let values = scores.detach().to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let mut chosen: Vec<Vec<(usize, usize)>> = Vec::with_capacity(values.len());
    for (query, row) in values.iter().enumerate() {
        let of = |kind| relations.row(query).iter().enumerate().filter(move |(_, r)| **r == kind).map(|(j, _)| j);
        let negatives: Vec<usize> = of(Relation::Negative).collect();
        let scores: Vec<f64> = negatives.iter().map(|&j| row[j]).collect();
        let mut pairs = Vec::new();
        for positive in of(Relation::Positive) {
            match choose(&scores).map(|place| negatives.get(place)) {
                Some(Some(&negative)) => pairs.push((positive, negative)),
                Some(None) => {
                    return Err(crate::Error::Numeric(format!(
                        "sampled hinge: expected one of {} negatives of query {query}",
                        negatives.len()
                    )));
                }
                None => {}
            }
        }
        chosen.push(pairs);
    }
    let values = by_row("sampled hinge", scores, |query, row, slope| {
        let mut sum = 0.0;
        for &(positive, negative) in &chosen[query] {
            let cost = margin + row[negative] - row[positive];
            // Written so that NaN is not lost.
            if cost <= 0.0 {
                continue;
            }
            sum += cost;
            slope[negative] += 1.0;
            slope[positive] -= 1.0;
        }
        sum
    })?; // (1)
    Ok(values.sum_all()?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::{Relation::*, *};

    #[test]
    fn every_positive_has_its_own_negative() {
        let s = Var::new(&[[0.9f64, 0.5, 0.8], [0.4, 0.6, 0.7]], &Device::Cpu).unwrap();
        // Row 0 has two positives and one negative, row 1 has one and two.
        let relations =
            Relations::new(2, 3, |i, j| [[Positive, Positive, Negative], [Negative, Negative, Positive]][i][j]);
        let mut asked = Vec::new();
        let loss = sampled_hinge(&s, &relations, 0.2, &mut |scores| {
            asked.push(scores.to_vec());
            (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]))
        })
        .unwrap();
        assert_eq!(asked, [vec![0.8], vec![0.8], vec![0.4, 0.6], vec![0.4], vec![0.6], vec![0.8]]);
        // Rows: .2 + .8 - .9, .2 + .8 - .5, .2 + .6 - .7; columns: 0 (.2 + .4 - .9), .2 + .6 - .5, .2 + .8 - .7.
        let expected = 0.1 + 0.5 + 0.1 + 0.3 + 0.3;
        assert!((loss.to_scalar::<f64>().unwrap() - expected).abs() < 1e-12);
        let grads = loss.backward().unwrap();
        let grads = grads.get(&s).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(grads, [[-1.0, -2.0, 3.0], [0.0, 2.0, -2.0]]);
    }

    #[test]
    fn without_a_negative_there_is_nothing_to_learn_and_nan_is_not_hidden() {
        let s = Var::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        let none = sampled_hinge(&s, &Relations::diagonal(2), 0.2, &mut |_| None).unwrap();
        assert_eq!(none.to_scalar::<f32>().unwrap(), 0.0);
        assert_eq!(none.backward().unwrap().get(&s).unwrap().to_vec2::<f32>().unwrap(), [[0.0; 2]; 2]);
        let all = Relations::new(2, 2, |_, _| Positive);
        let loss = sampled_hinge(&s, &all, 0.2, &mut |scores| (!scores.is_empty()).then_some(0)).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let s = Var::new(&[[1f32, f32::NAN], [3.0, 4.0]], &Device::Cpu).unwrap();
        let loss = sampled_hinge(&s, &Relations::diagonal(2), 0.2, &mut |_| Some(0)).unwrap();
        assert!(loss.to_scalar::<f32>().unwrap().is_nan());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let s = Tensor::zeros((2, 2), DType::F32, &Device::Cpu).unwrap();
        let error = sampled_hinge(&s, &Relations::diagonal(3), 0.2, &mut |_| None).unwrap_err().to_string();
        assert!(error.contains("the relations' shape [3, 3], found [2, 2]"), "{error}");
        let error = sampled_hinge(&s, &Relations::diagonal(2), 0.2, &mut |_| Some(1)).unwrap_err().to_string();
        assert!(error.contains("one of 1 negatives of query 0"), "{error}");
    }
}
