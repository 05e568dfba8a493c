//! The catalogue's `metric.*` operations, answered by the functions that score methods.

use std::cmp::Ordering;

use xmbench_methods::{
    Error, Result,
    golden::{Answer, Array, Case, Operation},
};

use super::{
    Denominator, Ranking, Standing, Ties, discounted_gain, first_k_relevant, mean_rank, median_rank, weighted_precision,
};

/// Every golden operation of the harness.
pub fn operations() -> Vec<Operation> {
    vec![
        Operation { name: "metric.recall", run: recall, ignored: &["*_unstable"] },
        Operation { name: "metric.map", run: map, ignored: &["out.upstream_unstable_*"] },
        Operation { name: "metric.ndcg", run: ndcg, ignored: &[] },
    ]
}

/// A tensor's rows, each of `cols` values, none of them NaN.
fn rows<'a>(case: &'a Case, name: &str, rows: Option<usize>, cols: Option<usize>) -> Result<Vec<&'a [f64]>> {
    let Array { shape, data, .. } = case.get(name)?;
    let dim = |n: Option<usize>| n.map_or("any".to_string(), |n| n.to_string());
    let fits = |n: Option<usize>, found: usize| found > 0 && n.is_none_or(|n| n == found);
    match shape[..] {
        [n, m] if fits(rows, n) && fits(cols, m) && data.iter().all(|x| !x.is_nan()) => {
            Ok(data.chunks_exact(m).collect())
        }
        _ => Err(Error::Format {
            file: case.file.clone(),
            expected: format!("`{name}` of shape [{}, {}] without NaN", dim(rows), dim(cols)),
            found: if data.iter().any(|x| x.is_nan()) { "NaN".into() } else { format!("{shape:?}") },
        }),
    }
}

/// Positions by score, best first; `later` puts the later of equal ones first.
fn order(scores: &[f64], later: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| {
        let by_place = if later { b.cmp(&a) } else { a.cmp(&b) };
        scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal).then(by_place)
    });
    order
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Where the best own item of every query stands: as scored, and with the later of equal items first.
struct Direction {
    name: &'static str,
    standings: Vec<Standing>,
    stable: Vec<Standing>,
    top: Vec<f64>,
}

impl Direction {
    fn new<'a>(name: &'static str, queries: impl Iterator<Item = (Vec<f64>, Vec<u32>)> + 'a) -> Self {
        let mut out = Self { name, standings: Vec::new(), stable: Vec::new(), top: Vec::new() };
        for (scores, own) in queries {
            out.standings.push(Standing::of(&scores, &own, |a, b| a > b));
            let mut place = vec![0; scores.len()];
            order(&scores, true).into_iter().enumerate().for_each(|(at, item)| place[item] = at);
            out.stable.push(Standing::of(&place, &own, |a, b| a < b));
            out.top.push(order(&scores, false)[0] as f64);
        }
        out
    }

    /// R@1, R@5, R@10 in percent, median rank, mean rank.
    fn metrics(standings: &[Standing], ties: Ties) -> [f64; 5] {
        let recall =
            |k| 100.0 * standings.iter().map(|standing| standing.hit(k, ties)).sum::<f64>() / standings.len() as f64;
        [recall(1), recall(5), recall(10), median_rank(standings, ties), mean_rank(standings, ties)]
    }

    fn answer(&self, answer: Answer) -> Answer {
        let name = self.name;
        let ranks = |standings: &[Standing], ties| standings.iter().map(|s| s.rank(ties)).collect::<Vec<f64>>();
        let (standings, stable) = (&self.standings, &self.stable);
        let upper: Vec<f64> = standings.iter().map(|s| (s.better + s.tied - 1) as f64).collect();
        answer
            .with(&format!("out.{name}_ranks"), ranks(standings, Ties::Expected))
            .with(&format!("out.{name}_metrics"), Self::metrics(standings, Ties::Expected))
            .with(&format!("out.{name}_top1"), self.top.clone())
            .with(&format!("out.stable_{name}_ranks"), ranks(stable, Ties::Expected))
            .with(&format!("out.stable_{name}_metrics"), Self::metrics(stable, Ties::Expected))
            .with(&format!("out.optimistic_{name}_ranks"), ranks(standings, Ties::Optimistic))
            .with(&format!("out.optimistic_{name}_metrics"), Self::metrics(standings, Ties::Optimistic))
            .with(&format!("out.pessimistic_{name}_ranks"), ranks(standings, Ties::Pessimistic))
            .with(&format!("out.pessimistic_{name}_metrics"), Self::metrics(standings, Ties::Pessimistic))
            .with(&format!("out.pessimistic_{name}_ranks_upper"), upper)
    }
}

