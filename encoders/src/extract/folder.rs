//! The folder that an extraction leaves: the files of each split, where it is from, and the manifest.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use half::f16;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xmbench_datasets::{
    Error, Matrix, Notice, Result,
    captions::{Captioned, Listing},
    files,
};

use super::{
    CHUNK, Job, Precision, WORK, hex, program,
    shards::{Outcome, Store},
    split::{self, Splitting},
    texts::Reader,
};
use crate::encoder::{Encoded, Recipe, TextRecipe};

/// The name of the manifest.
const MANIFEST: &str = "manifest.json";

/// The layout that this program writes and reads.
const FORMAT: u32 = 1;

/// Splits in the order in which they are written.
const SPLITS: [&str; 3] = ["train", "dev", "test"];

/// Endings of a split's files.
const ENDINGS: [&str; 9] = [
    "ims.npy",
    "global.npy",
    "boxes.npy",
    "caps.txt",
    "counts.txt",
    "ids.txt",
    "labels.txt",
    "ims_vectors.npy",
    "caps_vectors.npy",
];

/// A picture that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub image: String,
    /// Why.
    pub reason: String,
}

/// How much a split holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sizes {
    /// Pictures.
    pub images: usize,
    /// Captions.
    pub captions: usize,
}

/// What features are made of: all that they depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The layout of this file.
    pub format: u32,
    /// Name and version of the program.
    pub program: String,
    /// The encoder and what it does to a picture.
    pub recipe: Recipe,
    /// SHA-256 of the file of weights.
    pub weights_sha256: String,
    /// The network for captions, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<TextRecipe>,
    /// How features are stored.
    pub precision: Precision,
    /// The files of captions: name, form, SHA-256.
    pub captions: Vec<(String, String, String)>,
    /// Where splits come from.
    pub splitting: Splitting,
    /// Groups of near duplicates, where splits were drawn.
    pub groups: Option<usize>,
    /// How much each split holds.
    pub splits: BTreeMap<String, Sizes>,
    /// Pictures with captions that are in no split.
    pub left_out: usize,
    /// Pictures without captions.
    pub bare: usize,
    /// Pictures that could not be used.
    pub skipped: Vec<Skipped>,
    /// SHA-256 of each file.
    pub files: BTreeMap<String, String>,
    /// SHA-256 of what was asked for.
    pub request: String,
}

impl Manifest {
    /// The manifest of a folder, if there is one.
    ///
    /// # Errors
    /// If it cannot be read, or is none of ours.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MANIFEST);
        if !files::there(&path) {
            return Ok(None);
        }
        let bytes = files::read(&path)?;
        let wrong = |found: String| {
            let next = "name another folder";
            Error::content(&path, "", "the manifest of an extraction, or none", found, next)
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        match found.format {
            FORMAT => Ok(Some(found)),
            other => Err(wrong(format!("one of format {other}"))),
        }
    }
}

/// Every name that an extraction may write.
fn names() -> impl Iterator<Item = String> {
    let parts = SPLITS.iter().flat_map(|split| ENDINGS.iter().map(move |ending| format!("{split}_{ending}")));
    parts.chain(["notice.toml", MANIFEST].map(str::to_owned))
}

/// Refuses a folder that holds features already.
pub(super) fn refuse_others(folder: &Path) -> Result<()> {
    match names().find(|name| files::there(&folder.join(name))) {
        None => Ok(()),
        Some(name) => {
            let found = format!("{name} of other pictures, captions, weights or settings");
            let next = "name another folder, or replace what is there with --fresh";
            Err(Error::content(folder, "", "a folder without features", found, next))
        }
    }
}

/// What of the listing can be used.
struct Usable<'a> {
    item: &'a Captioned,
    /// Its position in the listing.
    at: usize,
}

