//! Vectors of two tables that point the same way, found without comparing every pair.
//!
//! Unit vectors whose cosine is at least `c` are at most `r = sqrt(2 - 2 c)` apart, and so are their projections onto any orthonormal
//! directions. The directions in which one table varies most are found once; a vector is then compared with those alone that lie
//! within `r` of it along the first direction, and within `r` along all of them. No pair is lost: what the directions leave is
//! decided by the cosine itself. Rows are read again where they are needed, so that memory holds projections, not vectors.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::{FeatureTable, Result, random::Seed};

/// Directions that vectors are projected onto.
const DIRECTIONS: usize = 16;

/// Vectors that the directions are found from, and rounds of the power method: a rough answer does.
const SAMPLE: usize = 1024;
const ROUNDS: usize = 4;

/// What rounding may add to a distance along the directions.
const SLACK: f32 = 1e-3;

/// A vector of the right table and the first vector of the left one that points the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Twins {
    pub left: usize,
    pub right: usize,
    /// Whether they are equal, once both are of unit length.
    pub same: bool,
}

/// The vectors of `right` that have one in `left` with a cosine of at least `near`, in the order of `right`; `done` is told how
/// many have been looked at. Vectors of zeros point nowhere.
///
/// # Errors
/// If a value cannot be read.
pub(crate) fn find(
    left: &FeatureTable,
    right: &FeatureTable,
    near: f32,
    done: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Twins>> {
    let directions = directions(left)?;
    let index = Index::new(left, &directions)?;
    let reach = (2.0 - 2.0 * near).max(0.0).sqrt() + SLACK;
    let counted = AtomicUsize::new(0);
    let twin = |j: usize| -> Result<Option<Twins>> {
        let row = unit(right, j)?;
        let found = match project(&row, &directions) {
            Some(place) => index.near(&place, reach),
            None => Vec::new(),
        };
        let mut twin = None;
        for i in found {
            let other = unit(left, i)?;
            if cosine(&other, &row) >= near {
                twin = Some(Twins { left: i, right: j, same: other == row });
                break;
            }
        }
        done(counted.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(twin)
    };
    let found: Vec<Result<Option<Twins>>> = (0..right.items()).into_par_iter().map(twin).collect();
    found.into_iter().filter_map(Result::transpose).collect()
}

/// The groups of vectors that are joined by a chain of cosines of at least `near`: for each vector the first of its group. Vectors of
/// zeros are alone.
///
/// # Errors
/// If a value cannot be read.
pub fn groups(table: &FeatureTable, near: f32) -> Result<Vec<usize>> {
    let directions = directions(table)?;
    let index = Index::new(table, &directions)?;
    let reach = (2.0 - 2.0 * near).max(0.0).sqrt() + SLACK;
    // Those before each vector that point its way: all of them, since two of them need not point each other's way.
    let before = |j: usize| -> Result<Vec<usize>> {
        let row = unit(table, j)?;
        let Some(place) = project(&row, &directions) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for i in index.near(&place, reach).into_iter().take_while(|&i| i < j) {
            if cosine(&unit(table, i)?, &row) >= near {
                found.push(i);
            }
        }
        Ok(found)
    };
    let before: Vec<Result<Vec<usize>>> = (0..table.items()).into_par_iter().map(before).collect();
    let mut first: Vec<usize> = (0..table.items()).collect();
    let root = |first: &[usize], mut at: usize| {
        while first[at] != at {
            at = first[at];
        }
        at
    };
    for (j, before) in before.into_iter().enumerate() {
        for i in before? {
            let (a, b) = (root(&first, i), root(&first, j));
            first[a.max(b)] = a.min(b);
        }
    }
    Ok((0..first.len()).map(|at| root(&first, at)).collect())
}

/// A vector of unit length, or of zeros.
fn unit(table: &FeatureTable, item: usize) -> Result<Vec<f32>> {
    let mut row = vec![0.0; table.fragments() * table.width()];
    table.read(item, &mut row)?;
    let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
    Ok(row)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let head = a.len().min(64);
    dot(&a[..head], &b[..head]) + dot(&a[head..], &b[head..])
}

/// Dot product in sixteen running sums, which vectorise.
fn dot(p: &[f32], q: &[f32]) -> f32 {
    let ((p, p_rest), (q, q_rest)) = (p.as_chunks::<16>(), q.as_chunks::<16>());
    let mut lanes = [0.0f32; 16];
    for (p, q) in p.iter().zip(q) {
        (0..16).for_each(|lane| lanes[lane] += p[lane] * q[lane]);
    }
    lanes.iter().sum::<f32>() + p_rest.iter().zip(q_rest).map(|(p, q)| p * q).sum::<f32>()
}

type Place = [f32; DIRECTIONS];

/// The place along the directions, or nothing for a vector of zeros.
fn project(row: &[f32], directions: &[Vec<f32>]) -> Option<Place> {
    let mut place = [0.0; DIRECTIONS];
    place.iter_mut().zip(directions).for_each(|(at, direction)| *at = dot(row, direction));
    row.iter().any(|&x| x != 0.0).then_some(place)
}

/// The left table's vectors by their place along the first direction.
struct Index(Vec<(Place, usize)>);

impl Index {
    fn new(table: &FeatureTable, directions: &[Vec<f32>]) -> Result<Self> {
        let place = |item: usize| Ok(project(&unit(table, item)?, directions).map(|place| (place, item)));
        let found: Result<Vec<Option<(Place, usize)>>> = (0..table.items()).into_par_iter().map(place).collect();
        let mut places: Vec<(Place, usize)> = found?.into_iter().flatten().collect();
        places.par_sort_unstable_by(|a, b| a.0[0].total_cmp(&b.0[0]).then(a.1.cmp(&b.1)));
        Ok(Self(places))
    }

    /// Vectors within reach, ascending.
    fn near(&self, place: &Place, reach: f32) -> Vec<usize> {
        let first = self.0.partition_point(|(other, _)| other[0] < place[0] - reach);
        let within = self.0[first..].iter().take_while(|(other, _)| other[0] <= place[0] + reach);
        let close = |other: &Place| {
            let mut sum = 0.0;
            place.iter().zip(other).all(|(a, b)| {
                sum += (a - b) * (a - b);
                sum <= reach * reach
            })
        };
        let mut found: Vec<usize> = within.filter(|(other, _)| close(other)).map(|&(_, item)| item).collect();
        found.sort_unstable();
        found
    }
}

/// Orthonormal directions in which the vectors of a table, or some of them spread over it, vary most, the first most of all: the
/// power method on their covariance.
fn directions(table: &FeatureTable) -> Result<Vec<Vec<f32>>> {
    let (items, width) = (table.items(), table.fragments() * table.width());
    let picked = items.min(SAMPLE);
    let mut sample: Vec<Vec<f32>> =
        (0..picked).map(|k| unit(table, k * items / picked)).collect::<Result<Vec<Vec<f32>>>>()?;
    let mut mean = vec![0.0; width];
    sample.iter().for_each(|row| mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += x / picked as f32));
    sample.iter_mut().for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean));
    let mut stream = Seed(1).stream(&["twins", "directions"]);
    let draw = |_| (0..width).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
    let mut out = orthonormal((0..DIRECTIONS.min(width)).map(draw).collect());
    for _ in 0..ROUNDS {
        let next = |direction: &Vec<f32>| {
            let mut next = vec![0.0; width];
            for row in &sample {
                let weight = dot(row, direction);
                next.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * x);
            }
            next
        };
        out = orthonormal(out.par_iter().map(next).collect());
    }
    Ok(out)
}

