//! The items that a recording's positions stand for: captions, identifiers, pictures. A recording holds none of them, because they
//! are others' work; the dataset does, and its checksum says whether it is the one.

use std::path::Path;

use xmbench_datasets::{Collection, Dataset};

use crate::{
    output::{plain, short},
    record::{Recording, Trial},
    run::{Experiment, Profile},
};

/// The largest number that an option of a made-up dataset may be: a stranger's recording takes no more memory than that.
const LARGEST_OPTION: i64 = 10_000;

/// The dataset of a trial, from within the program or from the data folder, or why it is not at hand.
///
/// # Errors
/// The reason, in a line.
pub fn open(recording: &Recording, trial: &Trial, data: Option<&Path>) -> Result<Dataset, String> {
    let name = &trial.experiment;
    let source = recording.manifest.experiments.get(name).map(|note| note.source.as_str()).unwrap_or_default();
    if source.is_empty() {
        return Err("the recording does not say how its dataset was opened".into());
    }
    let line = |error: &dyn std::fmt::Display| short(&plain(&error.to_string()), 300).into_owned();
    let experiment = Experiment::parse(name, &format!("{name} as recorded"), source, Profile::Smoke);
    let experiment = experiment.map_err(|error| line(&error))?;
    let mut opened = experiment.datasets.iter().flat_map(|entry| entry.opened(&[trial.seed]));
    let (entry, _) = opened
        .find(|(entry, _)| entry.label() == trial.dataset)
        .ok_or("the recorded experiment does not name its dataset")?;
    // Whoever made the recording wrote these.
    for (key, value) in &entry.options {
        if data.is_none() && value.as_str().is_some_and(|text| Path::new(text).is_absolute()) {
            return Err(format!(
                "its option `{key}` is a path of the machine that recorded it; name a folder with --data-dir"
            ));
        }
        if value.as_integer().is_some_and(|number| number > LARGEST_OPTION) {
            return Err(format!("its option `{key}` is above {LARGEST_OPTION}"));
        }
    }
    let dataset = xmbench_datasets::open(&entry.name, &entry.options, data).map_err(|error| line(&error))?;
    match dataset.checksum.to_string() == trial.checksum {
        true => Ok(dataset),
        false => Err("the data here have another checksum than the recorded ones".into()),
    }
}

/// What an image is called.
pub fn image(collection: &Collection, at: usize) -> String {
    collection.images.ids.get(at).map_or_else(|| format!("image {at}"), |id| plain(id).into_owned())
}

/// What a text says, or what it is called where the dataset has no sentences.
pub fn text(collection: &Collection, at: usize) -> String {
    let raw = collection.texts.raw.as_ref().and_then(|raw| raw.get(at));
    let said = raw.or_else(|| collection.texts.ids.get(at));
    said.map_or_else(|| format!("text {at}"), |text| plain(text).into_owned())
}

/// The pixels on a side of a picture that is shown.
pub const SIDE: usize = 56;

/// Pictures of a collection side by side in one PNG, [`COLUMNS`] a row, each scaled into a square of [`SIDE`] on white; nothing where
/// the dataset has none.
///
/// # Errors
/// If the PNG cannot be made.
pub fn sprite(collection: &Collection, items: &[usize]) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(draw) = &collection.images.pictures else { return Ok(None) };
    let (columns, rows) = (COLUMNS.min(items.len().max(1)), items.len().div_ceil(COLUMNS).max(1));
    let mut sheet = image::RgbImage::from_pixel((columns * SIDE) as u32, (rows * SIDE) as u32, image::Rgb([255; 3]));
    for (place, &item) in items.iter().enumerate() {
        let picture = draw(item);
        let (width, height) = (picture.width as u32, picture.height as u32);
        let Some(whole) = image::RgbImage::from_raw(width, height, picture.rgb) else { continue };
        let scale = SIDE as f64 / f64::from(width.max(height).max(1));
        let fit = |side: u32| ((f64::from(side) * scale).round() as u32).clamp(1, SIDE as u32);
        let small = image::imageops::thumbnail(&whole, fit(width), fit(height));
        let corner = [place % COLUMNS, place / COLUMNS].map(|at| (at * SIDE) as i64);
        let margin = [small.width(), small.height()].map(|side| i64::from((SIDE as u32 - side) / 2));
        image::imageops::replace(&mut sheet, &small, corner[0] + margin[0], corner[1] + margin[1]);
    }
    let mut png = std::io::Cursor::new(Vec::new());
    sheet.write_to(&mut png, image::ImageFormat::Png)?;
    Ok(Some(png.into_inner()))
}

/// Pictures a row of a [`sprite`].
pub const COLUMNS: usize = 32;
