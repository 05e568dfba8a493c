//! Folders in the layout of VSE++ and SCAN: features beside caption files.
//!
//! For each split (`train`, `dev`, `test`): `SPLIT_ims.npy` holds `[images, width]` global vectors or `[images, regions,
//! width]` region vectors as f16, f32 or f64, each image once or once a caption (VSE++ repeats an image five times);
//! `SPLIT_caps.txt` one caption a line, those of an image one behind the other; and, where present, `SPLIT_global.npy` global
//! vectors beside regions and `SPLIT_ids.txt` image names. Without `SPLIT_global.npy` the global vector of an image is the
//! mean of its regions. A file `notice.toml` (title, licence, attribution, caveat) says where the data is from.
//!
//! Four more, which the projects do not have and `xmbench data extract` writes: `SPLIT_counts.txt` says on a line for each row how many
//! captions the image has, where that differs; `SPLIT_boxes.npy` `[images, regions, 4]` the box of each region as `x0, y0, x1, y1` in fractions of the image;
//! `SPLIT_labels.txt` on a line for each image its classes, separated by tabs, an empty line for none. A fourth, `SPLIT_caps_vectors.npy`
//! `[captions, width]`, holds a vector for each line of `SPLIT_caps.txt`: the global vector of a text (`text = "global"`).

mod beside;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use self::beside::lines;
use self::beside::{boxes_of, captions_of, counts_of, ids_of, labels_of, vectors_of};
use crate::{
    Collection, Dataset, Error, FeatureTable, Features, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Pairs,
    Result, Source, files, npy, npy::Npy, options::Options, source::folder, text::Vocabulary, words::VECTORS,
};

pub(crate) const SOURCE: Source = Source {
    name: "precomp",
    doc: "a folder of precomputed features and captions in the layout of VSE++ and SCAN",
    options: &[
        OptionSpec {
            name: "captions",
            doc: "captions an image; 0 finds it out: SPLIT_counts.txt where there is one, else captions over rows or, with as many rows as captions, 5 if every five rows are equal and else 1",
            default: OptionValue::Integer(0),
        },
        OptionSpec {
            name: "min_count",
            doc: "a word enters the vocabulary when the training captions hold it this often",
            default: OptionValue::Integer(4),
        },
        OptionSpec {
            name: "path",
            doc: "the folder, relative to the data folder",
            default: OptionValue::Text("f8k_precomp"),
        },
        OptionSpec {
            name: "test",
            doc: "the split that is tested on: `test`, or `testall` for the 5000 images of COCO",
            default: OptionValue::Text("test"),
        },
        VECTORS,
    ],
    representations: &[
        "image global",
        "image fragments (3-D files)",
        "text raw",
        "text tokens",
        "text bow",
        "text word vectors (option)",
        "text global (SPLIT_caps_vectors.npy)",
        "labels (SPLIT_labels.txt)",
    ],
    get: "put train_ims.npy, train_caps.txt, dev_ims.npy, dev_caps.txt, test_ims.npy and test_caps.txt into the folder; \
          the projects VSE++ and SCAN publish theirs, write your own features with numpy.save, or let `xmbench data extract` \
          make them of a folder of pictures",
    load,
};

fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let folder = folder(options, root, SOURCE.get)?;
    let test = options.text("test", &[])?;
    if test.is_empty() || test.contains(['/', '\\', '.']) {
        return Err(Error::option(
            "test",
            "the name of a split, such as `test`",
            format!("`{test}`"),
            SOURCE.options[3].doc,
        ));
    }
    let captions = options.integer("captions", 0..=1000)?;
    let read = |name: &str| Part::read(&folder, name, captions);
    let train = read("train")?;
    let val = if files::there(&folder.join("dev_ims.npy")) { Some(read("dev")?) } else { None };
    let test = read(test)?;
    for part in val.iter().chain([&test]) {
        part.check_like(&train)?;
    }
    let classes = classes([Some(&train), val.as_ref(), Some(&test)].into_iter().flatten());
    let min_count = options.integer("min_count", 1..=1_000_000)?;
    let vocabulary = Vocabulary::new(train.captions.iter().map(String::as_str), min_count);
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    for part in [Some(&train), val.as_ref(), Some(&test)].into_iter().flatten() {
        for file in &part.files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            hasher.add(&name, &npy::digest(file)?);
        }
    }
    let notice = notice(&folder, &train)?;
    Ok(Dataset {
        name: folder.file_name().map_or(SOURCE.name.into(), |name| name.to_string_lossy().into_owned()),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice,
        words: vocabulary.words().clone(),
        train: train.collection(&vocabulary, &classes),
        val: val.map(|part| part.collection(&vocabulary, &classes)),
        test: test.collection(&vocabulary, &classes),
        classes,
        database: None,
    })
}

/// The files of one split, read and checked against each other.
struct Part {
    files: Vec<PathBuf>,
    /// `[rows, width]` or `[rows, regions, width]`.
    images: Npy,
    /// The same number of rows.
    global: Option<Npy>,
    captions: Vec<String>,
    ids: Vec<String>,
    /// Rows an image.
    every: usize,
    /// Captions of each image.
    counts: Vec<usize>,
    boxes: Option<Arc<[[f32; 4]]>>,
    /// Names of the classes of each image.
    labels: Option<Vec<Vec<String>>>,
    /// `[captions, width]`.
    vectors: Option<Npy>,
}

/// The names of all classes, in alphabetical order.
fn classes<'a>(parts: impl Iterator<Item = &'a Part>) -> Vec<String> {
    let names: BTreeSet<&String> = parts.flat_map(|part| part.labels.iter().flatten().flatten()).collect();
    names.into_iter().cloned().collect()
}

impl Part {
    fn read(folder: &Path, name: &str, each: usize) -> Result<Self> {
        let file = |suffix: &str| folder.join(format!("{name}_{suffix}"));
        let need = |path: PathBuf| match files::there(&path) {
            true => Ok(path),
            false => Err(Error::content(path, "", "a file", "nothing", SOURCE.get)),
        };
        let (images_file, captions_file) = (need(file("ims.npy"))?, need(file("caps.txt"))?);
        let optional = |path: PathBuf| Some(path).filter(|path| files::there(path));
        let (global_file, ids_file) = (optional(file("global.npy")), optional(file("ids.txt")));
        let images = Npy::open(&images_file)?;
        if !matches!(images.shape.len(), 2 | 3) || images.shape.contains(&0) {
            let expected = "shape [images, width] or [images, regions, width], none of them zero";
            let next = "check what wrote the features";
            return Err(Error::content(images_file, "header", expected, format!("{:?}", images.shape), next));
        }
        let captions = captions_of(&captions_file)?;
        let [counts_file, boxes_file, labels_file, vectors_file] =
            ["counts.txt", "boxes.npy", "labels.txt", "caps_vectors.npy"].map(|suffix| optional(file(suffix)));
        let (counts, every) = match &counts_file {
            Some(path) if each == 0 => (counts_of(path, images.shape[0], captions.len(), &captions_file)?, 1),
            _ => {
                let (each, every) = captions_and_rows(&images, captions.len(), &captions_file, each)?;
                (vec![each; captions.len() / each], every)
            }
        };
        let items = counts.len();
        let global = global_file.as_deref().map(Npy::open).transpose()?;
        if let Some(global) = &global {
            let rows = images.shape[0];
            if global.shape.len() != 2 || global.shape[0] != rows || global.shape[1] == 0 {
                let expected = format!("shape [{rows}, width], as many rows as {}", images_file.display());
                let next = "write both files from the same images";
                return Err(Error::content(&global.path, "header", expected, format!("{:?}", global.shape), next));
            }
        }
        let ids = match &ids_file {
            None => (0..items).map(|item| format!("{name}-{item}")).collect(),
            Some(path) => ids_of(path, &counts)?,
        };
        let boxes = boxes_file.as_deref().map(|path| boxes_of(path, &images, items)).transpose()?;
        let labels = labels_file.as_deref().map(|path| labels_of(path, items)).transpose()?;
        let vectors = vectors_file.as_deref().map(|path| vectors_of(path, captions.len())).transpose()?;
        let own = [Some(images_file), Some(captions_file), global_file, ids_file];
        let files = own.into_iter().chain([counts_file, boxes_file, labels_file, vectors_file]).flatten().collect();
        Ok(Self { files, images, global, captions, ids, every, counts, boxes, labels, vectors })
    }

