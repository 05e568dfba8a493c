//! Which items ask, are searched and are trained on.

use std::path::Path;

use super::Parts;
use crate::{Error, Labels, Result, random::Seed};

/// Rows of each split, ascending.
#[derive(Debug)]
pub struct Rows {
    /// The parts of the file that they are rows of: training items, queries and, where there is one, the database.
    pub parts: (usize, usize, Option<usize>),
    pub train: Vec<usize>,
    pub test: Vec<usize>,
    pub database: Vec<usize>,
}

/// The parts of the file as they are. Numbers that are asked for are those that it must have.
pub fn given(path: &Path, parts: &Parts, wanted: [usize; 2]) -> Result<Rows> {
    for (what, wanted, found) in [("queries", wanted[0], parts.items(1)), ("train", wanted[1], parts.items(0))] {
        if wanted != 0 && wanted != found {
            let next = format!("set {what} = 0 to take what there is, or choose another `split`");
            return Err(Error::content(path, what, format!("{wanted} items"), found.to_string(), next));
        }
    }
    let database = (parts.list.len() > 2).then_some(2);
    Ok(Rows {
        parts: (0, 1, database),
        train: (0..parts.items(0)).collect(),
        test: (0..parts.items(1)).collect(),
        database: database.map_or_else(Vec::new, |part| (0..parts.items(part)).collect()),
    })
}

/// A split of all items: queries, the database of all others, and training items among these.
pub fn made(path: &Path, how: &str, labels: &Labels, [queries, train]: [usize; 2], seed: Seed) -> Result<Rows> {
    let n = labels.of.len();
    let others = n.saturating_sub(queries);
    if queries == 0 || others == 0 {
        let expected = format!("from 1 to {} items that ask, of {n}", n.saturating_sub(1));
        return Err(Error::option("queries", expected, queries.to_string(), "set the option `queries`"));
    }
    if train > others {
        let next = "lower the option `train`, or set it to 0 for all";
        return Err(Error::option(
            "train",
            format!("at most {others} items, all but the queries"),
            train.to_string(),
            next,
        ));
    }
    let train = if train == 0 { others } else { train };
    let (mut test, mut train) = match how {
        "first" => ((0..queries).collect(), (queries..queries + train).collect()),
        "last" => ((others..n).collect(), (0..train).collect()),
        "random" => {
            let order = seed.stream(&["features", "random"]).permutation(n);
            (order[..queries].to_vec(), order[queries..queries + train].to_vec())
        }
        _ => class_by_class(path, labels, [queries, train], seed)?,
    };
    test.sort_unstable();
    train.sort_unstable();
    let database = without(n, &[&test]);
    Ok(Rows { parts: (0, 0, Some(0)), train, test, database })
}

/// The walk of `zs-zhong/DJSRH` over the classes: each gives some of its items that are not taken yet, in random order, first
/// queries, then training items. If these come out fewer than asked, the rest is drawn from the database.
///
/// All classes give the same number where that comes out even; else the first gives twice as many as the others. For MIRFlickr (24
/// classes, 2000 queries, 5000 training items) these are 160 and 400, then 80 and 200; for NUS-WIDE (10 classes) 200 and 500.
fn class_by_class(path: &Path, labels: &Labels, wanted: [usize; 2], seed: Seed) -> Result<(Vec<usize>, Vec<usize>)> {
    let (n, classes) = (labels.of.len(), labels.classes);
    let share = |what: &str, wanted: usize| match wanted {
        _ if classes > 0 && wanted.is_multiple_of(classes) => Ok([wanted / classes; 2]),
        _ if wanted.is_multiple_of(classes + 1) => Ok([2 * wanted / (classes + 1), wanted / (classes + 1)]),
        _ => {
            let expected = format!("a multiple of {classes} classes or of {}", classes + 1);
            Err(Error::option(what, expected, wanted.to_string(), "choose such a number, or another `split`"))
        }
    };
    let all = wanted[0] + wanted[1] == n;
    let queries = share("queries", wanted[0])?;
    // Where everything else is trained on, no class has a share.
    let train = if all { [0; 2] } else { share("train", wanted[1])? };
    let mut taken = vec![false; n];
    let mut out: [Vec<usize>; 2] = Default::default();
    for class in 0..classes {
        let of = |item: &usize| !taken[*item] && labels.of[*item].binary_search(&(class as u32)).is_ok();
        let mut members: Vec<usize> = (0..n).filter(of).collect();
        seed.stream(&["features", "djsrh", &class.to_string()]).shuffle(&mut members);
        let at = usize::from(class > 0);
        if members.len() < queries[at] {
            let expected = format!("{} items of class {} that no class before it took", queries[at], class + 1);
            let next = "ask for fewer queries, or choose another `split`";
            return Err(Error::content(path, "labels", expected, members.len().to_string(), next));
        }
        let (asked, rest) = members.split_at(queries[at]);
        out[0].extend(asked);
        out[1].extend(rest.iter().take(train[at]));
        out.iter().flatten().for_each(|&item| taken[item] = true);
    }
    let [test, mut train] = out;
    let mut rest = without(n, &[&test, &train]);
    seed.stream(&["features", "djsrh", "rest"]).shuffle(&mut rest);
    rest.truncate(wanted[1] - train.len());
    train.extend(rest);
    Ok((test, train))
}

/// The rows from 0 to `n` that are in none of the lists.
fn without(n: usize, lists: &[&[usize]]) -> Vec<usize> {
    let mut free = vec![true; n];
    lists.iter().copied().flatten().for_each(|&row| free[row] = false);
    (0..n).filter(|&row| free[row]).collect()
}
