//! Find items of the other kind that share a class with the query.
//!
//! A query without relevant items counts 0 and stays in the mean, as in the hashing literature.

use std::collections::BTreeMap;

use rayon::prelude::*;
use xmbench_datasets::{Collection, random::Seed};
use xmbench_methods::Result;

use super::{
    Denominator, Direction, Evaluation, Found, Query, Side, Ties,
    found::Keep,
    ranking::Ranking,
    relevance::Relevance,
    tally::{Bounds, Tally, depths},
};
use crate::retrieval::{Compared, Rows, Scores};

/// What is measured.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    pub cutoffs: &'a [usize],
    pub denominator: Denominator,
    pub ties: Ties,
    /// MAP@all alone: what validation needs.
    pub brief: bool,
    /// Items a query that are kept.
    pub best: usize,
}

/// What one query contributes.
#[derive(Clone)]
struct Contribution {
    /// MAP@all and MAP@R, then MAP, P and nDCG of each cutoff.
    metrics: Vec<Bounds>,
    /// 11 and 101 levels of recall, then every depth.
    curves: [Vec<f64>; 3],
    /// Of binary codes, precision and recall within each Hamming radius from 0 on.
    within: Option<[Vec<f64>; 2]>,
    standing: (usize, usize, usize),
    found: Vec<Found>,
}

impl Settings<'_> {
    /// Metric names, in the order of [`Contribution::metrics`].
    fn names(self) -> Vec<String> {
        let cut = self.cutoffs.iter().flat_map(|k| ["MAP", "P", "nDCG"].map(|name| format!("{name}@{k}")));
        ["MAP@all", "MAP@R"]
            .map(str::to_string)
            .into_iter()
            .chain(cut)
            .take(if self.brief { 1 } else { usize::MAX })
            .collect()
    }

    fn contribution(self, ranking: &Ranking, depths: &[usize]) -> Contribution {
        let standing = ranking.first_relevant();
        let settled = [Ties::Pessimistic, Ties::Optimistic].map(|ties| ranking.tied().then(|| ranking.settled(ties)));
        let under = |ties: Ties| match ties {
            Ties::Expected => ranking,
            Ties::Pessimistic => settled[0].as_ref().unwrap_or(ranking),
            Ties::Optimistic => settled[1].as_ref().unwrap_or(ranking),
        };
        let each = |value: &dyn Fn(&Ranking) -> f64| {
            if ranking.tied() { Bounds::each(|ties| value(under(ties))) } else { Bounds::sure(value(ranking)) }
        };
        if self.brief {
            let value = under(self.ties).average_precision();
            return Contribution {
                metrics: vec![Bounds::sure(value)],
                curves: Default::default(),
                within: None,
                standing,
                found: Vec::new(),
            };
        }
        let mut metrics = vec![each(&Ranking::average_precision), each(&Ranking::average_precision_at_r)];
        for &k in self.cutoffs {
            let cut = k.min(ranking.items());
            let expected = ranking.average_precision_at(k, self.denominator);
            let [pessimistic, optimistic] =
                if ranking.tied() { ranking.average_precision_range(k, self.denominator) } else { [expected; 2] };
            metrics.push(Bounds { expected, pessimistic, optimistic });
            metrics.push(each(&|ranking| ranking.hits_at(cut) / cut.max(1) as f64));
            metrics.push(each(&|ranking| ranking.ndcg_at(k)));
        }
        let ruled = under(self.ties);
        let full = ruled.precision_at_recall(&levels(100));
        let interpolated = ruled.best_precision_from_recall(&levels(10));
        let depths = depths.iter().map(|&n| ruled.hits_at(n) / n as f64).collect();
        Contribution { metrics, curves: [interpolated, full, depths], within: None, standing, found: Vec::new() }
    }

    /// Means over the queries of one direction, and their records.
    fn summarise(
        self,
        tally: &mut Tally,
        direction: Direction,
        contributions: &[Contribution],
        gallery: usize,
        clusters: impl Fn(usize) -> usize,
    ) -> Vec<Query> {
        let share = 1.0 / contributions.len().max(1) as f64;
        let names = self.names();
        for (i, name) in names.iter().enumerate() {
            let mut mean = Bounds::default();
            contributions.iter().for_each(|one| mean.add(one.metrics[i], share));
            tally.add(Some(direction), name, mean, 1.0);
            tally.add(None, name, mean, 0.5);
            // MAP@all stands in the queries themselves.
            if i > 0 {
                tally.keep(direction, name, contributions.iter().map(|one| one.metrics[i].under(self.ties)).collect());
            }
        }
        if !self.brief {
            let depths: Vec<f64> = depths(gallery).into_iter().map(|n| n as f64).collect();
            let axes =
                [("precision-recall", levels(10)), ("precision-recall full", levels(100)), ("precision@n", depths)];
            for (i, (name, axis)) in axes.into_iter().enumerate() {
                let mean = |at: usize| share * contributions.iter().map(|one| one.curves[i][at]).sum::<f64>();
                tally.curve(direction, name, axis.iter().enumerate().map(|(at, &x)| [x, mean(at)]).collect(), 1.0);
            }
            let within: Option<Vec<&[Vec<f64>; 2]>> = contributions.iter().map(|one| one.within.as_ref()).collect();
            for (within, (i, name)) in
                within.iter().flat_map(|all| [all, all]).zip(["precision@radius", "recall@radius"].iter().enumerate())
            {
                let radii = within.first().map_or(0, |one| one[i].len());
                let mean = |radius: usize| share * within.iter().map(|one| one[i][radius]).sum::<f64>();
                tally.curve(direction, name, (0..radii).map(|radius| [radius as f64, mean(radius)]).collect(), 1.0);
            }
        }
        let query = |(i, one): (usize, &Contribution)| Query {
            direction,
            query: i as u32,
            cluster: clusters(i) as u32,
            better: one.standing.0 as u32,
            tied: one.standing.1 as u32,
            own: one.standing.2 as u32,
            average_precision: one.metrics[0].under(self.ties),
        };
        contributions.iter().enumerate().map(query).collect()
    }
}

