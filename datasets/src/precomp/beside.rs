//! The files of captions, names, counts, boxes and classes beside the features.

use std::{path::Path, sync::Arc};

use crate::{Error, Result, files, npy::Npy, text::has_word};

/// Lines of a text file, without their ends.
pub(crate) fn lines(path: &Path) -> Result<Vec<String>> {
    let bytes = files::read(path)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count();
        Error::content(path, format!("line {line}"), "text in UTF-8", "other bytes", "convert it with iconv -t UTF-8")
    })?;
    Ok(text.trim_start_matches('\u{feff}').lines().map(|line| line.trim().to_owned()).collect())
}

pub(super) fn captions_of(path: &Path) -> Result<Vec<String>> {
    let captions = lines(path)?;
    match captions.iter().position(|caption| !has_word(caption)) {
        Some(line) => Err(Error::content(
            path,
            format!("line {}", line + 1),
            "a caption",
            "an empty line",
            "write a caption for it, or drop the image with all its captions",
        )),
        None => Ok(captions),
    }
}

pub(super) fn ids_of(path: &Path, counts: &[usize]) -> Result<Vec<String>> {
    let (mut ids, items) = (lines(path)?, counts.len());
    // Once a caption, of which each image has the same number.
    if let Some(&each) = counts.first().filter(|&&each| each > 1 && ids.len() == items * each) {
        ids = ids.into_iter().step_by(each).collect();
    }
    if ids.len() != items {
        let expected = format!("one line for each of the {items} images");
        return Err(Error::content(path, "", expected, format!("{} lines", ids.len()), "write it again, or remove it"));
    }
    Ok(ids)
}

/// Captions of each image, whose sum is the number of captions.
pub(super) fn counts_of(path: &Path, images: usize, captions: usize, file: &Path) -> Result<Vec<usize>> {
    let next = "write both files from the same captions, or remove this one";
    let mut counts = Vec::with_capacity(images);
    for (number, line) in lines(path)?.iter().enumerate() {
        match line.parse::<usize>() {
            Ok(count) if (1..=captions).contains(&count) => counts.push(count),
            _ => {
                let (place, expected) = (format!("line {}", number + 1), format!("a number from 1 to {captions}"));
                return Err(Error::content(path, place, expected, format!("`{line}`"), next));
            }
        }
    }
    if counts.len() != images {
        let expected = format!("a line for each of the {images} images");
        return Err(Error::content(path, "", expected, format!("{} lines", counts.len()), next));
    }
    // No sum of so many numbers of that size is larger than what a u128 holds.
    let sum: u128 = counts.iter().map(|&count| count as u128).sum();
    if sum != captions as u128 {
        let expected = format!("numbers whose sum is the {captions} captions of {}", file.display());
        return Err(Error::content(path, "", expected, sum.to_string(), next));
    }
    Ok(counts)
}

/// A vector for each caption.
pub(super) fn vectors_of(path: &Path, captions: usize) -> Result<Npy> {
    let vectors = Npy::open(path)?;
    if vectors.shape.len() == 2 && vectors.shape[0] == captions && vectors.shape[1] > 0 {
        return Ok(vectors);
    }
    let expected = format!("shape [{captions}, width], a row for each caption");
    let next = "write a vector for each line of the captions, or remove the file";
    Err(Error::content(path, "header", expected, format!("{:?}", vectors.shape), next))
}

/// The boxes of all regions, one image behind the other.
pub(super) fn boxes_of(path: &Path, images: &Npy, items: usize) -> Result<Arc<[[f32; 4]]>> {
    let next = "write the box of each region in fractions of the image, or remove the file";
    let boxes = Npy::open(path)?;
    let regions = if images.shape.len() == 3 { images.shape[1] } else { 0 };
    if boxes.shape != [items, regions, 4] || regions == 0 {
        let expected = match regions {
            0 => "no boxes beside features without regions".into(),
            _ => format!("shape [{items}, {regions}, 4]"),
        };
        return Err(Error::content(path, "header", expected, format!("{:?}", boxes.shape), next));
    }
    let mut all = Vec::with_capacity(items * regions);
    let mut row = vec![0.0; regions * 4];
    for item in 0..items {
        boxes.read(item, &mut row)?;
        for (region, found) in row.as_chunks::<4>().0.iter().enumerate() {
            let [x0, y0, x1, y1] = *found;
            if !(0.0 <= x0 && x0 < x1 && x1 <= 1.0 && 0.0 <= y0 && y0 < y1 && y1 <= 1.0) {
                let place = format!("row {item}, region {region}");
                let expected = "0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1";
                return Err(Error::content(path, place, expected, format!("{found:?}"), next));
            }
            all.push(*found);
        }
    }
    Ok(all.into())
}

/// Names of the classes of each image.
pub(super) fn labels_of(path: &Path, items: usize) -> Result<Vec<Vec<String>>> {
    let lines = lines(path)?;
    if lines.len() != items {
        let expected = format!("a line for each of the {items} images");
        let next = "write an empty line for an image without a class";
        return Err(Error::content(path, "", expected, format!("{} lines", lines.len()), next));
    }
    let names =
        |line: &String| line.split('\t').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(lines.iter().map(names).collect())
}
