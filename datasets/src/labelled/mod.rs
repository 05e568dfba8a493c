//! Features, texts and labels as the hashing literature passes them on: arrays in MAT-files (version 5 or 7.3) or `.npy` files, one
//! file or a folder of them.
//!
//! Image and text features have a row an item; labels a row an item and a column a class (0 or 1; a row of zeros belongs to no
//! class), or one number an item, which is its class. Arrays are known by their names ([`names`]) or named by options. The
//! queries are `test`; where the split is made here, `database` is everything else and `train` a part of it.
//!
//! `mirflickr25k`, `nuswide10`, `nuswide21` and `coco` are the same with other defaults, and check the number of items and classes.

mod arrays;
mod names;
mod split;
#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc};

use self::{
    arrays::{Part, Store},
    names::Slice,
};
use crate::{
    Collection, Dataset, Error, FeatureTable, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Pairs, Result,
    Source, Subset, Texts, npy, options::Options,
};

pub(crate) use arrays::guesses;

const GET: &str = "put one MAT-file (version 5 or 7.3) or .npy files with image features, text features and labels into the folder, a row an \
                   item; arrays are known by names such as I_tr, T_tr, L_tr, I_te, T_te, L_te or IAll, TAll, LAll, or named by the \
                   options images, texts and labels";

/// What a named dataset is held to, and how it differs from `features`.
struct Preset {
    name: &'static str,
    title: &'static str,
    /// Items and classes; 0 where they are not checked.
    items: usize,
    classes: usize,
    caveat: &'static str,
}

const PLAIN: Preset =
    Preset { name: "features", title: "features and labels of a file", items: 0, classes: 0, caveat: "" };

const MIRFLICKR: Preset = Preset {
    name: "mirflickr25k",
    title: "MIRFlickr-25K (Huiskes, Lew, MIR 2008), the 20,015 pictures with tags that the hashing literature keeps",
    items: 20_015,
    classes: 24,
    caveat: "tags overlap the names of the classes",
};

const NUS_10: Preset = Preset {
    name: "nuswide10",
    title: "NUS-WIDE (Chua et al., CIVR 2009), its ten most frequent concepts",
    items: 186_577,
    classes: 10,
    caveat: "tags overlap the names of the classes",
};

const NUS_21: Preset = Preset {
    name: "nuswide21",
    title: "NUS-WIDE (Chua et al., CIVR 2009), its 21 most frequent concepts",
    items: 195_834,
    classes: 21,
    caveat: "tags overlap the names of the classes",
};

const COCO: Preset = Preset {
    name: "coco",
    title: "MS-COCO (Lin et al., ECCV 2014) as labelled pairs, 122,218 of them",
    items: 122_218,
    classes: 80,
    caveat: "",
};

/// Options with the defaults that datasets differ in.
const fn options(path: &'static str, split: &'static str, queries: i64, train: i64) -> [OptionSpec; 10] {
    const fn text(name: &'static str, doc: &'static str, default: &'static str) -> OptionSpec {
        OptionSpec { name, doc, default: OptionValue::Text(default) }
    }
    const fn number(name: &'static str, doc: &'static str, default: i64) -> OptionSpec {
        OptionSpec { name, doc, default: OptionValue::Integer(default) }
    }
    [
        text(
            "images",
            "array of the image features, or its name before _tr, _te, _db; empty to know it by its name",
            "",
        ),
        text("labels", "array of the labels, as for images", ""),
        text("path", "the folder or file, relative to the data folder", path),
        number("queries", "items that ask; 0 takes the file's, where the split is given", queries),
        number("seed", "which items, where they are drawn", 1),
        text(
            "split",
            "given = the file's parts; first, last = the queries stand there, training items follow in order; random = drawn; \
             djsrh = drawn class by class as in the code of DJSRH",
            split,
        ),
        text("texts", "array of the text features, as for images", ""),
        number("train", "items of the database that are trained on; 0 for all of it", train),
        text(
            "transposed",
            "arrays that hold a column an item: any of images, texts, labels, between commas, or true for all",
            "",
        ),
        OptionSpec {
            name: "validation",
            doc: "share of the training items that is held out for selection; they stay in the database",
            default: OptionValue::Float(0.0),
        },
    ]
}

