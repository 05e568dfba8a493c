//! Splits that keep a series of near duplicates inside one of them.

use std::collections::BTreeMap;

use crate::random::Stream;

/// Items of the training, validation and test split, ascending, every series inside one of them; `rooms` are the sizes wanted.
///
/// The series come in random order; each goes to one of the splits that have room for it, with a probability
/// proportional to the room. A series of more than `most` items goes to training: it would be most of a test gallery otherwise.
pub(crate) fn split(series: &[usize], rooms: [usize; 3], most: usize, stream: &mut Stream) -> [Vec<usize>; 3] {
    let mut groups = BTreeMap::<usize, Vec<usize>>::new();
    for (item, &name) in series.iter().enumerate() {
        groups.entry(name).or_default().push(item);
    }
    let mut room = rooms;
    let mut out = [const { Vec::new() }; 3];
    let (large, mut small): (Vec<_>, Vec<_>) = groups.into_values().partition(|group| group.len() > most);
    stream.shuffle(&mut small);
    for group in large.iter().chain(&small) {
        let fits = room.map(|room| if room >= group.len() { room } else { 0 });
        let choice = match (group.len() > most, fits.iter().sum()) {
            (true, _) | (_, 0) => 0,
            (_, total) => {
                let drawn = stream.below(total);
                if drawn < fits[0] {
                    0
                } else if drawn < fits[0] + fits[1] {
                    1
                } else {
                    2
                }
            }
        };
        room[choice] = room[choice].saturating_sub(group.len());
        out[choice].extend(group);
    }
    out.iter_mut().for_each(|items| items.sort_unstable());
    out
}

/// 70, 10 and 20 of a hundred.
pub(crate) fn rooms(n: usize) -> [usize; 3] {
    let (val, test) = (n / 10, n / 5);
    [n - val - test, val, test]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Seed;

    #[test]
    fn series_stay_whole_and_rooms_are_filled() {
        // 40 alone, 20 pairs, one series of 20.
        let series: Vec<usize> = (0..40).chain((0..40).map(|i| 40 + i / 2)).chain([60; 20]).collect();
        for seed in 0..5 {
            let parts = split(&series, rooms(100), 10, &mut Seed(seed).stream(&["series"]));
            assert_eq!(parts.each_ref().map(Vec::len), [70, 10, 20]);
            let mut all = parts.concat();
            all.sort_unstable();
            assert_eq!(all, (0..100).collect::<Vec<_>>());
            for i in 0..100 {
                let part = parts.iter().position(|part| part.contains(&i)).unwrap();
                assert!((0..100).all(|j| series[i] != series[j] || parts[part].contains(&j)));
            }
            assert!(parts[0].contains(&99), "the large series is trained on");
        }
    }
}