    /// Both splits must have the same representations of the same shape.
    fn check_like(&self, train: &Self) -> Result<()> {
        let differ = |found: &Npy, like: &Npy| {
            let expected = format!("rows of shape {:?}, as in {}", &like.shape[1..], like.path.display());
            let next = "extract the features of every split in the same way";
            Err(Error::content(&found.path, "header", expected, format!("{:?}", &found.shape[1..]), next))
        };
        if self.images.shape[1..] != train.images.shape[1..] {
            return differ(&self.images, &train.images);
        }
        match (&self.global, &train.global) {
            (Some(found), Some(like)) if found.shape[1..] != like.shape[1..] => differ(found, like),
            (Some(found), None) | (None, Some(found)) => Err(Error::content(
                &found.path,
                "",
                "global vectors for every split or for none",
                "some splits without a file SPLIT_global.npy",
                "add the missing files or remove this one",
            )),
            _ if self.vectors.as_ref().map(Npy::width) != train.vectors.as_ref().map(Npy::width) => {
                Err(Error::content(
                    train.images.path.with_file_name("train_caps_vectors.npy"),
                    "",
                    "vectors of captions, of one width, for every split or for none",
                    "some splits without a file SPLIT_caps_vectors.npy, or with another width",
                    "write them for every split by one network, or remove them",
                ))
            }
            _ if self.labels.is_some() != train.labels.is_some() => Err(Error::content(
                train.images.path.with_file_name("train_labels.txt"),
                "",
                "labels for every split or for none",
                "some splits without a file SPLIT_labels.txt",
                "add the missing files or remove the others",
            )),
            _ => Ok(()),
        }
    }

    fn collection(self, vocabulary: &Vocabulary, classes: &[String]) -> Collection {
        let items = self.ids.len();
        let every = self.every;
        let table = |npy: Npy| Arc::new(Rows { npy, items, every }) as FeatureTable;
        let regions = self.images.shape.len() == 3;
        let first = table(self.images);
        let (global, fragments) = match (regions, self.global.map(table)) {
            (false, None) => (first, None),
            // Two-dimensional features beside a global file are a second global vector, of which the named one wins.
            (false, Some(global)) => (global, None),
            (true, Some(global)) => (global, Some(first)),
            (true, None) => (Arc::new(Mean(first.clone())) as FeatureTable, Some(first)),
        };
        let owners: Vec<usize> =
            self.counts.iter().enumerate().flat_map(|(image, &count)| std::iter::repeat_n(image, count)).collect();
        let numbers = self.counts.iter().flat_map(|&count| 0..count);
        let text_ids =
            owners.iter().zip(numbers).map(|(&image, number)| format!("{}#{number}", self.ids[image])).collect();
        let mut texts = vocabulary.texts(text_ids, self.captions);
        let captions = texts.len();
        texts.global = self.vectors.map(|npy| Arc::new(Rows { npy, items: captions, every: 1 }) as FeatureTable);
        let pairs = owners.iter().enumerate().map(|(text, &image)| (image as u32, text as u32)).collect();
        let pairs = Pairs::new(items, texts.len(), pairs);
        let labels = self.labels.map(|names| {
            let number = |name: &String| classes.binary_search(name).expect("all names are among the classes") as u32;
            let of = names.iter().map(|names| names.iter().map(number).collect::<BTreeSet<_>>().into_iter().collect());
            Labels { classes: classes.len(), of: of.collect() }
        });
        texts.labels = labels.as_ref().map(|labels| labels.subset(&owners));
        let images =
            Images { ids: self.ids, global: Some(global), fragments, boxes: self.boxes, labels, ..Images::default() };
        Collection { images, texts, pairs }
    }
}