const REPRESENTATIONS: &[&str] = &["image global", "image labels", "text global", "text labels"];

pub(crate) const SOURCES: [Source; 5] = [
    Source {
        name: PLAIN.name,
        doc: "labelled image and text features of a MAT-file or of .npy files, as the hashing literature passes them on",
        options: &options("features", "given", 0, 0),
        representations: REPRESENTATIONS,
        get: GET,
        load: |options, root| load(&PLAIN, options, root),
    },
    Source {
        name: MIRFLICKR.name,
        doc: "MIRFlickr-25K as labelled features: 20,015 items, 24 classes, 2000 queries and 5000 training items drawn class by class",
        options: &options("mirflickr25k", "djsrh", 2000, 5000),
        representations: REPRESENTATIONS,
        get: "the pictures and tags are at press.liacs.nl/mirflickr, under the Creative Commons licences of their authors; features are \
              passed on by authors of hashing methods: get such a file (20,015 items, bag of 1386 tags, 24 labels) or extract your own, and \
              put it into the folder as for `features`",
        load: |options, root| load(&MIRFLICKR, options, root),
    },
    Source {
        name: NUS_10.name,
        doc: "NUS-WIDE with ten concepts as labelled features: 186,577 items, 2000 queries and 5000 training items drawn class by class",
        options: &options("nuswide10", "djsrh", 2000, 5000),
        representations: REPRESENTATIONS,
        get: "NUS-WIDE is given out by the National University of Singapore for research, as features, tags and addresses of the pictures; \
              get a file of an author of hashing methods (186,577 items, bag of 1000 tags, 10 labels) or extract your own, and put it into \
              the folder as for `features`",
        load: |options, root| load(&NUS_10, options, root),
    },
    Source {
        name: NUS_21.name,
        doc: "NUS-WIDE with 21 concepts as labelled features: 195,834 items, 2100 queries and 10,000 training items drawn at random",
        options: &options("nuswide21", "random", 2100, 10_000),
        representations: REPRESENTATIONS,
        get: "as for nuswide10, with 195,834 items, a bag of 1000 tags and 21 labels",
        load: |options, root| load(&NUS_21, options, root),
    },
    Source {
        name: COCO.name,
        doc: "MS-COCO as labelled features: 122,218 items, 80 classes, the last 5000 ask, all others are trained on",
        options: &options("coco", "last", 5000, 0),
        representations: REPRESENTATIONS,
        get: "pictures, captions and categories are at cocodataset.org (annotations CC BY 4.0, pictures under Flickr's terms); get a file of \
              features of an author of hashing methods (122,218 items, 80 labels) or extract your own, and put it into the folder as for \
              `features`",
        load: |options, root| load(&COCO, options, root),
    },
];

fn load(preset: &Preset, options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let get = SOURCES.iter().find(|source| source.name == preset.name).map_or(GET, |source| source.get);
    let path = place(options, root, get)?;
    let store = Store::open(&path, options)?;
    let how = options.text("split", &["given", "first", "last", "random", "djsrh"])?;
    let wanted = [options.integer("queries", 0..=100_000_000)?, options.integer("train", 0..=100_000_000)?];
    let validation = options.float("validation", 0.0..=0.9)?;
    let seed = options.seed()?;

    let mut parts = Parts::read(&store, how == "given")?;
    let used = store.used();
    let rows = match how {
        "given" => split::given(&path, &parts, wanted)?,
        _ => split::made(&path, how, &parts.labels(0), wanted, seed)?,
    };
    check(&path, preset, &parts, &rows)?;
    let order = seed.stream(&["features", "validation"]).permutation(rows.train.len());
    let held = (validation * rows.train.len() as f64).round() as usize;
    let pick = |places: &[usize]| {
        let mut picked: Vec<usize> = places.iter().map(|&place| rows.train[place]).collect();
        picked.sort_unstable();
        picked
    };
    let (held, kept) = (pick(&order[..held]), pick(&order[held..]));

    let mut hasher = Hasher::default();
    hasher.add("name", preset.name.as_bytes()).add("options", options.canonical().as_bytes());
    for file in &used {
        let file_name = file.file_name().unwrap_or_default().to_string_lossy();
        hasher.add(&file_name, &npy::digest(file)?);
    }
    parts.settle();
    let (train, test, database) = rows.parts;
    Ok(Dataset {
        name: preset.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title: preset.title.into(),
            licence: "that of the file's authors".into(),
            attribution: String::new(),
            caveat: preset.caveat.into(),
        },
        words: [].into(),
        classes: (1..=parts.classes).map(|class| class.to_string()).collect(),
        val: if held.is_empty() { None } else { Some(parts.cut(train, &held)) },
        train: parts.cut(train, &kept),
        test: parts.cut(test, &rows.test),
        database: database.map(|part| parts.cut(part, &rows.database)),
    })
}