/// `metric.recall`: hit rates and ranks of both directions, from scores or from embeddings whose image rows are repeated.
fn recall(case: &Case) -> Result<Answer> {
    case.only(&["captions_per_image", "case", "measure", "n_images"])?;
    let captions_per_image = || match case.config["captions_per_image"] {
        serde_json::Value::Null => Ok(5),
        _ => case.config::<usize>("captions_per_image"),
    };
    let scores: Vec<Vec<f64>> = if case.has("in.sims") {
        rows(case, "in.sims", None, None)?.into_iter().map(<[f64]>::to_vec).collect()
    } else {
        if !case.config["measure"].is_null() && case.config["measure"] != "cosine" {
            return Err(case.unsupported("measure", "`cosine`"));
        }
        let images = rows(case, "in.images", None, None)?;
        let captions = rows(case, "in.captions", Some(images.len()), Some(images[0].len()))?;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let distinct = images.iter().step_by(captions_per_image()?.max(1));
        distinct.map(|image| captions.iter().map(|caption| dot(image, caption)).collect()).collect()
    };
    let (images, texts) = (scores.len(), scores[0].len());
    let each = texts / images;
    if each == 0 || each * images != texts || each != captions_per_image()? {
        return Err(Error::Format {
            file: case.file.clone(),
            expected: format!("{} captions an image", captions_per_image()?),
            found: format!("{images} images and {texts} captions"),
        });
    }
    let i2t =
        scores.iter().enumerate().map(|(i, row)| (row.clone(), (i * each..(i + 1) * each).map(|c| c as u32).collect()));
    let t2i = (0..texts).map(|c| (scores.iter().map(|row| row[c]).collect(), vec![(c / each) as u32]));
    let (i2t, t2i) = (Direction::new("i2t", i2t), Direction::new("t2i", t2i));
    let sum = |d: &Direction| Direction::metrics(&d.standings, Ties::Expected)[..3].iter().sum::<f64>();
    let rsum = sum(&i2t) + sum(&t2i);
    Ok(t2i.answer(i2t.answer(Answer::default())).with("out.rsum", [rsum]))
}

/// `metric.map`: the hashing literature's variants of MAP, with the lower database index first among equal distances.
fn map(case: &Case) -> Result<Answer> {
    let queries = rows(case, "in.query_codes", None, None)?;
    let gallery = rows(case, "in.retrieval_codes", None, Some(queries[0].len()))?;
    let gallery_labels = rows(case, "in.retrieval_labels", Some(gallery.len()), None)?;
    let classes = Some(gallery_labels[0].len());
    let labels = rows(case, "in.query_labels", Some(queries.len()), classes)?;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Distances (bits - q r) / 2, in f64: ascending as products descend.
    let orders: Vec<Vec<usize>> = queries
        .iter()
        .map(|query| {
            let bits = query.len() as f64;
            let distances: Vec<f64> = gallery.iter().map(|item| -(bits - dot(query, item)) / 2.0).collect();
            order(&distances, false)
        })
        .collect();
    let ranked = |labels: &[&[f64]]| -> Vec<Vec<bool>> {
        let relevant =
            |(order, own): (&Vec<usize>, &&[f64])| order.iter().map(|&i| dot(own, gallery_labels[i]) > 0.0).collect();
        orders.iter().zip(labels).map(relevant).collect()
    };
    let relevance = ranked(&labels);
    let rankings: Vec<Ranking> = relevance.iter().map(|row| Ranking::strict(row.iter().copied())).collect();
    let over = |value: &dyn Fn(&Ranking) -> f64| mean(&rankings.iter().map(value).collect::<Vec<_>>());
    let ranks = |row: &[bool]| (1..).zip(row).filter(|(_, hit)| **hit).map(|(rank, _)| rank).collect::<Vec<usize>>();
    let mut answer = Answer::default();
    for name in case.tensors.keys().filter(|name| name.starts_with("out.") && !name.contains("unstable")) {
        let short = name.trim_start_matches("out.").trim_start_matches("stable_");
        let cut = |prefix: &str| short.strip_prefix(prefix).and_then(|k| k.parse::<usize>().ok());
        if short == "map_all" {
            answer = answer.with(name, [over(&Ranking::average_precision)]);
        } else if short == "map_at_R" {
            answer = answer.with(name, [over(&Ranking::average_precision_at_r)]);
        } else if let Some(k) = cut("map_first_k_relevant_") {
            let values: Vec<f64> = relevance.iter().map(|row| first_k_relevant(&ranks(row), k)).collect();
            answer = answer.with(name, [mean(&values)]);
        } else if let Some(k) = cut("map_") {
            answer = answer.with(name, [over(&|ranking| ranking.average_precision_at(k, Denominator::Hits))]);
        } else if let Some(k) = cut("dgcpn_weighted_map_") {
            let labels = rows(case, "in.query_labels_nonzero", Some(queries.len()), classes)?;
            let weighted = |(order, own): (&Vec<usize>, &&[f64])| {
                let weight =
                    |item: &[f64]| dot(own, item) / (own.iter().sum::<f64>() * item.iter().sum::<f64>()).sqrt();
                let top = (1..).zip(order).take(k).map(|(rank, &i)| (rank, weight(gallery_labels[i])));
                weighted_precision(&top.filter(|(_, weight)| *weight > 0.0).collect::<Vec<_>>())
            };
            answer = answer.with(name, [mean(&orders.iter().zip(&labels).map(weighted).collect::<Vec<_>>())]);
        } else if short == "precision_at" {
            let ks = case.get("in.precision_ks")?.indices();
            let precision = |k: usize| over(&|ranking| ranking.hits_at(k) / k.min(gallery.len()) as f64);
            answer = answer.with(name, ks.into_iter().map(precision));
        }
    }
    Ok(answer)
}

