//! Find the text of an image and the image of a text.

use rayon::prelude::*;
use xmbench_datasets::{Collection, Error, Pairs};
use xmbench_methods::{Codes, Result};

use super::{
    Direction, Evaluation, Found, Query, Side, Ties,
    found::Keep,
    rank::{self, Standing},
    tally::{Bounds, Tally, depths},
};
use crate::retrieval::{Compared, Rows, Scores, select};

/// Items that the recall curve reaches at most.
const DEPTH: usize = 1000;

/// One fold: consecutive images and every text that belongs to one of them.
struct Fold {
    images: Vec<usize>,
    texts: Vec<usize>,
    pairs: Pairs,
}

/// Cuts a collection into folds. A text of images in two folds is in both.
fn cut(collection: &Collection, folds: usize) -> Vec<Fold> {
    let (images, texts) = (collection.images.len(), collection.texts.len());
    if folds == 1 {
        return vec![Fold {
            images: (0..images).collect(),
            texts: (0..texts).collect(),
            pairs: collection.pairs.clone(),
        }];
    }
    let cut = |fold: usize| {
        let first = fold * images / folds;
        let members: Vec<usize> = (first..(fold + 1) * images / folds).collect();
        let mut texts: Vec<u32> = members.iter().flat_map(|&i| collection.pairs.texts_of(i)).copied().collect();
        texts.sort_unstable();
        texts.dedup();
        let place =
            |text: &u32| texts.binary_search(text).expect("the texts of these images were just gathered") as u32;
        let pairs = members
            .iter()
            .flat_map(|&i| collection.pairs.texts_of(i).iter().map(move |text| ((i - first) as u32, place(text))))
            .collect();
        let pairs = Pairs::new(members.len(), texts.len(), pairs);
        Fold { images: members, texts: texts.into_iter().map(|text| text as usize).collect(), pairs }
    };
    (0..folds).map(cut).collect()
}

impl Fold {
    fn relevant(&self, direction: Direction, query: usize) -> &[u32] {
        match direction {
            Direction::I2t => self.pairs.texts_of(query),
            Direction::T2i => self.pairs.images_of(query),
        }
    }

    fn sizes(&self, direction: Direction) -> (usize, usize) {
        match direction {
            Direction::I2t => (self.images.len(), self.texts.len()),
            Direction::T2i => (self.texts.len(), self.images.len()),
        }
    }

    /// Refuses queries to which nothing belongs: their recall would be 0 by construction.
    fn check(&self) -> Result<()> {
        for (direction, kind, other) in [(Direction::I2t, "image", "text"), (Direction::T2i, "text", "image")] {
            let empty = (0..self.sizes(direction).0).find(|&query| self.relevant(direction, query).is_empty());
            if let Some(query) = empty {
                let split = if direction == Direction::I2t { self.images[query] } else { self.texts[query] };
                let next = "drop it from the split or add its pair";
                let expected = format!("at least one {other} that belongs to it");
                return Err(Error::option(format!("{kind} {split} of the scored split"), expected, "none", next).into());
            }
        }
        Ok(())
    }

