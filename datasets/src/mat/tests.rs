//! Files of this module are made here by bytes, or by `tests/data/make.py`.

use super::{
    v5::{COMPRESSED, MATRIX},
    *,
};

/// A matrix element of doubles, as MATLAB writes it without compression.
pub(crate) fn element(name: &str, size: [i32; 2], values: &[f64]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut part = |kind: u32, bytes: Vec<u8>| {
        body.extend(kind.to_le_bytes());
        body.extend((bytes.len() as u32).to_le_bytes());
        body.extend(&bytes);
        body.resize(body.len().next_multiple_of(8), 0);
    };
    part(6, [6u32, 0].iter().flat_map(|word| word.to_le_bytes()).collect());
    part(5, size.iter().flat_map(|length| length.to_le_bytes()).collect());
    part(1, name.as_bytes().to_vec());
    part(9, values.iter().flat_map(|value| value.to_le_bytes()).collect());
    let mut out = MATRIX.to_le_bytes().to_vec();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

pub(crate) fn write(path: &Path, elements: &[Vec<u8>]) {
    let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
    bytes.resize(124, b' ');
    bytes.extend([0, 1, b'I', b'M']);
    bytes.extend(elements.concat());
    std::fs::write(path, bytes).unwrap();
}

fn message(path: &Path, name: &str) -> String {
    let error = MatFile::open(path).and_then(|file| file.matrix(name)).unwrap_err().to_string();
    error.replace(&*path.parent().unwrap().to_string_lossy(), "DIR")
}

#[test]
fn columns_become_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    write(&path, &[element("a", [2, 3], &[1., 4., 2., 5., 3., 6.]), element("b", [1, 1], &[7.])]);
    let file = MatFile::open(&path).unwrap();
    let a = file.matrix("a").unwrap();
    assert_eq!((a.rows, a.cols, a.row(1)), (2, 3, [4., 5., 6.].as_slice()));
    assert_eq!(file.matrix("b").unwrap().data, [7.]);
    assert_eq!(file.infos()[0].to_string(), "a [2, 3] double");
    insta::assert_snapshot!(message(&path, "c"), @r#"DIR/a.mat: expected an array `c`, found ["a", "b"]; check that this is the features file of the dataset"#);
}

#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    write(&path, &[element("a", [1, 2], &[1., f64::NAN])]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, a, row 0, column 1: expected a finite number, found NaN; compute the features again");
    write(&path, &[element("a", [1, 3], &[1., 2.])]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected [1, 3] values of 8 bytes in `a`, found 16 bytes; the copy is incomplete or damaged: get the file again");
    write(&path, &[element("a", [i32::MAX, i32::MAX], &[1., 2.])]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected [2147483647, 2147483647] values of 8 bytes in `a`, found 16 bytes; the copy is incomplete or damaged: get the file again");
    write(&path, &[element("a", [-1, 2], &[1., 2.])]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected lengths of at least 0, found -1; the copy is incomplete or damaged: get the file again");
    std::fs::write(&path, b"\x89HDF\r\n").unwrap();
    assert!(message(&path, "a").contains("version 7.3 (HDF5)"));
    std::fs::write(&path, [b' '; 200]).unwrap();
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, header: expected a MAT-file of version 5 or 7.3, found another header; save it in MATLAB with `save FILE -v7` or `-v7.3`, or from Python with scipy.io.savemat");
    // Every prefix and every damaged byte: an error or other values, never a panic.
    write(&path, &[element("a", [2, 2], &[1., 2., 3., 4.]), element("b", [1, 1], &[7.])]);
    let whole = std::fs::read(&path).unwrap();
    insta::assert_snapshot!({ std::fs::write(&path, &whole[..200]).unwrap(); message(&path, "a") }, @"DIR/a.mat, byte 128: expected an element of 88 bytes, found 64 bytes before the end of the file; the copy is incomplete or damaged: get the file again");
    for end in 0..whole.len() {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(MatFile::open(&path).and_then(|file| file.matrix("b")).is_err(), "{end}");
    }
    for at in 124..whole.len() {
        for byte in [0, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            std::fs::write(&path, damaged).unwrap();
            let _ = MatFile::open(&path).and_then(|file| file.matrix("a"));
        }
    }
}

/// A file of `tests/data`.
fn data(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).join(format!("{name}.mat"))
}

const HDF5: [&str; 5] = ["v73", "v73-deflate", "v73-superblock2", "v73-latest", "v73-hdf5storage"];

#[test]
fn both_versions_hold_the_same_matrices() {
    let read = |name: &str| {
        let file = MatFile::open(&data(name)).unwrap();
        ["I_tr", "T_tr", "L_tr"].map(|array| file.matrix(array).unwrap())
    };
    let like = read("v5");
    // Row i, column j of I_tr is (3 i + j) / 4 - 1.
    assert_eq!((like[0].rows, like[0].cols, like[0].row(4)), (5, 3, [2.0, 2.25, 2.5].as_slice()));
    assert_eq!(like[2].data, [1., 0., 0., 1., 0., 0., 1., 1., 0., 0.]);
    for name in HDF5.into_iter().chain(["v5-packed"]) {
        assert_eq!(read(name), like, "{name}");
    }
}

#[test]
fn what_is_no_matrix_of_numbers_is_listed_and_refused() {
    let file = MatFile::open(&data("v73")).unwrap();
    let lines: Vec<String> = file.infos().iter().map(ArrayInfo::to_string).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    I_tr [5, 3] double
    L_tr [5, 2] uint8
    T_tr [5, 4] single
    flags [3, 1] logical
    title [1, 4] char
    words [2, 1] no real numbers
    S a group (structure, cell or sparse matrix)
    ");
    let message = |name: &str| file.matrix(name).unwrap_err().to_string().split("v73.mat").last().unwrap().to_owned();
    insta::assert_snapshot!(["S", "title", "words", "../I_tr"].map(message).join("\n"), @r#"
    , S: expected real numbers, found a group (structure, cell or sparse matrix); save it as a full numeric matrix, for example with full(double(X))
    , title: expected real numbers, found char; save it as a full numeric matrix, for example with full(double(X))
    , words: expected real numbers, found no real numbers; save it as a full numeric matrix, for example with full(double(X))
    : expected an array `../I_tr`, found ["I_tr", "L_tr", "T_tr", "flags", "title", "words", "S"]; check that this is the features file of the dataset
    "#);
    assert_eq!(file.matrix("flags").unwrap().data, [1., 0., 1.]);
    assert_eq!(file.version(), "7.3 (HDF5)");
}

#[test]
fn a_size_that_no_file_of_this_length_can_hold_is_refused() {
    let text = MatFile::open(&data("bomb")).unwrap().matrix("I_tr").unwrap_err().to_string();
    assert!(
        text.contains("I_tr: expected 100000 x 100000 values, found 40000000000 bytes of them in a file of 1400"),
        "{text}"
    );
    // A tenth of it fits into memory, and still not into a file of a kilobyte.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let mut bytes = std::fs::read(data("bomb")).unwrap();
    let lengths: Vec<u8> = [100_000u64, 100_000].iter().flat_map(|length| length.to_le_bytes()).collect();
    let at = bytes.windows(16).position(|window| window == lengths).unwrap();
    bytes[at..at + 8].copy_from_slice(&10_000u64.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let text = message(&path, "I_tr");
    assert!(text.contains("4000000000 bytes of them in a file of"), "{text}");
}

/// Packs an element.
fn packed(element: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, element).unwrap();
    let body = encoder.finish().unwrap();
    let mut out = COMPRESSED.to_le_bytes().to_vec();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out
}

#[test]
fn packed_elements_hold_what_they_declare() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let plain = element("a", [1, 2], &[1., 2.]);
    write(&path, &[packed(&plain)]);
    assert_eq!(MatFile::open(&path).unwrap().matrix("a").unwrap().data, [1., 2.]);
    let longer = [plain.clone(), vec![0; 10_000_000]].concat();
    write(&path, &[packed(&longer)]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected 72 bytes when unpacked, found more; the copy is incomplete or damaged: get the file again");
    write(&path, &[packed(&plain[..plain.len() - 8])]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected 72 bytes when unpacked, found 64; the copy is incomplete or damaged: get the file again");
}

/// Prefixes are errors; damaged bytes are errors or other values. Nothing panics. A step of 7 and all three bytes pass as well, in a minute.
#[test]
fn damaged_hdf5_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    for name in HDF5 {
        let whole = std::fs::read(data(name)).unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let file = MatFile::open(&path)?;
            ["I_tr", "T_tr", "L_tr"].into_iter().try_for_each(|array| file.matrix(array).map(drop))
        };
        for end in (0..whole.len()).step_by(97) {
            assert!(read(&whole[..end]).is_err(), "{name} cut at {end}");
        }
        for at in (0..whole.len()).step_by(31) {
            let mut damaged = whole.clone();
            damaged[at] = [0, 0x7f, 0xff][at % 3];
            let _ = read(&damaged);
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(message(&path, "I_tr").contains("DIR/a.mat"), "{}", message(&path, "I_tr"));
    }
}

/// A packed element that declares `declared` bytes and holds `element` and zeros up to them.
fn inflated(element: &[u8], declared: usize) -> Vec<u8> {
    let mut whole = element.to_vec();
    whole[4..8].copy_from_slice(&(declared as u32).to_le_bytes());
    whole.resize(8 + declared, 0);
    packed(&whole)
}

/// Bytes that this process has had at most, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// 64 MiB behind a shape of two values, packed once and packed twice: neither is unpacked.
#[test]
fn what_the_shape_does_not_need_is_not_unpacked() {
    const BOMB: usize = 64 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let plain = element("a", [1, 2], &[1., 2.]);
    let bomb = inflated(&plain, BOMB);
    let zeros = packed(&vec![0; BOMB]);
    // In its own element it is a packed element of a packed element: a second turn of the same screw.
    let nested = packed(&zeros);
    let before = peak();
    write(&path, &[bomb]);
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 17);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected [1, 2] values of 8 bytes in `a`, found an element with 67108808 bytes for them; the copy is incomplete or damaged: get the file again");
    write(&path, &[nested]);
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, byte 128: expected a matrix (type 14) in a packed element, found type 15; the copy is incomplete or damaged: get the file again");
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before < (24 << 20), "{} bytes more", after - before);
    }
    // What no deflate stream of its length can hold is refused by the numbers alone.
    let mut impossible = plain.clone();
    impossible[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    write(&path, &[packed(&impossible)]);
    let text = message(&path, "a");
    assert!(text.contains("packed ones can hold, found 4294967295 bytes"), "{text}");
}

#[test]
fn classes_that_are_no_numbers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let of_class = |flags: u32, name: &str| {
        let mut out = element(name, [1, 2], &[1., 2.]);
        out[16..20].copy_from_slice(&flags.to_le_bytes());
        out
    };
    let kinds: [(u32, &str); 8] = [
        (1, "cell"),
        (2, "structure"),
        (3, "object"),
        (4, "char"),
        (5, "sparse"),
        (16, "function"),
        (0x806, "complex double"),
        (0x209, "logical"),
    ];
    for (flags, kind) in kinds {
        write(&path, &[of_class(flags, "a"), element("b", [1, 1], &[7.])]);
        let file = MatFile::open(&path).unwrap();
        assert_eq!((file.infos()[0].kind.as_str(), file.infos()[0].numeric), (kind, kind == "logical"));
        assert_eq!(file.matrix("b").unwrap().data, [7.]);
    }
    write(&path, &[of_class(99, "a")]);
    assert!(message(&path, "a").contains("the class of an array, from 1 to 17, found 99"));
    // Version 4 of a 1 x 1 matrix of doubles called `a`.
    let v4: Vec<u8> =
        [0u32, 1, 1, 0, 2].iter().flat_map(|word| word.to_le_bytes()).chain(*b"a\0").chain([0; 8]).collect();
    std::fs::write(&path, v4).unwrap();
    insta::assert_snapshot!(message(&path, "a"), @"DIR/a.mat, header: expected a MAT-file of version 5 or 7.3, found one of version 4; save it in MATLAB with `save FILE -v7` or `-v7.3`, or from Python with scipy.io.savemat");
}

