//! Two stages: the order of the best `N` of the first is the second's, and all others follow in the order of the first.
//!
//! The order is written as scores that any metric reads: the items of the shortlist get `G, G - 1, .., 1` for the `G` different
//! scores that the second stage gives them, all others `0, -1, ..` for the different scores that the first stage gave them. Items
//! that tie in the stage that orders them tie exactly, and an item is of the shortlist if its score is above 0.

use xmbench_datasets::Error as Refused;
use xmbench_methods::{Error, Result};

use super::{best::Best, dense, not_a_number};

/// Places up to here are exact as f32.
const MOST: usize = 1 << 24;

/// Refuses an empty shortlist and a gallery whose places are no f32.
pub fn accept(shortlist: usize, gallery: usize) -> Result<()> {
    if shortlist == 0 {
        return Err(
            Refused::option("shortlist", "at least 1 item", "0", "order some items anew, or use one stage").into()
        );
    }
    if gallery > MOST {
        return Err(Error::Numeric(format!(
            "two stages order galleries of at most {MOST} items, found {gallery}; search a smaller split"
        )));
    }
    Ok(())
}

/// The scores of a query after both stages, from all its scores by the first; `second` scores listed items.
pub fn row(
    first: &[f32],
    shortlist: usize,
    query: usize,
    second: impl FnOnce(&[u32]) -> Result<Vec<f32>>,
) -> Result<Vec<f32>> {
    let mut best = Best::new(shortlist.min(first.len()));
    dense::offer(first, 0, &mut best).map_err(|item| not_a_number(query, item))?;
    let mut items: Vec<u32> = best.sorted().into_iter().map(|key| key as u32).collect();
    // In the order of the gallery: what the second stage is handed must not depend on the first's scores.
    items.sort_unstable();
    let scores = second(&items)?;
    Ok(places(first, &items, &scores))
}

/// The scores of both stages: `listed` are the positions of the shortlist in `first`, `second` its scores.
pub fn places(first: &[f32], listed: &[u32], second: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; first.len()];
    let mut shortlist: Vec<(f32, u32)> = second.iter().copied().zip(listed.iter().copied()).collect();
    shortlist.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut place, mut before) = (0.0f32, f32::NAN);
    for (score, item) in shortlist {
        // -0 and 0 are one score.
        if score != before {
            place += 1.0;
        }
        before = score;
        out[item as usize] = place;
    }
    let mut others: Vec<(f32, usize)> =
        (0..first.len()).filter(|&item| out[item] == 0.0).map(|item| (first[item], item)).collect();
    others.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    (place, before) = (1.0, f32::NAN);
    for (score, item) in others {
        if score != before {
            place -= 1.0;
        }
        before = score;
        out[item] = place;
    }
    out
}