/// The folder or file of option `path`.
fn place(options: &Options, root: Option<&Path>, get: &str) -> Result<std::path::PathBuf> {
    let path = crate::source::located(options, root, get)?;
    if path.is_file() { Ok(path) } else { crate::source::folder(options, root, get) }
}

/// The parts of the file that are read: one with all items, or training items, queries and, where there is one, the database.
struct Parts {
    list: Vec<Part>,
    /// Classes, counted over all parts.
    classes: usize,
    labels: Vec<Vec<Vec<u32>>>,
}

impl Parts {
    fn read(store: &Store, given: bool) -> Result<Self> {
        let slices: &[Slice] = if given { &[Slice::Train, Slice::Test, Slice::Database] } else { &[Slice::All] };
        let mut list = Vec::new();
        for &slice in slices {
            if slice == Slice::Database && !store.has(slice) {
                continue;
            }
            list.push(store.part(slice)?);
        }
        for part in &list[1..] {
            part.check_like(&list[0])?;
        }
        let (classes, labels) = arrays::classes(&list)?;
        Ok(Self { list, classes, labels })
    }

    fn items(&self, part: usize) -> usize {
        self.list[part].items
    }

    fn labels(&self, part: usize) -> Labels {
        Labels { classes: self.classes, of: self.labels[part].clone() }
    }

    /// Lets go of the label matrices, which are lists of classes now.
    fn settle(&mut self) {
        self.list.iter_mut().for_each(|part| part.labels = crate::Matrix::default());
    }

    /// Some items of a part.
    fn cut(&self, part: usize, rows: &[usize]) -> Collection {
        let (n, source) = (rows.len(), &self.list[part]);
        let ids: Vec<String> = rows.iter().map(|row| format!("{}-{row}", source.slice.word())).collect();
        let of = rows.iter().map(|&row| self.labels[part][row].clone()).collect();
        let labels = Some(Labels { classes: self.classes, of });
        let table = |all: &FeatureTable| Some(Arc::new(Subset::new(all.clone(), rows)) as FeatureTable);
        Collection {
            images: Images {
                ids: ids.clone(),
                global: table(&source.images),
                labels: labels.clone(),
                ..Images::default()
            },
            texts: Texts { ids, global: table(&source.texts), labels, ..Texts::default() },
            pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
        }
    }
}

/// Holds a named dataset to its counts.
fn check(path: &Path, preset: &Preset, parts: &Parts, rows: &split::Rows) -> Result<()> {
    let wrong = |what: &str, expected: usize, found: usize| {
        let next = "take the file of this dataset, or open it as `features`";
        Err(Error::content(path, "", format!("{expected} {what}"), found.to_string(), next))
    };
    let items = match rows.parts {
        (train, test, _) if train == test => parts.items(test),
        (train, test, database) => parts.items(test) + parts.items(database.unwrap_or(train)),
    };
    if preset.items != 0 && items != preset.items {
        return wrong("items", preset.items, items);
    }
    if preset.classes != 0 && parts.classes != preset.classes {
        return wrong("classes", preset.classes, parts.classes);
    }
    Ok(())
}
