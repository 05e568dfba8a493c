//! Version 5: elements one behind the other, each plain or packed (deflate).
//!
//! Opening reads what stands before the values of each array: its class, lengths and name. Values are read when they are asked for,
//! a block at a time, straight into the matrix. How many there must be follows from the lengths, and is held against what the element
//! declares and against what its bytes can hold before memory is taken. A packed element inside a packed one is refused.

use std::{
    io::{self, Read},
    ops::Range,
    path::Path,
};

use flate2::read::ZlibDecoder;
use memmap2::Mmap;

use super::{ArrayInfo, DAMAGED, DEFLATE_RATIO, LARGEST, Target};
use crate::{Error, Result};

pub(super) const MATRIX: u32 = 14;
pub(super) const COMPRESSED: u32 = 15;

/// Axes and bytes of a name that an array may have: MATLAB writes names of at most 63.
const MOST_AXES: u32 = 32;
const LONGEST_NAME: u32 = 4096;

/// Bytes of values that are read at a time; a multiple of every width.
const BLOCK: usize = 1 << 16;

/// The arrays of a file.
pub(super) struct Arrays {
    bytes: Mmap,
    little: bool,
    /// One for each array that was listed.
    elements: Vec<Element>,
}

#[derive(Clone)]
struct Element {
    /// Where it begins, for messages.
    at: usize,
    body: Range<usize>,
    packed: bool,
}

/// What stands before the values of an array.
struct Head {
    name: String,
    shape: Vec<u64>,
    class: u32,
    complex: bool,
    logical: bool,
    /// Type of the values as they are stored, where it is an array of numbers.
    stored: Option<u32>,
}

pub(super) fn open(path: &Path, bytes: Mmap) -> Result<(Vec<ArrayInfo>, Arrays)> {
    let (little, elements) = elements(path, &bytes)?;
    let mut arrays = Arrays { bytes, little, elements: Vec::new() };
    let mut infos = Vec::new();
    for element in elements {
        let mut reader = arrays.reader(path, &element)?;
        let head = reader.head()?;
        // What has no name is MATLAB's own, such as what belongs to its function handles.
        if !head.name.is_empty() {
            infos.push(head.info());
            arrays.elements.push(element);
        }
    }
    Ok((infos, arrays))
}

/// Byte order, and where each element lies.
fn elements(path: &Path, bytes: &[u8]) -> Result<(bool, Vec<Element>)> {
    let little = match (bytes.get(124..126), bytes.get(126..128)) {
        (Some([0, 1]), Some(b"IM")) => true,
        (Some([1, 0]), Some(b"MI")) => false,
        _ => {
            let found = match bytes {
                bytes if super::is_v4(bytes) => "one of version 4",
                bytes if bytes.len() < 128 => "a file shorter than its header",
                _ => "another header",
            };
            let next = "save it in MATLAB with `save FILE -v7` or `-v7.3`, or from Python with scipy.io.savemat";
            return Err(Error::content(path, "header", "a MAT-file of version 5 or 7.3", found, next));
        }
    };
    let number = |at: usize| {
        let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    };
    let mut out = Vec::new();
    let mut at = 128;
    while at < bytes.len() {
        let wrong =
            |expected: String, found: String| Err(Error::content(path, format!("byte {at}"), expected, found, DAMAGED));
        let (Some(kind), Some(length)) = (number(at), number(at + 4)) else {
            return wrong("the type and length of an element".into(), "the end of the file".into());
        };
        if kind != MATRIX && kind != COMPRESSED {
            let found = format!("an element of type {kind}");
            return wrong("a matrix, plain or compressed (type 14 or 15)".into(), found);
        }
        let (body, left) = (at + 8, bytes.len() - at - 8);
        if length as usize > left {
            let found = format!("{left} bytes before the end of the file");
            return wrong(format!("an element of {length} bytes"), found);
        }
        out.push(Element { at, body: body..body + length as usize, packed: kind == COMPRESSED });
        at = body + length as usize;
    }
    Ok((little, out))
}