/// Writes the files of every split.
pub(super) fn write(
    job: &Job,
    (recipe, weights): (&Recipe, &str),
    reader: Option<&Reader<'_>>,
    listing: &Listing,
    splitting: &Splitting,
    store: &Store,
    request: &str,
) -> Result<Manifest> {
    let (mut usable, mut skipped, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    each(store, &listing.items, |at, item, outcome| {
        match outcome {
            Outcome::Skipped(reason) => skipped.push(Skipped { image: item.image.clone(), reason }),
            Outcome::Encoded(encoded) => {
                if matches!(splitting, Splitting::Drawn(_)) {
                    vectors.extend(encoded.global);
                }
                usable.push(Usable { item, at });
            }
        }
        Ok(())
    })?;
    if usable.is_empty() {
        let found = skipped.first().map_or("none".into(), |one: &Skipped| format!("{}: {}", one.image, one.reason));
        let next = "check that --captions names the pictures of this folder";
        return Err(Error::content(&job.images, "", "a picture that can be used", found, next));
    }
    let (assigned, groups): (Vec<Option<&str>>, _) = match splitting {
        Splitting::Given => (usable.iter().map(|one| one.item.split.as_deref()).collect(), None),
        Splitting::Drawn(drawn) => {
            let vectors = Matrix { rows: usable.len(), cols: recipe.width, data: vectors };
            let (splits, groups) = split::draw(vectors, *drawn)?;
            (splits.into_iter().map(Some).collect(), Some(groups))
        }
    };
    let count = |split: &str| assigned.iter().filter(|of| **of == Some(split)).count();
    for needed in ["train", "test"] {
        if count(needed) == 0 {
            let found = format!("none of {} pictures that can be used", usable.len());
            let next = "name its images with --split, or more pictures, or other shares with --test and --val";
            return Err(Error::content(&job.images, "", format!("pictures in the split {needed}"), found, next));
        }
    }
    let work = job.out.join(WORK).join("files");
    if files::there(&work) {
        fs::remove_dir_all(&work).map_err(Error::write(&work))?;
    }
    fs::create_dir_all(&work).map_err(Error::write(&work))?;
    let mut out = Folder { work, files: BTreeMap::new() };
    let labelled = usable.iter().any(|one| !one.item.labels.is_empty());
    let mut splits = BTreeMap::new();
    for split in SPLITS.into_iter().filter(|split| count(split) > 0) {
        let members: Vec<&Usable<'_>> =
            usable.iter().zip(&assigned).filter(|(_, of)| **of == Some(split)).map(|(one, _)| one).collect();
        splits.insert(split.to_owned(), out.texts(split, &members, labelled)?);
        out.features(split, &members, recipe, job.precision, store, listing)?;
        if let Some(reader) = reader {
            out.vectors(split, &members, reader, recipe, job.precision, (store, listing))?;
        }
    }
    out.put("notice.toml", notice(job, recipe).as_bytes())?;
    let manifest = Manifest {
        format: FORMAT,
        program: program(),
        recipe: recipe.clone(),
        weights_sha256: weights.to_owned(),
        texts: reader.map(|reader| reader.recipe().clone()),
        precision: job.precision,
        captions: listing
            .origins
            .iter()
            .map(|origin| (origin.file.clone(), origin.format.to_owned(), origin.sha256.clone()))
            .collect(),
        splitting: splitting.clone(),
        groups,
        splits,
        left_out: assigned.iter().filter(|of| of.is_none()).count(),
        bare: listing.bare,
        skipped,
        files: out.files.clone(),
        request: request.to_owned(),
    };
    // From here on the folder is not what it was: the manifest goes first and comes last.
    for name in std::iter::once(MANIFEST.to_owned()).chain(names()) {
        let path = job.out.join(&name);
        if files::there(&path) {
            fs::remove_file(&path).map_err(Error::write(&path))?;
        }
    }
    let mut text = serde_json::to_string_pretty(&manifest).expect("a tree of plain values");
    text.push('\n');
    out.put(MANIFEST, text.as_bytes())?;
    for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
        let to = job.out.join(name);
        fs::rename(out.work.join(name), &to).map_err(Error::write(&to))?;
    }
    Ok(manifest)
}

/// Hands on each picture of a listing with what became of it, a chunk in memory at a time.
fn each<'a>(
    store: &Store,
    items: &'a [Captioned],
    mut take: impl FnMut(usize, &'a Captioned, Outcome) -> Result<()>,
) -> Result<()> {
    for (number, chunk) in items.chunks(CHUNK).enumerate() {
        let rows = chunk_of(store, number, chunk.len())?;
        for (place, (item, row)) in chunk.iter().zip(rows).enumerate() {
            take(number * CHUNK + place, item, row)?;
        }
    }
    Ok(())
}

