use std::{fs, io::Write};

use flate2::{Compression, write::DeflateEncoder};
use npyz::Order;

use super::*;
use crate::npy::tests::write;

fn all(array: &Array) -> Vec<f32> {
    let table: &dyn Features = array;
    table.all().unwrap().data
}

fn place(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What opening says, with the folder's name taken out.
fn message(place: &str, folder: &Path) -> String {
    Array::open(place).unwrap_err().to_string().replace(&*folder.to_string_lossy(), "DIR")
}

/// A zip archive as `numpy.savez` writes it: entries with the 64-bit field in their own header, and a directory.
fn npz(entries: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for &(name, content, deflate) in entries {
        let mut crc = Crc::new();
        crc.update(content);
        let packed = match deflate {
            false => content.to_vec(),
            true => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        };
        let method = if deflate { 8u16 } else { 0 };
        let start = out.len() as u32;
        let sizes = [packed.len() as u64, content.len() as u64];
        out.extend(b"PK\x03\x04\x2d\0\0\0");
        out.extend(method.to_le_bytes());
        out.extend([0; 4]);
        out.extend(crc.sum().to_le_bytes());
        out.extend([0xff; 8]);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend(20u16.to_le_bytes());
        out.extend(name.bytes());
        out.extend(b"\x01\0\x10\0");
        out.extend(sizes[1].to_le_bytes());
        out.extend(sizes[0].to_le_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x2d\0\x2d\0\0\0");
        directory.extend(method.to_le_bytes());
        directory.extend([0; 4]);
        directory.extend(crc.sum().to_le_bytes());
        sizes.iter().for_each(|&size| directory.extend((size as u32).to_le_bytes()));
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.bytes());
    }
    let (at, count) = (out.len() as u32, entries.len() as u16);
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0; 2]);
    out
}

use flate2::Crc;

const VALUES: [f32; 6] = [0.5, -2.0, 1024.0, 0.0, 3.0, 65504.0];

#[test]
fn every_kind_of_file_gives_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("a.npy"), &[2, 3], Order::C, &VALUES);
    write(&at("half.npy"), &[2, 3], Order::C, &VALUES.map(f16::from_f32));
    write(&at("double.npy"), &[2, 3], Order::C, &VALUES.map(f64::from));
    write(&at("other.npy"), &[1, 1], Order::C, &[7.0f32]);
    let (a, other) = (fs::read(at("a.npy")).unwrap(), fs::read(at("other.npy")).unwrap());
    fs::write(at("stored.npz"), npz(&[("b.npy", &other, false), ("a.npy", &a, false)])).unwrap();
    fs::write(at("packed.npz"), npz(&[("b.npy", &other, true), ("a.npy", &a, true)])).unwrap();
    fs::write(at("alone.npz"), npz(&[("arr_0.npy", &a, true)])).unwrap();
    let bytes: Vec<u8> = VALUES.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 3], &bytes).unwrap();
    let one = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, 1], &bytes[..4]).unwrap();
    fs::write(at("t.safetensors"), safetensors::serialize([("a", &view), ("b", &one)], None).unwrap()).unwrap();
    fs::create_dir(at("img_emb")).unwrap();
    // Ten files and more: by number, not by letter.
    for row in 0..12 {
        let values: Vec<f32> = (0..3).map(|col| (3 * row + col) as f32).collect();
        write(&at(&format!("img_emb/img_emb_{row}.npy")), &[1, 3], Order::C, &values);
    }
    let places = ["a.npy", "half.npy", "double.npy", "stored.npz#a", "packed.npz#a", "alone.npz", "t.safetensors#a"];
    for name in places {
        let array = Array::open(&place(&at(name))).unwrap();
        assert_eq!((array.rows(), array.cols()), (2, 3), "{name}");
        assert_eq!(all(&array), VALUES, "{name}");
        let mut part = [0.0; 2];
        array.values(1, 1, &mut part).unwrap();
        assert_eq!(part, VALUES[4..], "{name}");
    }
    let shards = Array::open(&place(&at("img_emb"))).unwrap();
    assert_eq!((shards.rows(), shards.cols()), (12, 3));
    assert_eq!(all(&shards), (0..36).map(|value| value as f32).collect::<Vec<_>>());
}

#[test]
fn types_of_one_byte_keep_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    write(&path, &[2, 2], Order::C, &[0u8, 255, 7, 128]);
    let array = Array::open(&place(&path)).unwrap();
    assert_eq!((array.number(), array.bytes(1)), (Number::U8, [7, 128].as_slice()));
    write(&path, &[2, 2], Order::C, &[1i8, -1, -1, 1]);
    assert_eq!(all(&Array::open(&place(&path)).unwrap()), [1.0, -1.0, -1.0, 1.0]);
    write(&path, &[1, 2], Order::C, &[true, false]);
    let array = Array::open(&place(&path)).unwrap();
    assert_eq!((array.number(), all(&array)), (Number::Bool, vec![1.0, 0.0]));
}