impl Arrays {
    /// A reader of what is inside an element.
    fn reader<'a>(&'a self, path: &'a Path, element: &Element) -> Result<Reader<'a>> {
        let body = &self.bytes[element.body.clone()];
        let mut reader = Reader {
            path,
            at: element.at,
            little: self.little,
            declared: body.len() as u64,
            taken: 0,
            bytes: if element.packed { Bytes::Packed(Box::new(ZlibDecoder::new(body))) } else { Bytes::Plain(body) },
        };
        if element.packed {
            // The tag of the matrix inside, which does not count in its length.
            reader.declared = 8;
            let [kind, length] = [reader.word()?, reader.word()?];
            (reader.declared, reader.taken) = (length.into(), 0);
            if kind != MATRIX {
                return Err(reader.wrong("a matrix (type 14) in a packed element", format!("type {kind}")));
            }
            let most = body.len() as u128 * DEFLATE_RATIO;
            if u128::from(length) > most {
                let expected = format!("at most {most} bytes, which {} packed ones can hold", body.len());
                return Err(reader.wrong(expected, format!("{length} bytes")));
            }
        }
        Ok(reader)
    }

    /// Reads the array at a place of the list into the target.
    pub(super) fn fill(&self, at: usize, out: &mut Target<'_>) -> Result<()> {
        let mut reader = self.reader(out.path, &self.elements[at])?;
        let head = reader.head()?;
        let Some((width, number)) = head.stored.and_then(|stored| real(stored, self.little)) else {
            return Err(out.damaged("real numbers", head.info().kind));
        };
        let rows = out.matrix.rows;
        let wanted = out.matrix.data.len();
        let mut block = vec![0; BLOCK.min(wanted * width)];
        let mut first = 0;
        while first < wanted {
            let count = (wanted - first).min(BLOCK / width);
            let block = &mut block[..count * width];
            reader.fill(block)?;
            for (i, value) in (first..).zip(block.chunks_exact(width).map(number)) {
                // Column after column in the file.
                out.put(i % rows, i / rows, value)?;
            }
            first += count;
        }
        reader.finish()
    }
}

/// What is inside an element, counted.
struct Reader<'a> {
    path: &'a Path,
    at: usize,
    little: bool,
    /// Bytes that there must be.
    declared: u64,
    taken: u64,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Plain(&'a [u8]),
    Packed(Box<ZlibDecoder<&'a [u8]>>),
}

impl Read for Bytes<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(bytes) => bytes.read(out),
            Self::Packed(bytes) => bytes.read(out),
        }
    }
}

