//! The header of a `.npy` file: a Python dictionary of the type, the order of axes and the shape.
//!
//! Only what describes a plain array is read, in one pass: a parser of Python's literals at large takes a second for ten brackets
//! inside one another.

use std::path::Path;

use super::REWRITE;
use crate::{Error, Result};

/// Longest header that is read, as numpy's own reader has it for files of unknown origin.
const LONGEST: usize = 10_000;

/// Most axes that an array has; numpy's own limit is 64.
const MOST_AXES: usize = 64;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Type of an element as numpy writes it, such as `<f2`.
    pub descr: String,
    pub fortran: bool,
    pub shape: Vec<u64>,
}

impl Header {
    /// The header of a file, and the position of the first value. The product of the axes fits into 63 bits, zeros counted as ones.
    pub fn read(path: &Path, bytes: &[u8]) -> Result<(Self, usize)> {
        let wrong = |expected: &str, found: String| Error::content(path, "header", expected, found, REWRITE);
        if bytes.len() < 10 || !bytes.starts_with(b"\x93NUMPY") {
            let found = format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(6)]));
            return Err(wrong("a .npy file, which begins with \\x93NUMPY", found));
        }
        let (before, length) = match bytes[6] {
            1 => (10, usize::from(u16::from_le_bytes([bytes[8], bytes[9]]))),
            _ if bytes.len() >= 12 => (12, u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize),
            _ => (12, 0),
        };
        if length > LONGEST || bytes.len() < before + length {
            let expected = format!("a header of at most {LONGEST} bytes inside the file");
            return Err(wrong(&expected, format!("{length} bytes in a file of {}", bytes.len())));
        }
        let text = String::from_utf8_lossy(&bytes[before..before + length]);
        let header = Text(text.trim_end()).header().map_err(|found| wrong("the header of a plain array", found))?;
        let product = header.shape.iter().try_fold(1u64, |n, &length| n.checked_mul(length.max(1)));
        if product.is_none_or(|n| n > i64::MAX as u64) {
            return Err(wrong("a shape that fits into memory", format!("{:?}", header.shape)));
        }
        Ok((header, before + length))
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Kind and bytes of an element, if they are those of a number, least significant byte first: `f`, `i`, `u` or `b`.
    pub fn number(&self) -> Option<(char, usize)> {
        let mut letters = self.descr.chars();
        let order = letters.next()?;
        let kind = letters.next()?;
        let width: usize = letters.as_str().parse().ok()?;
        let known = matches!((kind, width), ('f', 2 | 4 | 8) | ('i' | 'u', 1 | 2 | 4 | 8) | ('b', 1));
        (known && (matches!(order, '<' | '|') || (order == '>' && width == 1))).then_some((kind, width))
    }
}

/// What is left of the text.
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn header(mut self) -> std::result::Result<Header, String> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.expect('{')?;
        while !self.take('}') {
            let key = self.string()?;
            self.expect(':')?;
            match key {
                "descr" => descr = Some(self.string()?.to_owned()),
                "fortran_order" => fortran = Some(self.flag()?),
                "shape" => shape = Some(self.lengths()?),
                _ => return Err(format!("a key `{key}`")),
            }
            if !self.take(',') {
                self.expect('}')?;
                break;
            }
        }
        if !self.0.trim_start().is_empty() {
            return Err(self.rest());
        }
        match (descr, fortran, shape) {
            (Some(descr), Some(fortran), Some(shape)) => Ok(Header { descr, fortran, shape }),
            (None, ..) => Err("no `descr`".into()),
            (_, None, _) => Err("no `fortran_order`".into()),
            _ => Err("no `shape`".into()),
        }
    }

    fn take(&mut self, letter: char) -> bool {
        self.0 = self.0.trim_start();
        let rest = self.0.strip_prefix(letter);
        rest.map(|rest| self.0 = rest).is_some()
    }

    fn expect(&mut self, letter: char) -> std::result::Result<(), String> {
        if self.take(letter) { Ok(()) } else { Err(self.rest()) }
    }

    /// What stands where something else should.
    fn rest(&self) -> String {
        match self.0.trim_start() {
            "" => "its end".into(),
            rest => format!("`{}`", rest.chars().take(40).collect::<String>()),
        }
    }

    /// A string without escapes.
    fn string(&mut self) -> std::result::Result<&'a str, String> {
        for quote in ['\'', '"'] {
            if self.take(quote) {
                let (inside, rest) = self.0.split_once(quote).ok_or_else(|| self.rest())?;
                self.0 = rest;
                return Ok(inside);
            }
        }
        Err(self.rest())
    }

    fn flag(&mut self) -> std::result::Result<bool, String> {
        self.0 = self.0.trim_start();
        for (word, flag) in [("True", true), ("False", false)] {
            if let Some(rest) = self.0.strip_prefix(word) {
                self.0 = rest;
                return Ok(flag);
            }
        }
        Err(self.rest())
    }

    /// A tuple of whole numbers; Python 2 wrote an L behind large ones.
    fn lengths(&mut self) -> std::result::Result<Vec<u64>, String> {
        let mut out = Vec::new();
        self.expect('(')?;
        while !self.take(')') {
            self.0 = self.0.trim_start();
            let end = self.0.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(self.0.len());
            let length = self.0[..end].parse().map_err(|_| self.rest())?;
            self.0 = &self.0[end..];
            out.push(length);
            let _ = self.take('L');
            if out.len() > MOST_AXES {
                return Err(format!("more than {MOST_AXES} axes"));
            }
            if !self.take(',') {
                // One number in brackets is no tuple.
                if out.len() < 2 {
                    return Err(self.rest());
                }
                self.expect(')')?;
                break;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match Text(text).header() {
            Ok(header) => format!("{} {} {:?} {:?}", header.descr, header.fortran, header.shape, header.number()),
            Err(found) => found,
        }
    }

    #[test]
    fn headers_are_read_however_they_are_spaced() {
        let cases = [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }",
            " {\"shape\":(3L,),\"fortran_order\":True,\"descr\":\"|u1\"} ",
            "{'descr': '>f8', 'fortran_order': False, 'shape': ()}",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 2, 3)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
            "{'descr': '<f4', 'shape': (3,)}",
            "{'descr': '<f4', 'order': 1}",
            "{'descr': '<f4'} x",
            "{'descr",
            "",
        ];
        insta::assert_snapshot!(cases.map(said).join("\n"), @r#"
        <f4 false [3, 4] Some(('f', 4))
        |u1 true [3] Some(('u', 1))
        >f8 false [] None
        <c8 false [1, 2, 3] None
        `[('a', '<f4')], 'fortran_order': False, `
        `0, 'shape': (3,)}`
        `)}`
        `-3,)}`
        `99999999999999999999,)}`
        no `fortran_order`
        a key `order`
        `x`
        `descr`
        its end
        "#);
    }

    /// Ten brackets took a parser of Python's literals 1.7 s, and each more twice as long.
    #[test]
    fn brackets_take_no_time() {
        let start = std::time::Instant::now();
        for bracket in ["{", "(", "["] {
            let text =
                format!("{{'descr': '<i8', 'fortran_order': False, 'shape':{} (4, 2,), }}", bracket.repeat(5000));
            assert!(Text(&text).header().is_err());
        }
        assert!(start.elapsed().as_secs_f64() < 0.5);
    }
}