/// Precision and recall among the items within each Hamming radius from 0 to `bits`: a lookup in a table of codes, which knows no
/// ties. A radius that holds nothing has precision 0, and a query without relevant items recall 0.
fn within(distances: &[u32], bits: usize, relevant: &[bool]) -> [Vec<f64>; 2] {
    let mut at = vec![(0usize, 0usize); bits + 1];
    for (&distance, &relevant) in distances.iter().zip(relevant) {
        let (items, hits) = &mut at[distance as usize];
        *items += 1;
        *hits += usize::from(relevant);
    }
    let all = at.iter().map(|(_, hits)| hits).sum::<usize>().max(1) as f64;
    let (mut items, mut hits) = (0, 0);
    let mut out = [Vec::with_capacity(bits + 1), Vec::with_capacity(bits + 1)];
    for (more, found) in at {
        (items, hits) = (items + more, hits + found);
        out[0].push(hits as f64 / items.max(1) as f64);
        out[1].push(hits as f64 / all);
    }
    out
}

/// Levels of recall from 0 to 1.
fn levels(steps: usize) -> Vec<f64> {
    (0..=steps).map(|i| i as f64 / steps as f64).collect()
}

/// Scores a matcher.
pub fn evaluate(
    settings: Settings<'_>,
    queries: Side<'_>,
    gallery: Side<'_>,
    compared: &Compared<'_>,
) -> Result<Evaluation> {
    // Within one split both directions compare the same pairs.
    let shared = std::ptr::eq(queries.images, gallery.images) && std::ptr::eq(queries.texts, gallery.texts);
    let i2t = Scores::new(queries.images, gallery.texts, compared)?;
    let (i2t, t2i) =
        if shared { (i2t.keep()?, None) } else { (i2t, Some(Scores::new(gallery.images, queries.texts, compared)?)) };
    over_directions((settings, compared.shortlist()), queries.collection, gallery.collection, |direction, relevance| {
        let scores = if direction == Direction::I2t { &i2t } else { t2i.as_ref().unwrap_or(&i2t) };
        let gallery = relevance.gallery();
        let depths = depths(gallery);
        let mut out = Vec::with_capacity(relevance.queries());
        scores.each(direction, |range, rows| {
            let block: Vec<Contribution> = range
                .clone()
                .into_par_iter()
                .map(|query| {
                    let (i, relevant) = (query - range.start, relevance.of(query));
                    let row = i * gallery..(i + 1) * gallery;
                    let contribution = match rows {
                        Rows::Real(values) => {
                            settings.contribution(&Ranking::of_scores(&values[row], &relevant), &depths)
                        }
                        Rows::Distances { bits, values } => {
                            let distances = &values[row];
                            let ranking = Ranking::of_distances(distances, *bits, &relevant);
                            let within = (!settings.brief).then(|| within(distances, *bits, &relevant));
                            Contribution { within, ..settings.contribution(&ranking, &depths) }
                        }
                    };
                    let found = match settings.best {
                        0 => Vec::new(),
                        // What shares a class is often most of the gallery: only what stands first is kept.
                        best => Keep { best, ties: settings.ties }.of(
                            (direction, query),
                            &rows.scores(i, gallery),
                            |item| relevant[item],
                            &[],
                        )?,
                    };
                    Ok(Contribution { found, ..contribution })
                })
                .collect::<Result<_>>()?;
            out.extend(block);
            Ok(())
        })?;
        Ok(out)
    })
}