impl Reader<'_> {
    fn wrong(&self, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::content(self.path, format!("byte {}", self.at), expected, found, DAMAGED)
    }

    /// Fills `out`, all of it.
    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.bytes.read(&mut out[done..]) {
                Ok(0) => {
                    let found = self.taken.to_string();
                    return Err(match self.bytes {
                        Bytes::Packed(_) => self.wrong(format!("{} bytes when unpacked", self.declared), found),
                        Bytes::Plain(_) => self.wrong("a whole matrix", format!("{found} bytes of it")),
                    });
                }
                Ok(read) => (done, self.taken) = (done + read, self.taken + read as u64),
                Err(error) => return Err(self.wrong("a whole packed matrix", error.to_string())),
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<u32> {
        let mut word = [0; 4];
        self.fill(&mut word)?;
        Ok(if self.little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
    }

    /// Type and length of what follows, and whether it stands in the tag itself.
    fn tag(&mut self) -> Result<(u32, u32, bool)> {
        let word = self.word()?;
        match word >> 16 {
            0 => Ok((word, self.word()?, false)),
            length @ 1..=4 => Ok((word & 0xffff, length, true)),
            length => Err(self.wrong("an element of at most 4 bytes in a tag", format!("{length} bytes"))),
        }
    }

    /// A short element of the given type, with its padding taken off.
    fn short(&mut self, what: &str, kind: u32, most: u32) -> Result<Vec<u8>> {
        let (found, length, small) = self.tag()?;
        if found != kind || length > most {
            let expected = format!("{what} of type {kind} and at most {most} bytes");
            return Err(self.wrong(expected, format!("type {found}, {length} bytes")));
        }
        let mut out = vec![0; if small { 4 } else { length.next_multiple_of(8) as usize }];
        self.fill(&mut out)?;
        out.truncate(length as usize);
        Ok(out)
    }

    /// What stands before the values; the reader is then at the first of them.
    fn head(&mut self) -> Result<Head> {
        let flags = self.short("flags", 6, 8)?;
        let words: Vec<u32> = self.words(&flags);
        let &[flags, _] = &words[..] else {
            return Err(self.wrong("flags of 8 bytes", format!("{}", 4 * words.len())));
        };
        let (class, complex, logical) = (flags & 0xff, flags & 0x0800 != 0, flags & 0x0200 != 0);
        if !(1..=17).contains(&class) {
            return Err(self.wrong("the class of an array, from 1 to 17", class.to_string()));
        }
        // Objects of newer classes have no lengths.
        if class == 17 {
            let name = self.short("a name", 1, LONGEST_NAME)?;
            let name = String::from_utf8_lossy(&name).into_owned();
            return Ok(Head { name, shape: Vec::new(), class, complex, logical, stored: None });
        }
        let lengths = self.short("lengths", 5, 4 * MOST_AXES)?;
        let shape: Vec<u64> = self.words(&lengths).into_iter().map(u64::from).collect();
        if let Some(length) = shape.iter().find(|&&length| length > i32::MAX as u64) {
            return Err(self.wrong("lengths of at least 0", (*length as u32 as i32).to_string()));
        }
        let name = self.short("a name", 1, LONGEST_NAME)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let mut head = Head { name, shape, class, complex, logical, stored: None };
        if head.is_real() {
            let (stored, length, small) = self.tag()?;
            let Some((width, _)) = real(stored, self.little) else {
                return Err(self.wrong(format!("real numbers as values of `{}`", head.name), format!("type {stored}")));
            };
            let values = head.shape.iter().try_fold(width as u128, |n, &length| n.checked_mul(length.into()));
            let expected = || format!("{:?} values of {width} bytes in `{}`", head.shape, head.name);
            if values != Some(length.into()) {
                return Err(self.wrong(expected(), format!("{length} bytes")));
            }
            // Nothing comes after real values but what fills up to a multiple of eight; some writers fill once more.
            let left = self.declared.saturating_sub(self.taken);
            let most = if small { 4 } else { u64::from(length).next_multiple_of(8) } + 8;
            if !(length.into()..=most).contains(&left) || u128::from(length) > LARGEST {
                return Err(self.wrong(expected(), format!("an element with {left} bytes for them")));
            }
            head.stored = Some(stored);
        }
        Ok(head)
    }

    fn words(&self, bytes: &[u8]) -> Vec<u32> {
        let word = |word: &[u8]| {
            let word = word.try_into().expect("chunks of four");
            if self.little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }
        };
        bytes.chunks_exact(4).map(word).collect()
    }

    /// Reads to the end: a packed element must hold what it declares, up to a multiple of eight, and its checksum.
    fn finish(mut self) -> Result<()> {
        let Bytes::Packed(_) = self.bytes else { return Ok(()) };
        let most = self.declared + 8;
        let mut rest = self.bytes.by_ref().take(most.saturating_sub(self.taken));
        let found = match io::copy(&mut rest, &mut io::sink()) {
            Ok(read) => self.taken + read,
            Err(error) => return Err(self.wrong("a whole packed matrix", error.to_string())),
        };
        let expected = format!("{} bytes when unpacked", self.declared);
        match found {
            found if found >= most => Err(self.wrong(expected, "more")),
            found if found < self.declared => Err(self.wrong(expected, found.to_string())),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn is_real(&self) -> bool {
        (6..=15).contains(&self.class) && !self.complex
    }

    fn info(&self) -> ArrayInfo {
        let kind = match self.class {
            1 => "cell",
            2 => "structure",
            3 => "object",
            4 => "char",
            5 => "sparse",
            6 => "double",
            7 => "single",
            8 => "int8",
            9 if self.logical => "logical",
            9 => "uint8",
            10 => "int16",
            11 => "uint16",
            12 => "int32",
            13 => "uint32",
            14 => "int64",
            15 => "uint64",
            16 => "function",
            _ => "object of a class",
        };
        let kind = if self.complex { format!("complex {kind}") } else { kind.to_owned() };
        ArrayInfo { name: self.name.clone(), shape: self.shape.clone(), kind, numeric: self.is_real() }
    }
}

/// Bytes of a stored type and what they stand for: MATLAB stores values in the narrowest type that holds them all.
fn real(stored: u32, little: bool) -> Option<(usize, fn(&[u8]) -> f64)> {
    macro_rules! read {
        ($type:ty) => {
            match little {
                true => |bytes: &[u8]| <$type>::from_le_bytes(bytes.try_into().expect("all bytes of a value")) as f64,
                false => |bytes: &[u8]| <$type>::from_be_bytes(bytes.try_into().expect("all bytes of a value")) as f64,
            }
        };
    }
    let read: (usize, fn(&[u8]) -> f64) = match stored {
        1 => (1, read!(i8)),
        2 => (1, read!(u8)),
        3 => (2, read!(i16)),
        4 => (2, read!(u16)),
        5 => (4, read!(i32)),
        6 => (4, read!(u32)),
        7 => (4, read!(f32)),
        9 => (8, read!(f64)),
        12 => (8, read!(i64)),
        13 => (8, read!(u64)),
        _ => return None,
    };
    Some(read)
}
