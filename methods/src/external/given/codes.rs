//! Binary codes from the ways in which programs write them.

use xmbench_datasets::{
    Error,
    arrays::{Array, Number},
};

use crate::{Bits, Result};

/// Codes of the given rows: packed bytes, or one bit a value.
pub fn binary(array: &Array, rows: &[usize], bits: usize) -> Result<Bits> {
    match array.number() {
        Number::U8 => packed(array, rows, bits),
        _ => signs(array, rows, bits),
    }
}

fn packed(array: &Array, rows: &[usize], bits: usize) -> Result<Bits> {
    let bytes = array.cols();
    let wrong = |expected: String, found: String, next: &str| {
        Err(Error::content(array.path(), "", expected, found, next).into())
    };
    if rows.iter().all(|&row| array.bytes(row).iter().all(|&byte| byte <= 1)) && bytes > 1 && !rows.is_empty() {
        let next = "write single bits as bool or int8, so that they cannot be taken for packed ones";
        return wrong("packed codes of type uint8".into(), "0 and 1 alone, which look like single bits".into(), next);
    }
    let length = if bits == 0 { 8 * bytes } else { bits };
    if length.div_ceil(8) != bytes {
        let next = "correct the parameter `code_bits`, or leave it out";
        return wrong(
            format!("{} bytes for codes of {length} bits", length.div_ceil(8)),
            format!("{bytes} bytes"),
            next,
        );
    }
    // The spare bits of the last byte are zero, at whichever end they are: the highest bit of a byte comes first (numpy.packbits), or
    // the lowest.
    let spare = 8 * bytes - length;
    let last = rows.iter().fold(0, |all, &row| all | array.bytes(row)[bytes - 1]);
    let high_first = last & ((1u16 << spare) - 1) as u8 == 0;
    if !high_first && last.leading_zeros() < spare as u32 {
        let next = "correct the parameter `code_bits`, or set them to zero";
        return wrong(format!("{spare} spare bits of the last byte that are zero"), "others".into(), next);
    }
    let per_item = length.div_ceil(64);
    let mut words = vec![0u64; rows.len() * per_item];
    for (&row, words) in rows.iter().zip(words.chunks_exact_mut(per_item)) {
        for (at, &byte) in array.bytes(row).iter().enumerate() {
            let byte = if high_first { byte.reverse_bits() } else { byte };
            words[at / 8] |= u64::from(byte) << (8 * (at % 8));
        }
    }
    Ok(Bits { bits: length, words })
}

fn signs(array: &Array, rows: &[usize], bits: usize) -> Result<Bits> {
    let length = array.cols();
    if bits != 0 && bits != length {
        let next = "correct the parameter `code_bits`, or leave it out";
        return Err(
            Error::content(array.path(), "", format!("{bits} columns, one a bit"), length.to_string(), next).into()
        );
    }
    let per_item = length.div_ceil(64);
    let mut words = vec![0u64; rows.len() * per_item];
    let mut values = vec![0.0; length];
    // What stands for a bit that is not set: the first that is found.
    let mut unset = None;
    for (&row, words) in rows.iter().zip(words.chunks_exact_mut(per_item)) {
        array.values(row, 0, &mut values)?;
        for (bit, &value) in values.iter().enumerate() {
            if value == 1.0 {
                words[bit / 64] |= 1 << (bit % 64);
            } else if !(value == 0.0 || value == -1.0) || *unset.get_or_insert(value) != value {
                let expected = "codes of +1 and -1, or of 1 and 0";
                let found = match unset {
                    Some(before) if value == 0.0 || value == -1.0 => format!("{value} beside {before}"),
                    _ => value.to_string(),
                };
                let next = "write the signs, or packed codes with numpy.packbits";
                return Err(array.wrong(row, bit, expected, &found, next).into());
            }
        }
    }
    Ok(Bits { bits: length, words })
}
