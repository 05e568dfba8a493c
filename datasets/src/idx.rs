//! Arrays of bytes in LeCun's IDX format, gzipped or not: two zero bytes, the type (8 for unsigned bytes), the number of dimensions, each length
//! as a big-endian u32, the values row after row.

use std::{
    io::{BufReader, Read, Seek},
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

use crate::{Error, Result, files};

/// Values that a file may hold at most; MNIST has 47 million.
const LARGEST: usize = 1 << 30;

/// No gzip stream holds more than this times its length (deflate 1032, and some for the container).
const GZIP_RATIO: u128 = 1040;

/// What a gzip stream begins with.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

const AGAIN: &str = "download it again";

/// An array of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Idx {
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

/// Reads the whole file.
///
/// # Errors
/// A file that cannot be read, is no IDX file of bytes, or holds more or fewer values than its lengths say.
pub(crate) fn read(path: &Path) -> Result<Idx> {
    let (shape, mut reader) = open(path)?;
    let expected = shape.iter().product::<usize>();
    let mut bytes = Vec::with_capacity(expected + 1);
    // One value more than due, so that a longer file, or a bomb, is noticed and not unpacked.
    reader.by_ref().take(expected as u64 + 1).read_to_end(&mut bytes).map_err(|error| broken(path, &error))?;
    if bytes.len() != expected {
        let found = if bytes.len() > expected { "more".into() } else { bytes.len().to_string() };
        return Err(Error::content(path, "", format!("{expected} values, as {} says", lengths(&shape)), found, AGAIN));
    }
    Ok(Idx { shape, bytes })
}

/// The lengths alone.
///
/// # Errors
/// As [`read`], as far as the header shows it.
pub(crate) fn shape(path: &Path) -> Result<Vec<usize>> {
    open(path).map(|(shape, _)| shape)
}

/// The first of `names` in `folder` that is there, as it is or with `.gz`.
///
/// # Errors
/// If none is there.
pub(crate) fn find(folder: &Path, names: &[&str], get: &str) -> Result<PathBuf> {
    let all = names.iter().flat_map(|name| [folder.join(name), folder.join(format!("{name}.gz"))]);
    all.into_iter().find(|path| files::there(path)).ok_or_else(|| {
        let expected = format!(
            "an IDX file, also with .gz at the end of its name{}",
            match names {
                [_] => String::new(),
                _ => format!(", or {}", names[1..].join(", ")),
            }
        );
        Error::content(folder.join(names[0]), "", expected, "nothing", get)
    })
}

fn open(path: &Path) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let (mut file, length) = files::open(path)?;
    let mut start = Vec::new();
    file.by_ref().take(GZIP.len() as u64).read_to_end(&mut start).map_err(Error::io(path))?;
    file.rewind().map_err(Error::io(path))?;
    let file = BufReader::new(file);
    let packed = start == GZIP;
    let mut reader: Box<dyn Read> = if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut word = |place: &str| {
        let mut word = [0u8; 4];
        reader.read_exact(&mut word).map(|()| word).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::content(path, place, "four bytes", "the end of the file", AGAIN)
            }
            _ => broken(path, &error),
        })
    };
    let magic = word("magic number")?;
    let [0, 0, 8, dimensions @ 1..=4] = magic else {
        let expected = "00 00 08 and the number of dimensions, 01 to 04: an IDX file of unsigned bytes";
        let found = magic.map(|byte| format!("{byte:02x}")).join(" ");
        return Err(Error::content(path, "magic number", expected, found, AGAIN));
    };
    let shape = (1..=dimensions).map(|number| Ok(u32::from_be_bytes(word(&format!("length {number}"))?) as usize));
    let shape = shape.collect::<Result<Vec<usize>>>()?;
    let values = shape.iter().try_fold(1usize, |values, &length| values.checked_mul(length));
    let Some(values) = values.filter(|values| (1..=LARGEST).contains(values)) else {
        return Err(Error::content(path, "lengths", format!("1 to {LARGEST} values"), lengths(&shape), AGAIN));
    };
    // Before memory is taken: what is there must be able to hold what is promised.
    let most = u128::from(length) * if packed { GZIP_RATIO } else { 1 };
    if values as u128 > most {
        let expected = format!("at most {most} values, which {length} bytes can hold");
        return Err(Error::content(path, "lengths", expected, lengths(&shape), AGAIN));
    }
    Ok((shape, reader))
}