    /// Where the best own item of every query stands, and what is kept of its gallery.
    fn standings(&self, direction: Direction, scores: &Scores<'_>, keep: Keep) -> Result<Outcome> {
        let (queries, gallery) = self.sizes(direction);
        let mut out = Outcome { standings: Vec::with_capacity(queries), found: Vec::new() };
        scores.each(direction, |range, rows| {
            let first = range.start;
            let block: Vec<Standing> = (0..range.len())
                .into_par_iter()
                .map(|i| {
                    let (row, own) = (i * gallery..(i + 1) * gallery, self.relevant(direction, first + i));
                    match rows {
                        Rows::Real(values) => Standing::of(&values[row], own, |a, b| a > b),
                        Rows::Distances { values, .. } => Standing::of(&values[row], own, |a, b| a < b),
                    }
                })
                .collect();
            out.standings.extend(block);
            if keep.best > 0 {
                let kept: Vec<Vec<Found>> = (0..range.len())
                    .into_par_iter()
                    .map(|i| {
                        let own = self.relevant(direction, first + i);
                        let is_own = |item: usize| own.contains(&(item as u32));
                        keep.of((direction, first + i), &rows.scores(i, gallery), is_own, own)
                    })
                    .collect::<Result<_>>()?;
                out.found.extend(kept.into_iter().flatten().map(|found| self.placed(found)));
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// With positions in the split in place of those in the fold.
    fn placed(&self, found: Found) -> Found {
        let (queries, items) = match found.direction {
            Direction::I2t => (&self.images, &self.texts),
            Direction::T2i => (&self.texts, &self.images),
        };
        Found { query: queries[found.query as usize] as u32, item: items[found.item as usize] as u32, ..found }
    }

    fn queries(&self, direction: Direction, standings: &[Standing]) -> impl Iterator<Item = Query> {
        standings.iter().enumerate().map(move |(i, standing)| {
            let (query, image) = match direction {
                Direction::I2t => (self.images[i], i),
                Direction::T2i => (self.texts[i], self.pairs.images_of(i)[0] as usize),
            };
            Query {
                direction,
                query: query as u32,
                cluster: self.images[image] as u32,
                better: standing.better as u32,
                tied: standing.tied as u32,
                own: standing.own as u32,
                average_precision: f64::NAN,
            }
        })
    }
}

/// What came out of one direction of one fold.
#[derive(Default)]
struct Outcome {
    standings: Vec<Standing>,
    found: Vec<Found>,
}

/// Metrics of one direction of one fold, which is one of `1 / share`.
fn summarise(
    tally: &mut Tally,
    direction: Direction,
    standings: &[Standing],
    (cutoffs, ties, gallery): (&[usize], Ties, usize),
    share: f64,
) {
    let recall = |k: usize, ties: Ties| {
        100.0 * standings.iter().map(|standing| standing.hit(k, ties)).sum::<f64>() / standings.len() as f64
    };
    for &k in cutoffs {
        let value = Bounds::each(|ties| recall(k, ties));
        tally.add(Some(direction), &format!("R@{k}"), value, share);
        tally.add(None, "rsum", value, share);
    }
    tally.add(Some(direction), "MedR", Bounds::each(|ties| rank::median(standings, ties)), share);
    tally.add(Some(direction), "MeanR", Bounds::each(|ties| rank::mean(standings, ties)), share);
    let curve = depths(gallery.min(DEPTH)).into_iter().map(|n| [n as f64, recall(n, ties)]).collect();
    tally.curve(direction, "recall@n", curve, share);
}

/// Scores a matcher.
pub fn evaluate(
    (cutoffs, folds, ties): (&[usize], usize, Ties),
    side: Side<'_>,
    compared: &Compared<'_>,
    keep: Keep,
) -> Result<Evaluation> {
    over_folds((cutoffs, folds, ties), compared.shortlist(), side.collection, |fold| {
        let part = |lists: &[Codes], items: &[usize]| -> Option<Vec<Codes>> {
            (folds > 1).then(|| lists.iter().map(|codes| select(codes, items)).collect())
        };
        let (images, texts) = (part(side.images, &fold.images), part(side.texts, &fold.texts));
        let (images, texts) = (images.as_deref().unwrap_or(side.images), texts.as_deref().unwrap_or(side.texts));
        let scores = Scores::new(images, texts, compared)?.keep()?;
        Ok([fold.standings(Direction::I2t, &scores, keep)?, fold.standings(Direction::T2i, &scores, keep)?])
    })
}

/// The expectation of a random order.
pub fn chance((cutoffs, folds, ties): (&[usize], usize, Ties), collection: &Collection) -> Result<Evaluation> {
    over_folds((cutoffs, folds, ties), None, collection, |fold| {
        Ok([Direction::I2t, Direction::T2i].map(|direction| {
            let (queries, gallery) = fold.sizes(direction);
            let own = |query| fold.relevant(direction, query).len();
            let standing = |query| Standing { better: 0, tied: gallery, own: own(query) };
            Outcome { standings: (0..queries).map(standing).collect(), found: Vec::new() }
        }))
    })
}

fn over_folds(
    (cutoffs, folds, ties): (&[usize], usize, Ties),
    shortlist: Option<usize>,
    collection: &Collection,
    outcomes: impl Fn(&Fold) -> Result<[Outcome; 2]>,
) -> Result<Evaluation> {
    let images = collection.images.len();
    if folds > images {
        let next = "use fewer folds or a larger split";
        return Err(Error::option("folds", format!("at most {images}, one an image"), folds.to_string(), next).into());
    }
    let (mut tally, mut queries, mut found) = (Tally::default(), Vec::new(), Vec::new());
    for fold in cut(collection, folds) {
        fold.check()?;
        for (direction, outcome) in [Direction::I2t, Direction::T2i].into_iter().zip(outcomes(&fold)?) {
            let standings = outcome.standings;
            let settings = (cutoffs, ties, fold.sizes(direction).1);
            let share = 1.0 / folds as f64;
            summarise(&mut tally, direction, &standings, settings, share);
            if let Some(shortlist) = shortlist {
                let better = standings.iter().map(|standing| standing.better);
                tally.held(direction, better, shortlist.min(settings.2), share);
            }
            queries.extend(fold.queries(direction, &standings));
            found.extend(outcome.found);
        }
    }
    Ok(Evaluation { found, ..tally.finish(ties, queries) })
}
