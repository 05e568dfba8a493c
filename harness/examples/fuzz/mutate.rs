//! Changes of sound bytes, as they hurt readers: a few at a time, since many in one place only ever meet the first check.

use xmbench_datasets::random::Stream;

/// What lengths and counts are set to.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x00ff_ffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0xffff_ffff_ffff_fff0,
    u64::MAX,
];

/// What text is set to: numbers out of range, nesting, control characters, and what some readers take for a word.
const WORDS: [&str; 24] = [
    "-1",
    "0",
    "1e999",
    "nan",
    "inf",
    "18446744073709551616",
    "99999999999999999999999999",
    "[[[[[[[[[[",
    "{{{{{{{{{{",
    "((((((((((",
    "\"",
    "'''",
    "\\u0000",
    "\u{1b}[31m",
    "\u{feff}",
    "\u{2029}",
    "\r\n",
    "\t\t\t",
    "../../..",
    "= = =",
    "null",
    "true",
    ".....",
    "#",
];

/// Bytes that a mutated file may have at most: the limits are those of small files.
const LONGEST: usize = 99_000;

/// One of the seeds with one to six changes.
pub fn mutated(seeds: &[Vec<u8>], stream: &mut Stream) -> Vec<u8> {
    let mut bytes = seeds[stream.below(seeds.len())].clone();
    for _ in 0..1 + stream.below(6) {
        change(&mut bytes, seeds, stream);
    }
    bytes.truncate(LONGEST);
    bytes
}

/// A place, more often near the beginning, where headers are.
fn place(length: usize, stream: &mut Stream) -> usize {
    let near = if stream.below(2) == 0 { length.min(512) } else { length };
    stream.below(near.max(1))
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], stream: &mut Stream) {
    if bytes.is_empty() {
        bytes.push(stream.bits() as u8);
        return;
    }
    let at = place(bytes.len(), stream);
    match stream.below(13) {
        0 | 1 => bytes[at] ^= 1 << stream.below(8),
        2 => bytes[at] = stream.bits() as u8,
        3 => bytes[at] = bytes[at].wrapping_add([1, 255][stream.below(2)]),
        4..=6 => number(bytes, at, stream),
        7 => bytes.truncate(at),
        8 => {
            let end = (at + 1 + stream.below(32)).min(bytes.len());
            bytes.drain(at..end);
        }
        9 => {
            // A run of the file again, sometimes many times over.
            let end = (at + 1 + stream.below(64)).min(bytes.len());
            let again = bytes[at..end].repeat([1, 1, 2, 100][stream.below(4)]);
            let to = place(bytes.len(), stream);
            bytes.splice(to..to, again);
        }
        10 => {
            // What another file has at some place.
            let other = &seeds[stream.below(seeds.len())];
            let from = stream.below(other.len().max(1));
            let taken = &other[from..(from + 1 + stream.below(64)).min(other.len())];
            let end = (at + taken.len()).min(bytes.len());
            bytes.splice(at..end, taken.iter().copied());
        }
        11 => {
            let word = WORDS[stream.below(WORDS.len())];
            let end = (at + stream.below(2) * word.len()).min(bytes.len());
            bytes.splice(at..end, word.bytes());
        }
        _ => digits(bytes, at, stream),
    }
}

/// Writes a number of two, four or eight bytes over what is there, in either order, in its place or a little beside.
fn number(bytes: &mut [u8], at: usize, stream: &mut Stream) {
    let width = [2, 4, 4, 8, 8][stream.below(5)];
    let at = if stream.below(4) == 0 { at } else { at / width * width };
    let Some(room) = bytes.get_mut(at..at + width) else { return };
    let mut value = NUMBERS[stream.below(NUMBERS.len())];
    if stream.below(4) == 0 {
        // A little more or less than what was there.
        let mut whole = [0; 8];
        whole[..width].copy_from_slice(room);
        value = u64::from_le_bytes(whole).wrapping_add(stream.below(5) as u64).wrapping_sub(2);
    }
    let whole = value.to_le_bytes();
    room.copy_from_slice(&whole[..width]);
    if stream.below(3) == 0 {
        room.reverse();
    }
}

/// Sets the next run of digits to another number.
fn digits(bytes: &mut Vec<u8>, at: usize, stream: &mut Stream) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else { return };
    let end = bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |found| start + found);
    let value = NUMBERS[stream.below(NUMBERS.len())].to_string();
    bytes.splice(start..end, value.bytes());
}
