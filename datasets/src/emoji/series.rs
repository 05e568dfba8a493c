//! Which emoji are near twins of each other.

use rayon::prelude::*;

use super::item::Item;
use crate::{Matrix, text::words};

/// Persons that the same picture is drawn for.
const PERSONS: [&str; 22] = [
    "man",
    "woman",
    "person",
    "men",
    "women",
    "people",
    "boy",
    "girl",
    "child",
    "male",
    "female",
    "mr",
    "mrs",
    "mx",
    "santa",
    "old",
    "older",
    "motorized",
    "manual",
    "and",
    "with",
    "crown",
];
/// Colours, sizes and the other words by which symbols of one shape differ.
const SHADES: [&str; 26] = [
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "brown",
    "black",
    "white",
    "grey",
    "gray",
    "pink",
    "light",
    "dark",
    "small",
    "medium",
    "medium-small",
    "large",
    "rainbow",
    "transgender",
    "pirate",
    "closed",
    "open",
    "low",
    "high",
    "hollow",
];
/// Directions into which one shape is turned.
const DIRECTIONS: [&str; 20] = [
    "up",
    "down",
    "left",
    "right",
    "up-right",
    "up-left",
    "down-right",
    "down-left",
    "up-down",
    "left-right",
    "leftwards",
    "rightwards",
    "upwards",
    "downwards",
    "left-facing",
    "right-facing",
    "clockwise",
    "counterclockwise",
    "facing",
    "double",
];

/// Two pictures are near twins when their root mean square difference is below this part of the root mean square ink of
/// the fuller one: the faces without an expression, the open and the closed lock.
pub(super) const LEAST_DIFFERENCE: f32 = 0.15;

/// A number for each item, the same for near twins: items whose names differ only in words such as `man` or `red`, and
/// items whose pictures (rows of `small`) hardly differ.
pub(super) fn series(items: &[Item], small: &Matrix) -> Vec<usize> {
    let names: Vec<String> = items.iter().map(by_name).collect();
    let mut first = std::collections::HashMap::new();
    let mut leader: Vec<usize> =
        names.iter().enumerate().map(|(item, name)| *first.entry(name.as_str()).or_insert(item)).collect();
    for (a, b) in lookalikes(small) {
        let (from, to) = (leader[a].max(leader[b]), leader[a].min(leader[b]));
        leader.iter_mut().filter(|leader| **leader == from).for_each(|leader| *leader = to);
    }
    leader
}

/// Pairs of rows that differ by less than [`LEAST_DIFFERENCE`].
fn lookalikes(small: &Matrix) -> Vec<(usize, usize)> {
    let ink: Vec<f32> = (0..small.rows).map(|i| small.row(i).iter().map(|value| value * value).sum()).collect();
    let coarse = coarse(small);
    let close = &|a: usize, b: usize| {
        let most = LEAST_DIFFERENCE.powi(2) * ink[a].max(ink[b]);
        // Means of blocks differ by no more than the blocks, so nearly every pair is told apart by the coarse pictures.
        within(coarse.row(a), coarse.row(b), most) && within(small.row(a), small.row(b), most)
    };
    (0..small.rows)
        .into_par_iter()
        .flat_map_iter(|a| (0..a).filter(move |&b| close(a, b)).map(move |b| (a, b)))
        .collect()
}

/// Whether the squared distance is below `most`, found out with as few terms as possible.
fn within(a: &[f32], b: &[f32], most: f32) -> bool {
    let mut sum = 0.0;
    a.chunks(32).zip(b.chunks(32)).all(|(a, b)| {
        sum += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        sum < most
    })
}

/// Means over blocks of 4 x 4 pixels, scaled so that no squared distance grows; the middle of the picture first, where
/// pictures differ most.
fn coarse(small: &Matrix) -> Matrix {
    let side = (small.cols / 3).isqrt();
    let blocks = side / 4;
    let mut out = Matrix::zeros(small.rows, 3 * blocks * blocks);
    for item in 0..small.rows {
        let picture = small.row(item);
        let row = out.row_mut(item);
        for (i, value) in picture.iter().enumerate() {
            let (pixel, channel) = (i / 3, i % 3);
            let (y, x) = (pixel / side / 4, pixel % side / 4);
            let from_middle = (y + blocks / 2) % blocks;
            row[(from_middle * blocks + x) * 3 + channel] += value / 4.0;
        }
    }
    out
}

/// What is left of the name without the words in which twins differ: the same for `man health worker`, `woman health
/// worker` and `health worker`, for every clock face, every country's flag and every colour of heart.
fn by_name(item: &Item) -> String {
    let name = words(item.emoji.name());
    let subgroup = item.subgroup.unwrap_or("");
    // One family per kind of thing whose members differ in a detail that has no common word.
    let has = |word: &str| name.iter().any(|other| other == word);
    let family = |test: bool, name: &'static str| test.then_some(name);
    let known = family(subgroup.ends_with("-flag") || (has("flag") && has(":")), "country flag")
        .or(family(
            subgroup == "time" && (has("o'clock") || name.iter().any(|word| word.ends_with("-thirty"))),
            "clock",
        ))
        .or(family(has("keycap"), "keycap"))
        .or(family(has("family"), "family"))
        .or(family(has("kiss") && subgroup == "family", "kiss"))
        .or(family(has("couple"), "couple"))
        .or(family(has("holding") && has("hands"), "holding hands"))
        .or(family(has("hair") || has("bald") || has("beard"), "head"))
        .or(family(has("moon") && !has("cake"), "moon"))
        .or(family(subgroup == "person-gesture" && (has("frowning") || has("pouting")), "frowning"))
        .or(family(has("medal"), "medal"))
        .or(family(has("snowman"), "snowman"))
        .or(family(has("mailbox"), "mailbox"))
        .or(family(has("globe"), "globe"))
        .or(family(has("button") && has("japanese"), "japanese button"))
        .or(family(has("prince") || has("princess") || (has("person") && has("crown")), "prince"))
        .or(family(has("mermaid") || has("merman") || has("merperson"), "merperson"))
        .or(family(has("hourglass"), "hourglass"));
    if let Some(known) = known {
        return known.to_owned();
    }
    let differs = |word: &str| {
        PERSONS.contains(&word)
            || SHADES.contains(&word)
            || DIRECTIONS.contains(&word)
            || !word.contains(char::is_alphanumeric)
    };
    let rest: Vec<&str> = name.iter().map(String::as_str).filter(|word| !differs(word)).collect();
    match (rest.is_empty(), subgroup) {
        // Nothing but such words: the plain persons are one series, of anything else each is its own.
        (true, "person") => "head".into(),
        (true, _) => format!("{subgroup}/{}", name.join(" ")),
        (false, _) => rest.join(" "),
    }
}