/// What Gram and Schmidt make of the vectors, twice each for the sake of rounding; those that add no direction are left out.
fn orthonormal(vectors: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let mut out: Vec<Vec<f32>> = Vec::new();
    for mut vector in vectors {
        let length = dot(&vector, &vector).sqrt();
        for _ in 0..2 {
            for known in &out {
                let weight = dot(&vector, known);
                vector.iter_mut().zip(known).for_each(|(x, k)| *x -= weight * k);
            }
        }
        let left = dot(&vector, &vector).sqrt();
        if left > 1e-3 * length && left.is_finite() {
            vector.iter_mut().for_each(|x| *x /= left);
            out.push(vector);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Matrix;

    const NEAR: f32 = 0.9999;

    /// Every pair, one after the other.
    fn exact(left: &FeatureTable, right: &FeatureTable) -> Vec<Twins> {
        let rows = |table: &FeatureTable| (0..table.items()).map(|i| unit(table, i).unwrap()).collect::<Vec<_>>();
        let (left, right) = (rows(left), rows(right));
        let first = |(j, row): (usize, &Vec<f32>)| {
            let i = left.iter().position(|other| cosine(other, row) >= NEAR)?;
            Some(Twins { left: i, right: j, same: left[i] == *row })
        };
        right.iter().enumerate().filter_map(first).collect()
    }

    /// Rows of `kind`, of `width` values: all around, in one orthant, in a tight cone, in a line, or with few values that are not zero.
    fn rows(kind: &str, count: usize, width: usize, seed: u64) -> Matrix {
        let mut stream = Seed(seed).stream(&["twins", kind]);
        let mut out = Matrix::zeros(count, width);
        for i in 0..count {
            let along = stream.normal() as f32;
            for (j, value) in out.row_mut(i).iter_mut().enumerate() {
                let normal = stream.normal() as f32;
                *value = match kind {
                    "around" => normal,
                    "orthant" => normal.abs(),
                    "cone" => 1.0 + 0.02 * normal,
                    "line" => {
                        if j == 0 {
                            1.0
                        } else if j == 1 {
                            along
                        } else {
                            0.0
                        }
                    }
                    _ => {
                        if stream.unit() < 0.05 {
                            1.0
                        } else {
                            0.0
                        }
                    }
                };
            }
        }
        out
    }

    #[test]
    fn the_findings_are_those_of_comparing_every_pair() {
        for (seed, kind) in (1..).zip(["around", "orthant", "cone", "line", "sparse"]) {
            for (width, count) in [(16, 400), (130, 300), (392, 200)] {
                let (left, mut right) = (rows(kind, count, width, seed), rows(kind, count / 2, width, 100 + seed));
                let mut stream = Seed(seed).stream(&["twins", "planted"]);
                // Copies turned by angles around the one whose cosine is 0.9999, copies of another length, exact copies, and zeros.
                for j in 0..count / 4 {
                    let from = left.row(stream.below(count)).to_vec();
                    let norm = from.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let angle = [0.0, 0.0, 0.005, 0.0135, 0.0141, 0.0142, 0.0147, 0.03][j % 8];
                    let size = angle * norm / (width as f32).sqrt();
                    let length = [1.0, 3.0][j % 2];
                    let turned = from.iter().map(|x| length * (x + size * stream.normal() as f32));
                    right.row_mut(j).copy_from_slice(&turned.collect::<Vec<f32>>());
                }
                right.row_mut(count / 2 - 1).fill(0.0);
                let (left, right): (FeatureTable, FeatureTable) = (Arc::new(left), Arc::new(right));
                let expected = exact(&left, &right);
                let counted = AtomicUsize::new(0);
                let done = |n: usize| _ = counted.fetch_max(n, Ordering::Relaxed);
                assert_eq!(find(&left, &right, NEAR, &done).unwrap(), expected, "{kind} {width}");
                assert_eq!(counted.into_inner(), count / 2);
                assert!(expected.iter().any(|twins| twins.same) && expected.len() >= count / 8, "{kind} {width}");
            }
        }
    }

    /// Against components of the graph of all pairs, found by spreading from vector to vector.
    #[test]
    fn groups_are_the_components_of_all_pairs() {
        for (kind, near) in [("cone", 0.9998), ("line", 0.9999), ("sparse", 0.5)] {
            let table: FeatureTable = Arc::new(rows(kind, 150, 40, 9));
            let vectors: Vec<Vec<f32>> = (0..150).map(|i| unit(&table, i).unwrap()).collect();
            let mut expected = vec![usize::MAX; 150];
            for start in 0..150 {
                let mut open = vec![start];
                while let Some(i) = open.pop() {
                    if expected[i] == usize::MAX {
                        expected[i] = start;
                        open.extend((0..150).filter(|&j| cosine(&vectors[i.min(j)], &vectors[i.max(j)]) >= near));
                    }
                }
            }
            assert_eq!(groups(&table, near).unwrap(), expected, "{kind}");
            let count = expected.iter().enumerate().filter(|&(i, &first)| i == first).count();
            assert!((2..150).contains(&count), "{kind}: {count} groups");
        }
    }

    #[test]
    fn tables_without_rows_or_of_equal_rows_have_no_directions() {
        let table = |rows: usize, value: f32| -> FeatureTable {
            Arc::new(Matrix { rows, cols: 20, data: vec![value; 20 * rows] })
        };
        assert!(find(&table(0, 0.0), &table(3, 1.0), NEAR, &|_| {}).unwrap().is_empty());
        assert!(find(&table(3, 0.0), &table(3, 0.0), NEAR, &|_| {}).unwrap().is_empty());
        let found = find(&table(3, 1.0), &table(2, 2.0), NEAR, &|_| {}).unwrap();
        assert_eq!(found.iter().map(|twins| (twins.left, twins.right)).collect::<Vec<_>>(), [(0, 0), (0, 1)]);
    }
}