fn lengths(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

fn broken(path: &Path, error: &std::io::Error) -> Error {
    Error::content(path, "", "a whole gzip stream", error.to_string(), AGAIN)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;

    use super::*;

    /// The bytes of an IDX file.
    pub fn idx(shape: &[usize], values: &[u8]) -> Vec<u8> {
        let lengths = shape.iter().flat_map(|&length| (length as u32).to_be_bytes());
        [0, 0, 8, shape.len() as u8].into_iter().chain(lengths).chain(values.iter().copied()).collect()
    }

    pub fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn gzipped_and_plain_files_hold_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, packed) = (folder.path().join("a"), folder.path().join("b.gz"));
        let bytes = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        std::fs::write(&plain, &bytes).unwrap();
        std::fs::write(&packed, gzip(&bytes)).unwrap();
        assert_eq!(read(&plain).unwrap(), Idx { shape: vec![2, 3], bytes: vec![1, 2, 3, 4, 5, 6] });
        assert_eq!(read(&plain).unwrap(), read(&packed).unwrap());
        assert_eq!(shape(&packed).unwrap(), [2, 3]);
        assert_eq!(find(folder.path(), &["x", "b"], "").unwrap(), packed);
        assert!(find(folder.path(), &["x"], "get it").unwrap_err().to_string().contains("found nothing; get it"));
    }

    #[test]
    fn hostile_files_are_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path).unwrap_err().to_string()
        };
        let good = idx(&[2, 3], &[1, 2, 3, 4, 5, 6]);
        assert!(message(b"").contains("magic number: expected four bytes, found the end of the file"));
        assert!(message(b"\x93NUMPY").contains("found 93 4e 55 4d"));
        assert!(message(&[0, 0, 13, 1, 0, 0, 0, 1, 0]).contains("unsigned bytes, found 00 00 0d 01"));
        assert!(message(&good[..6]).contains("length 1: expected four bytes"));
        assert!(message(&good[..good.len() - 1]).contains("expected 6 values, as 2 x 3 says, found 5"));
        assert!(message(&[&good[..], &[0]].concat()).contains("found more"));
        assert!(message(&idx(&[0, 3], &[])).contains("lengths: expected 1 to"));
        assert!(message(&idx(&[u32::MAX as usize; 4], &[])).contains("lengths: expected 1 to"));
        // A gigabyte is promised, and there is nothing: no memory is taken for it.
        let promised = idx(&[1 << 15, 1 << 15], &[]);
        assert!(
            message(&promised)
                .contains("lengths: expected at most 12 values, which 12 bytes can hold, found 32768 x 32768")
        );
        let length = gzip(&promised).len();
        let text = message(&gzip(&promised));
        assert!(text.contains(&format!("at most {} values, which {length} bytes can hold", 1040 * length)), "{text}");
        let packed = gzip(&good);
        for cut in [2, 5, 12, packed.len() - 9] {
            let message = message(&packed[..cut]);
            assert!(
                message.contains("expected a whole gzip stream") || message.contains("end of the file"),
                "{message}"
            );
        }
        let mut flipped = packed.clone();
        let last = flipped.len() - 6;
        flipped[last] ^= 1; // the checksum
        assert!(message(&flipped).contains("gzip"), "{}", message(&flipped));
        // A bomb: 64 MiB of zeros behind a header that promises six values.
        assert!(message(&gzip(&[&good[..], &vec![0; 64 << 20][..]].concat())).contains("found more"));
    }
}
