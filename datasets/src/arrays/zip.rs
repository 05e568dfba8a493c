//! The zip archives that numpy writes: stored or deflated entries, the 64-bit forms of sizes and offsets included.
//!
//! The directory at the end is what counts. An entry that is compressed is held against what its array declares before memory is
//! taken for it.

use std::{io::Read, path::Path};

use flate2::{Crc, read::DeflateDecoder};

use crate::{Error, Result, npy::Header};

/// No stream of deflate unpacks to more than 1032 times its length.
const RATIO: u64 = 1032;
/// Bytes that hold the longest header of an array that is read.
const HEAD: u64 = 10_012;

/// An entry of the directory.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    /// Where its bytes begin.
    pub start: usize,
    /// Bytes in the archive.
    pub packed: usize,
    size: u64,
    crc: u32,
    deflated: bool,
}

fn damaged(path: &Path, expected: &str, found: impl Into<String>) -> Error {
    let next = "the copy is incomplete or damaged: write it again with numpy.savez";
    Error::content(path, "zip archive", expected, found, next)
}

/// A number of `N` bytes at `at`, least significant first.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let found = bytes.get(at..at.checked_add(N)?)?;
    Some(found.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
}

/// The entries of the directory at the end of the archive.
///
/// # Errors
/// If there is no directory, an entry leads out of the file, or is packed in another way.
pub fn entries(path: &Path, bytes: &[u8]) -> Result<Vec<Entry>> {
    let cut = || damaged(path, "a directory at its end", "none that is whole");
    let last = bytes.len().checked_sub(22).ok_or_else(cut)?;
    let end = (last.saturating_sub(0xffff)..=last).rev().find(|&at| bytes[at..].starts_with(b"PK\x05\x06"));
    let end = end.ok_or_else(cut)?;
    let (mut count, mut at) =
        (number::<2>(bytes, end + 10).ok_or_else(cut)?, number::<4>(bytes, end + 16).ok_or_else(cut)?);
    if count == 0xffff || at == 0xffff_ffff {
        // The 64-bit directory's place stands in the 20 bytes before.
        let locator = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07")).ok_or_else(cut)?;
        let place = number::<8>(bytes, locator + 8).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut)?;
        let whole = bytes.get(place..).is_some_and(|rest| rest.starts_with(b"PK\x06\x06"));
        if !whole {
            return Err(cut());
        }
        count = number::<8>(bytes, place + 32).ok_or_else(cut)?;
        at = number::<8>(bytes, place + 48).ok_or_else(cut)?;
    }
    let mut at = usize::try_from(at).map_err(|_| cut())?;
    let mut found = Vec::new();
    for _ in 0..count {
        let (entry, next) = entry(path, bytes, at)?;
        found.push(entry);
        at = next;
    }
    Ok(found)
}

