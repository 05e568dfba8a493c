//! Writes the pictures of a built-in dataset as `FOLDER/NUMBER.png` in the order of their identifiers, which stand in
//! `FOLDER/ids.txt`, and every word of its captions into `FOLDER/words.txt`: what the scripts that make the packs start from.
//!
//! ```text
//! cargo run -p xmbench-datasets --example pictures -- emoji FOLDER
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    path::Path,
};

use image::RgbImage;
use xmbench_datasets::{Picture, open, text::words};

fn main() -> Result<(), Box<dyn Error>> {
    let [name, folder] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "usage: NAME FOLDER")?;
    let folder = Path::new(&folder);
    fs::create_dir_all(folder)?;
    let dataset = open(&name, &toml::Table::new(), None)?;
    let (mut pictures, mut known) = (BTreeMap::<&str, Picture>::new(), BTreeSet::new());
    for (_, split) in dataset.splits() {
        let draw = split.images.pictures.as_ref().ok_or("the dataset has no pictures")?;
        pictures.extend(split.images.ids.iter().enumerate().map(|(item, id)| (id.as_str(), draw(item))));
        known.extend(split.texts.raw.iter().flatten().flat_map(|caption| words(caption)));
    }
    for (number, picture) in pictures.values().enumerate() {
        let (width, height) = (picture.width as u32, picture.height as u32);
        let rgb = RgbImage::from_raw(width, height, picture.rgb.clone()).ok_or("a picture of another size")?;
        rgb.save(folder.join(format!("{number:04}.png")))?;
    }
    let lines = |lines: Vec<&str>| lines.into_iter().map(|line| format!("{line}\n")).collect::<String>();
    fs::write(folder.join("ids.txt"), lines(pictures.into_keys().collect()))?;
    fs::write(folder.join("words.txt"), lines(known.iter().map(String::as_str).collect()))?;
    Ok(())
}