/// The expectation of a random order.
pub fn chance(settings: Settings<'_>, queries: &Collection, gallery: &Collection) -> Result<Evaluation> {
    over_directions((settings, None), queries, gallery, |_, relevance| {
        let depths = depths(relevance.gallery());
        let counts: Vec<usize> = (0..relevance.queries())
            .into_par_iter()
            .map(|query| relevance.of(query).into_iter().filter(|&relevant| relevant).count())
            .collect();
        let mut known: BTreeMap<usize, Contribution> = BTreeMap::new();
        let mut of = |&relevant: &usize| {
            let make = || {
                let mut one = settings.contribution(&Ranking::random(relevance.gallery(), relevant), &depths);
                if !settings.brief {
                    one.curves[0] = interpolated(relevance.gallery(), relevant);
                }
                one
            };
            known.entry(relevant).or_insert_with(make).clone()
        };
        Ok(counts.iter().map(&mut of).collect())
    })
}

/// Random orders whose mean stands for their expectation.
const ORDERS: usize = 100;

/// The interpolated precision of a random order at 11 levels of recall: a maximum over places, which has no closed form and lies above the
/// share of relevant items. The mean over [`ORDERS`] orders, drawn from a stream that the numbers name.
fn interpolated(items: usize, relevant: usize) -> Vec<f64> {
    let mut stream = Seed(0).stream(&["chance", "interpolated precision", &items.to_string(), &relevant.to_string()]);
    let levels = levels(10);
    let mut sums = vec![0.0; levels.len()];
    for _ in 0..ORDERS {
        let relevance = stream.permutation(items).into_iter().map(|item| item < relevant);
        let found = Ranking::strict(relevance).best_precision_from_recall(&levels);
        sums.iter_mut().zip(found).for_each(|(sum, precision)| *sum += precision / ORDERS as f64);
    }
    sums
}

fn over_directions(
    (settings, shortlist): (Settings<'_>, Option<usize>),
    queries: &Collection,
    gallery: &Collection,
    contributions: impl Fn(Direction, &Relevance) -> Result<Vec<Contribution>>,
) -> Result<Evaluation> {
    let (mut tally, mut records, mut kept) = (Tally::default(), Vec::new(), Vec::new());
    for direction in [Direction::I2t, Direction::T2i] {
        let relevance = Relevance::new(queries, gallery, direction)?;
        let mut found = contributions(direction, &relevance)?;
        kept.extend(found.iter_mut().flat_map(|one| std::mem::take(&mut one.found)));
        if let Some(shortlist) = shortlist {
            let better = found.iter().map(|one| one.standing.0);
            tally.held(direction, better, shortlist.min(relevance.gallery()), 1.0);
        }
        // A text without an image is a cluster of its own.
        let cluster = |query: usize| match direction {
            Direction::I2t => query,
            Direction::T2i => {
                queries.pairs.images_of(query).first().map_or(queries.images.len() + query, |&image| image as usize)
            }
        };
        records.extend(settings.summarise(&mut tally, direction, &found, relevance.gallery(), cluster));
    }
    Ok(Evaluation { found: kept, ..tally.finish(settings.ties, records) })
}