/// The entry of the directory at `at`, and where the next one stands.
fn entry(path: &Path, bytes: &[u8], at: usize) -> Result<(Entry, usize)> {
    let cut = || damaged(path, "an entry of its directory", "one that is cut short");
    if !bytes.get(at..).is_some_and(|rest| rest.starts_with(b"PK\x01\x02")) {
        return Err(cut());
    }
    let short = |offset: usize| number::<2>(bytes, at + offset).ok_or_else(cut);
    let long = |offset: usize| number::<4>(bytes, at + offset).ok_or_else(cut);
    let (flags, method, crc) = (short(8)?, short(10)?, long(16)? as u32);
    let (mut packed, mut size, mut start) = (long(20)?, long(24)?, long(42)?);
    let (name, extra, comment) = (short(28)? as usize, short(30)? as usize, short(32)? as usize);
    let after = at + 46 + name;
    let text = bytes.get(at + 46..after).ok_or_else(cut)?;
    let text = String::from_utf8_lossy(text).into_owned();
    let extra = bytes.get(after..after + extra).ok_or_else(cut)?;
    // Field 1 holds, in this order, those of the three numbers that did not fit.
    let mut field = 0;
    while let (Some(kind), Some(length)) = (number::<2>(extra, field), number::<2>(extra, field + 2)) {
        let mut place = field + 4;
        for value in [&mut size, &mut packed, &mut start] {
            if kind == 1 && *value == 0xffff_ffff {
                *value = number::<8>(extra, place).ok_or_else(cut)?;
                place += 8;
            }
        }
        field += 4 + length as usize;
    }
    let wrong = |expected: &str, found: String| Err(damaged(path, expected, format!("{found} for `{text}`")));
    if flags & 1 != 0 {
        return wrong("entries without a password", "an encrypted one".into());
    }
    let deflated = match method {
        0 if packed == size => false,
        8 => true,
        0 => return wrong("as many bytes as a stored entry says", format!("{packed} of {size}")),
        other => return wrong("entries that are stored or deflated", format!("method {other}")),
    };
    // Behind the entry's own header, whose name and extra field have lengths of their own.
    let place =
        usize::try_from(start).ok().filter(|&place| bytes.get(place..).is_some_and(|it| it.starts_with(b"PK\x03\x04")));
    let place = place.ok_or_else(cut)?;
    let own = [26, 28].map(|offset| number::<2>(bytes, place + offset));
    let [Some(own_name), Some(own_extra)] = own else { return Err(cut()) };
    let start = place + 30 + own_name as usize + own_extra as usize;
    let packed = usize::try_from(packed).map_err(|_| cut())?;
    if start.checked_add(packed).is_none_or(|end| end > bytes.len()) {
        return Err(cut());
    }
    let next = after + extra.len() + comment;
    Ok((Entry { name: text, start, packed, size, crc, deflated }, next))
}

/// The bytes of an entry that is compressed; nothing for one that is stored and can be read where it lies.
///
/// # Errors
/// If it does not unpack to the array that its header declares, or to other bytes than its checksum.
pub fn unpacked(path: &Path, entry: &Entry, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    if !entry.deflated {
        return Ok(None);
    }
    let name = &entry.name;
    let wrong = |expected: String, found: String| Err(damaged(path, &expected, format!("{found} in `{name}`")));
    let packed = &bytes[entry.start..entry.start + entry.packed];
    if entry.size > (packed.len() as u64 + 1).saturating_mul(RATIO) {
        return wrong(format!("at most {RATIO} times {} bytes", packed.len()), format!("{} declared", entry.size));
    }
    let mut head = Vec::new();
    let mut stream = DeflateDecoder::new(packed).take(HEAD);
    stream.read_to_end(&mut head).map_err(|error| damaged(path, "a deflated entry", error.to_string()))?;
    let (header, start) = Header::read(path, &head)?;
    let each = header.number().map_or(1, |(_, bytes)| bytes as u64);
    if header.elements().checked_mul(each).and_then(|data| data.checked_add(start as u64)) != Some(entry.size) {
        return wrong(
            format!("the bytes of shape {:?} of `{}`", header.shape, header.descr),
            format!("{}", entry.size),
        );
    }
    let mut out = Vec::new();
    let room = usize::try_from(entry.size).ok().and_then(|size| out.try_reserve_exact(size).ok());
    if room.is_none() {
        return wrong("an array that fits into memory".into(), format!("{} bytes", entry.size));
    }
    let read = DeflateDecoder::new(packed).take(entry.size.saturating_add(1)).read_to_end(&mut out);
    read.map_err(|error| damaged(path, "a deflated entry", error.to_string()))?;
    let mut crc = Crc::new();
    crc.update(&out);
    if out.len() as u64 != entry.size || crc.sum() != entry.crc {
        return wrong(
            format!("{} bytes of checksum {:08x}", entry.size, entry.crc),
            format!("{} of {:08x}", out.len(), crc.sum()),
        );
    }
    Ok(Some(out))
}