/// Most significant byte first, in the narrowest type that holds the values, and a value in the tag itself.
#[test]
fn other_byte_orders_and_narrow_types_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let mut bytes = b"MATLAB 5.0 MAT-file".to_vec();
    bytes.resize(124, b' ');
    bytes.extend([1, 0, b'M', b'I']);
    let words = |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|word| word.to_be_bytes()).collect() };
    // Flags of a double, lengths 2 x 1, the name in its tag (one letter), values as two int16 in their tag.
    let mut body = [words(&[6, 8, 6, 0]), words(&[5, 8, 2, 1]), words(&[1 << 16 | 1]), b"a\0\0\0".to_vec()].concat();
    body.extend(words(&[4 << 16 | 3]));
    body.extend([-3i16, 700].iter().flat_map(|value| value.to_be_bytes()));
    bytes.extend(words(&[MATRIX, body.len() as u32]));
    bytes.extend(body);
    std::fs::write(&path, bytes).unwrap();
    let matrix = MatFile::open(&path).unwrap().matrix("a").unwrap();
    assert_eq!((matrix.rows, matrix.cols, matrix.data), (2, 1, vec![-3., 700.]));
}

/// A chunk that unpacks to far more than the array has.
#[test]
fn chunks_larger_than_the_array_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mat");
    let mut bytes = std::fs::read(data("bomb")).unwrap();
    let find = |bytes: &[u8], wanted: &[u8]| bytes.windows(wanted.len()).position(|window| window == wanted).unwrap();
    let lengths: Vec<u8> = [100_000u64, 100_000].iter().flat_map(|length| length.to_le_bytes()).collect();
    let chunk: Vec<u8> = [1000u32, 1000].iter().flat_map(|length| length.to_le_bytes()).collect();
    let at = find(&bytes, &lengths);
    bytes[at..at + 16].copy_from_slice(&[10u64, 10].map(u64::to_le_bytes).concat());
    let at = find(&bytes, &chunk);
    bytes[at..at + 8].copy_from_slice(&[20_000u32, 20_000].map(u32::to_le_bytes).concat());
    std::fs::write(&path, bytes).unwrap();
    let text = message(&path, "I_tr");
    assert!(text.contains("chunks larger than all of them"), "{text}");
}

/// What a library stumbles over is told as an error, and not as where in the program it was: [`v73::heard`] is what the hook asks.
#[test]
fn a_panic_inside_the_reader_is_silent() {
    assert!(v73::heard());
    let text = v73::guarded::<()>(|| {
        assert!(!v73::heard());
        v73::guarded(|| Ok(())).unwrap();
        assert!(!v73::heard());
        panic!("a length of its own")
    });
    let text = text.unwrap_err();
    assert!(text.contains("lengths that contradict each other"), "{text}");
    // Panics of others are heard as before.
    assert!(v73::heard());
}