/// Captions an image and rows an image.
fn captions_and_rows(images: &Npy, captions: usize, file: &Path, asked: usize) -> Result<(usize, usize)> {
    let rows = images.shape[0];
    let mismatch = |expected: String| {
        let next = "write one caption a line, those of an image one behind the other, or set the option `captions`";
        Err(Error::content(file, "", expected, format!("{captions} captions"), next))
    };
    let first_uneven = |each: usize| (0..rows).find(|&row| row % each > 0 && !images.same_rows(row, row - 1));
    match asked {
        0 if captions == 0 || !captions.is_multiple_of(rows) => {
            mismatch(format!("a multiple of the {rows} rows of {}", images.path.display()))
        }
        0 if captions > rows => Ok((captions / rows, 1)),
        0 if rows.is_multiple_of(5) && first_uneven(5).is_none() => Ok((5, 5)),
        0 => Ok((1, 1)),
        each if captions == rows * each => Ok((each, 1)),
        each if captions == rows && rows.is_multiple_of(each) => match first_uneven(each) {
            None => Ok((each, each)),
            Some(row) => Err(Error::content(
                &images.path,
                format!("row {row}"),
                format!(
                    "the row before it again, since there are as many rows as captions and {each} captions an image"
                ),
                "another row",
                "store each image once, or repeat it for each of its captions",
            )),
        },
        each => mismatch(format!("{each} captions for each of the {rows} rows of {}", images.path.display())),
    }
}

fn notice(folder: &Path, train: &Part) -> Result<Notice> {
    let path = folder.join("notice.toml");
    if files::there(&path) {
        let text = lines(&path)?.join("\n");
        return toml::from_str(&text).map_err(|error| {
            let found = error.message().to_owned();
            Error::content(&path, "", "strings title, licence, attribution and caveat", found, "correct or remove it")
        });
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let shape = &train.images.shape[1..];
    if name == "f8k_precomp" && shape == [36, 256] {
        return Ok(Notice {
            title: "Flickr8k (Hodosh, Young, Hockenmaier, JAIR 47, 2013)".into(),
            licence: "images and captions belong to their authors, released for research; not to be passed on".into(),
            attribution: String::new(),
            caveat: "6x6 grid cells of MobileNetV2, not detector boxes: no yardstick for published Flickr8k rows"
                .into(),
        });
    }
    Ok(Notice {
        title: format!("{name}, precomputed features of shape {shape:?} an image"),
        licence: "that of the folder's origin".into(),
        attribution: String::new(),
        caveat: "what the features are is not recorded: add a notice.toml to the folder".into(),
    })
}

/// Every `every`-th row of a mapped file.
#[derive(Debug)]
struct Rows {
    npy: Npy,
    items: usize,
    every: usize,
}

impl Features for Rows {
    fn items(&self) -> usize {
        self.items
    }
    fn fragments(&self) -> usize {
        self.npy.width() / self.width()
    }
    fn width(&self) -> usize {
        self.npy.shape[self.npy.shape.len() - 1]
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        self.npy.read(item * self.every, out)
    }
}

/// The mean of each item's fragments.
#[derive(Debug)]
struct Mean(FeatureTable);

impl Features for Mean {
    fn items(&self) -> usize {
        self.0.items()
    }
    fn fragments(&self) -> usize {
        1
    }
    fn width(&self) -> usize {
        self.0.width()
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        let mut all = vec![0.0; self.0.fragments() * self.0.width()];
        self.0.read(item, &mut all)?;
        let mut sums = vec![0.0f64; out.len()];
        for fragment in all.chunks(out.len()) {
            sums.iter_mut().zip(fragment).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let count = self.0.fragments() as f64;
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = (sum / count) as f32);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