/// `metric.ndcg`: graded gains and binary metrics of every query, tied items as groups.
fn ndcg(case: &Case) -> Result<Answer> {
    let scores = rows(case, "in.scores", None, None)?;
    let grades = rows(case, "in.relevance", Some(scores.len()), Some(scores[0].len()))?;
    let (ks, documents) = (case.get("in.ks")?.indices(), scores[0].len());
    let rankings: Vec<Ranking> = scores
        .iter()
        .zip(&grades)
        .map(|(scores, grades)| {
            // The inputs are f32: narrowing is exact.
            let scores: Vec<f32> = scores.iter().map(|&x| x as f32).collect();
            Ranking::of_scores(&scores, &grades.iter().map(|&grade| grade > 0.0).collect::<Vec<_>>())
        })
        .collect();
    let burges = |grade: f64| grade.exp2() - 1.0;
    let linear = |grade: f64| grade;
    let gains = |tied: bool, gain: &dyn Fn(f64) -> f64, ks: &[usize]| -> Vec<f64> {
        let query = |(scores, grades): (&&[f64], &&[f64])| {
            let mut ideal: Vec<f64> = grades.iter().map(|&grade| gain(grade)).collect();
            ideal.sort_by(|a, b| b.total_cmp(a));
            let groups = groups(scores, grades, gain, tied);
            let ratio = |&k: &usize| {
                let best = discounted_gain(ideal.iter().map(|&gain| (1, gain)), k);
                if best == 0.0 { 0.0 } else { discounted_gain(groups.iter().copied(), k) / best }
            };
            ks.iter().map(ratio).collect::<Vec<f64>>()
        };
        scores.iter().zip(&grades).flat_map(query).collect()
    };
    let each = |value: &dyn Fn(&Ranking) -> f64| rankings.iter().map(value).collect::<Vec<f64>>();
    let at = |value: &dyn Fn(&Ranking, usize) -> f64| -> Vec<f64> {
        rankings.iter().flat_map(|ranking| ks.iter().map(move |&k| value(ranking, k))).collect()
    };
    let precision = |ranking: &Ranking, k: usize| ranking.hits_at(k) / k as f64;
    let recall = |ranking: &Ranking, k: usize| ranking.hits_at(k) / (ranking.relevant() as f64).max(1.0);
    let f1 = |ranking: &Ranking| {
        let (p, r) = (precision(ranking, 5), recall(ranking, 5));
        if p + r == 0.0 { 0.0 } else { 2.0 * p * r / (p + r) }
    };
    let standing = |ranking: &Ranking| {
        let (better, tied, own) = ranking.first_relevant();
        Standing { better, tied, own }
    };
    let reciprocal = |ranking: &Ranking| {
        if ranking.relevant() == 0 { 0.0 } else { 1.0 / (standing(ranking).rank(Ties::Expected) + 1.0) }
    };
    Ok(Answer::default()
        .with("out.ndcg_at", gains(true, &linear, &ks))
        .with("out.ndcg_exp_at", gains(true, &burges, &ks))
        .with("out.ndcg_full", gains(true, &linear, &[documents]))
        .with("out.ndcg_tie_averaged_at", gains(true, &linear, &ks))
        .with("out.ndcg_stable_at", gains(false, &linear, &ks))
        .with("out.precision_at", at(&precision))
        .with("out.recall_at", at(&recall))
        .with("out.map", each(&Ranking::average_precision))
        .with("out.map_cut_at", at(&|ranking, k| ranking.average_precision_at(k, Denominator::Relevant)))
        .with("out.mrr", each(&reciprocal))
        .with("out.r_precision", each(&Ranking::r_precision))
        .with("out.lrap", [mean(&each(&Ranking::label_ranking_precision))])
        .with("out.hit_rate_5_mean", [mean(&each(&|ranking| standing(ranking).hit(5, Ties::Expected)))])
        .with("out.f1_5_mean", [mean(&each(&f1))]))
}

/// Items and gain of each group of equal scores, or of each item if ties are not to matter.
fn groups(scores: &[f64], grades: &[f64], gain: &dyn Fn(f64) -> f64, tied: bool) -> Vec<(usize, f64)> {
    let order = order(scores, false);
    let equal = |a: &usize, b: &usize| tied && scores[*a] == scores[*b];
    order.chunk_by(equal).map(|group| (group.len(), group.iter().map(|&i| gain(grades[i])).sum())).collect()
}