#[test]
fn what_is_no_matrix_of_numbers_is_refused_with_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let said = |name: &str| message(&place(&at(name)), folder.path());
    write(&at("a.npy"), &[2, 3], Order::Fortran, &VALUES);
    insta::assert_snapshot!(said("a.npy"), @"DIR/a.npy: expected C order, found Fortran order; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32)), a row an item");
    write(&at("a.npy"), &[2, 3], Order::C, &[1i64; 6]);
    insta::assert_snapshot!(said("a.npy"), @"DIR/a.npy: expected type `<f2`, `<f4` or `<f8`, or for binary codes `|u1`, `|i1` or `|b1`, found `<i8`; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32)), a row an item");
    write(&at("a.npy"), &[6], Order::C, &VALUES);
    insta::assert_snapshot!(said("a.npy"), @"DIR/a.npy: expected two axes: rows and columns, found shape [6]; write it again with numpy.save(file, numpy.ascontiguousarray(array, dtype=numpy.float32)), a row an item");
    write(&at("a.npy"), &[2, 3], Order::C, &VALUES);
    let whole = fs::read(at("a.npy")).unwrap();
    fs::write(at("b.npz"), npz(&[("x.npy", &whole, true), ("y.npy", &whole, false)])).unwrap();
    insta::assert_snapshot!(said("b.npz"), @"DIR/b.npz: expected one array, or the name of one, found 2: `x`, `y`; write `FILE#NAME`");
    insta::assert_snapshot!(said("b.npz#xx"), @"DIR/b.npz: expected one of its arrays `x`, `y`, found `xx`; did you mean `x`?; write `FILE#NAME`");
    insta::assert_snapshot!(said("a.npy#x"), @"DIR/a.npy: expected one array without a name, found `x` asked for; leave out `#` and what follows");
    fs::write(at("a.npy"), &whole[..whole.len() - 3]).unwrap();
    insta::assert_snapshot!(said("a.npy"), @"DIR/a.npy: expected 24 bytes of data for shape [2, 3] of `<f4`, found 21 bytes; the copy is incomplete or damaged: get the file again");
    fs::write(at("c.npy"), b"text that is no array").unwrap();
    assert!(said("c.npy").contains("expected a .npy, .npz or safetensors file, or a folder of .npy files"));
    write(&at("nan.npy"), &[2, 2], Order::C, &[0.0, 1.0, 2.0, f32::NAN]);
    let array = Array::open(&place(&at("nan.npy"))).unwrap();
    let table: &dyn Features = &array;
    let error = table.all().unwrap_err().to_string();
    assert!(error.contains("nan.npy, row 1, column 1: expected a finite number, found NaN"), "{error}");
    // More than f32 holds.
    write(&at("far.npy"), &[1, 1], Order::C, &[1e300f64]);
    assert!(Array::open(&place(&at("far.npy"))).unwrap().values(0, 0, &mut [0.0]).is_err());
}

#[test]
fn a_folder_has_every_number_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let said = || message(&place(folder.path()), folder.path());
    assert!(said().contains("expected files NAME_0.npy, NAME_1.npy, .., found none"));
    write(&at("e_0.npy"), &[1, 2], Order::C, &[1.0f32, 2.0]);
    write(&at("e_2.npy"), &[1, 2], Order::C, &[1.0f32, 2.0]);
    insta::assert_snapshot!(said(), @"DIR: expected `e_1.npy`, found `e_2.npy` in its place; get the missing file, or number them from 0 without gaps");
    write(&at("e_1.npy"), &[1, 3], Order::C, &[1.0f32, 2.0, 3.0]);
    insta::assert_snapshot!(said(), @"DIR/e_1.npy: expected 2 columns of float32, as in DIR/e_0.npy, found 3 columns of float32; write all files alike");
    write(&at("t_0.npy"), &[1, 2], Order::C, &[1.0f32, 2.0]);
    assert!(said().contains("expected files of one name, e_0.npy, .., found `t_0.npy` as well"), "{}", said());
    let digests = [digest(&place(&at("e_0.npy"))).unwrap(), digest(&place(&at("e_1.npy"))).unwrap()];
    assert_ne!(digests[0], digests[1]);
    assert_eq!(digests[0], digest(&place(&at("e_2.npy"))).unwrap());
}

/// Every prefix and every damaged byte of an archive: errors, never a panic.
#[test]
fn hostile_archives_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.npy");
    write(&path, &[2, 3], Order::C, &VALUES);
    let whole = fs::read(&path).unwrap();
    let path = folder.path().join("a.npz");
    for deflate in [false, true] {
        let archive = npz(&[("a.npy", &whole, deflate)]);
        for end in 0..archive.len() {
            fs::write(&path, &archive[..end]).unwrap();
            assert!(Array::open(&place(&path)).is_err(), "{end} bytes of {}", archive.len());
        }
        for at in 0..archive.len() {
            for byte in [1, 0xff] {
                let mut damaged = archive.clone();
                damaged[at] = byte;
                fs::write(&path, damaged).unwrap();
                if let Ok(array) = Array::open(&place(&path)) {
                    let table: &dyn Features = &array;
                    let _ = table.all();
                }
            }
        }
    }
    // A few bytes that claim to be a great many.
    let claim =
        b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1048576, 1048576), }".to_vec();
    let claim: Vec<u8> = claim.into_iter().chain(std::iter::repeat(b' ')).take(128).collect();
    let mut archive = npz(&[("a.npy", &claim, true)]);
    let at = archive.windows(4).position(|it| it == b"PK\x01\x02").unwrap();
    archive[at + 24..at + 28].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    fs::write(&path, archive).unwrap();
    assert!(message(&place(&path), folder.path()).contains("4294967280 declared"));
}

#[test]
fn ids_are_one_a_line_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.txt");
    fs::write(&path, "a\r\nb#0\nc\n").unwrap();
    assert_eq!(ids(&path).unwrap(), ["a", "b#0", "c"]);
    fs::write(&path, "a\n\nc\n").unwrap();
    assert!(ids(&path).unwrap_err().to_string().contains("ids.txt, line 2: expected an id, found an empty line"));
    fs::write(&path, "a\nb\na\n").unwrap();
    let error = ids(&path).unwrap_err().to_string();
    assert!(
        error.contains("ids.txt, line 3: expected an id of its own, found `a`, which line 1 has already"),
        "{error}"
    );
}