fn chunk_of(store: &Store, number: usize, length: usize) -> Result<Vec<Outcome>> {
    match store.read(number)? {
        Some(rows) if rows.len() == length => Ok(rows.into_iter().map(|row| row.outcome).collect()),
        _ => {
            let place = format!("chunk {number}");
            let next = "something else writes there; begin anew with --fresh";
            Err(Error::content(WORK, place, "what was written before", "something else", next))
        }
    }
}

/// Files that are not in their places yet.
struct Folder {
    work: PathBuf,
    /// SHA-256 of each.
    files: BTreeMap<String, String>,
}

impl Folder {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = Hashed::new(&self.work, name)?;
        file.write(bytes)?;
        let digest = file.finish()?;
        self.files.insert(name.to_owned(), digest);
        Ok(())
    }

    /// Captions, how many each picture has, names and classes.
    fn texts(&mut self, split: &str, members: &[&Usable<'_>], labelled: bool) -> Result<Sizes> {
        let lines = |line: &dyn Fn(&Captioned) -> String| -> Vec<u8> {
            members.iter().map(|one| line(one.item) + "\n").collect::<String>().into_bytes()
        };
        self.put(&format!("{split}_caps.txt"), &lines(&|item| item.captions.join("\n")))?;
        self.put(&format!("{split}_counts.txt"), &lines(&|item| item.captions.len().to_string()))?;
        self.put(&format!("{split}_ids.txt"), &lines(&|item| item.image.clone()))?;
        if labelled {
            self.put(&format!("{split}_labels.txt"), &lines(&|item| item.labels.join("\t")))?;
        }
        Ok(Sizes { images: members.len(), captions: members.iter().map(|one| one.item.captions.len()).sum() })
    }

    /// Vectors, regions and boxes.
    fn features(
        &mut self,
        split: &str,
        members: &[&Usable<'_>],
        recipe: &Recipe,
        precision: Precision,
        store: &Store,
        listing: &Listing,
    ) -> Result<()> {
        let (images, cells) = (members.len(), recipe.grid * recipe.grid);
        let array = |folder: &Self, ending: &str, precision: Precision, shape: &[usize]| {
            let mut file = Hashed::new(&folder.work, &format!("{split}_{ending}"))?;
            file.write(&header(precision, shape))?;
            Ok::<_, Error>(file)
        };
        let vectors = if cells > 0 { "global.npy" } else { "ims.npy" };
        let mut global = array(self, vectors, precision, &[images, recipe.width])?;
        let mut regions = match cells {
            0 => None,
            _ => Some((
                array(self, "ims.npy", precision, &[images, cells, recipe.region_width])?,
                array(self, "boxes.npy", Precision::F32, &[images, cells, 4])?,
            )),
        };
        // Members stand in the order of the listing: one pass over the chunks is enough.
        let mut wanted = members.iter().map(|one| one.at).peekable();
        each(store, &listing.items, |at, item, outcome| {
            if wanted.next_if_eq(&at).is_none() {
                return Ok(());
            }
            let Outcome::Encoded(Encoded { global: vector, regions: values, boxes }) = outcome else { return Ok(()) };
            global.write(&stored(&vector, precision, item)?)?;
            if let Some((ims, places)) = &mut regions {
                ims.write(&stored(&values, precision, item)?)?;
                places.write(&stored(boxes.as_flattened(), Precision::F32, item)?)?;
            }
            Ok(())
        })?;
        let (ims, places) = regions.unzip();
        let rest = [("ims.npy", ims), ("boxes.npy", places)];
        for (ending, file) in [(vectors, Some(global))].into_iter().chain(rest) {
            if let Some(file) = file {
                self.files.insert(format!("{split}_{ending}"), file.finish()?);
            }
        }
        Ok(())
    }
}

impl Folder {
    /// Vectors of captions and, if they are in one space with those of pictures, these again: the two files that are compared.
    fn vectors(
        &mut self,
        split: &str,
        members: &[&Usable<'_>],
        reader: &Reader<'_>,
        recipe: &Recipe,
        precision: Precision,
        (store, listing): (&Store, &Listing),
    ) -> Result<()> {
        let captions: usize = members.iter().map(|one| one.item.captions.len()).sum();
        let name = format!("{split}_caps_vectors.npy");
        let mut file = Hashed::new(&self.work, &name)?;
        file.write(&header(precision, &[captions, reader.width()]))?;
        reader.each(members.iter().map(|one| one.at), |at, values| {
            file.write(&stored(values, precision, &listing.items[at])?)
        })?;
        self.files.insert(name, file.finish()?);
        if !reader.joint {
            return Ok(());
        }
        let name = format!("{split}_ims_vectors.npy");
        let mut file = Hashed::new(&self.work, &name)?;
        file.write(&header(precision, &[members.len(), recipe.width]))?;
        let mut wanted = members.iter().map(|one| one.at).peekable();
        each(store, &listing.items, |at, item, outcome| match outcome {
            Outcome::Encoded(encoded) if wanted.next_if_eq(&at).is_some() => {
                file.write(&stored(&encoded.global, precision, item)?)
            }
            _ => Ok(()),
        })?;
        self.files.insert(name, file.finish()?);
        Ok(())
    }
}

/// Values as they are stored.
fn stored(values: &[f32], precision: Precision, item: &Captioned) -> Result<Vec<u8>> {
    match precision {
        Precision::F32 => Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Precision::F16 => {
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            if halves.iter().any(|half| !half.is_finite()) {
                let next = "store the features with --dtype f32";
                let expected = "values up to 65504, the largest that f16 holds";
                return Err(Error::content(&item.image, "", expected, "a larger one", next));
            }
            Ok(halves.iter().flat_map(|half| half.to_le_bytes()).collect())
        }
    }
}

/// The header of a `.npy` file, version 1.0: its length is a multiple of 64.
fn header(precision: Precision, shape: &[usize]) -> Vec<u8> {
    let descr = match precision {
        Precision::F16 => "<f2",
        Precision::F32 => "<f4",
    };
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}", lengths.join(", "));
    let length = (10 + text.len() + 1).next_multiple_of(64) - 10;
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((length as u16).to_le_bytes());
    out.extend(format!("{text:<width$}\n", width = length - 1).bytes());
    out
}

/// A file whose SHA-256 is known when it is written.
struct Hashed {
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
}

impl Hashed {
    fn new(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(name);
        let file = File::create(&path).map_err(Error::write(&path))?;
        Ok(Self { path, file: BufWriter::with_capacity(1 << 20, file), hasher: Sha256::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(Error::write(&self.path))
    }

    fn finish(mut self) -> Result<String> {
        self.file.flush().map_err(Error::write(&self.path))?;
        Ok(hex(&self.hasher.finalize()))
    }
}

/// Where the data is from, as `precomp` reads it.
fn notice(job: &Job, recipe: &Recipe) -> String {
    let folder = fs::canonicalize(&job.images).unwrap_or_else(|_| job.images.clone());
    let folder = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let or = |said: &str, other: String| if said.is_empty() { other } else { said.to_owned() };
    let grid = match recipe.grid {
        0 => "one vector an image".to_owned(),
        grid => format!("{grid}x{grid} grid cells, not detector boxes"),
    };
    let notice = Notice {
        title: or(&job.notice.title, format!("{folder}, encoded by {}", recipe.encoder)),
        licence: or(&job.notice.licence, "that of the pictures' origin".into()),
        attribution: job.notice.attribution.clone(),
        caveat: or(&job.notice.caveat, format!("frozen {}: {grid}", recipe.encoder)),
    };
    // The escapes of JSON are among those of TOML's basic strings, where control characters do not stand.
    let quoted = |text: &str| serde_json::to_string(&text.replace(char::is_control, " ")).expect("a text");
    format!(
        "title = {}\nlicence = {}\nattribution = {}\ncaveat = {}\n",
        quoted(&notice.title),
        quoted(&notice.licence),
        quoted(&notice.attribution),
        quoted(&notice.caveat)
    )
}
