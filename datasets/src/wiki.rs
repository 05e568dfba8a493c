//! Wikipedia featured articles: a section and its picture each, ten categories.
//!
//! `raw_features.mat` holds `I_tr`, `I_te` (bags of 128 SIFT visual words) and `T_tr`, `T_te` (10 topic proportions), a row an
//! item, each row summing to 1. `trainset_txt_img_cat.list` and `testset_txt_img_cat.list` hold, in the same order, the
//! text's name, the image's name and the category from 1, separated by tabs; `categories.list` names the categories.
//!
//! The published split has no validation part. The option `validation` takes that fraction of the training items, drawn
//! within each category.

use std::path::Path;

use crate::{
    Collection, Dataset, Error, Hasher, Labels, Matrix, Notice, OptionSpec, OptionValue, Result, Source, draft::twins,
    mat, npy, options::Options, precomp::lines, source::folder,
};

pub(crate) const SOURCE: Source = Source {
    name: "wiki",
    doc: "Wikipedia featured articles: 2173 training and 693 test pairs in ten categories",
    options: &[
        OptionSpec { name: "path", doc: "the folder, relative to the data folder", default: OptionValue::Text("wiki") },
        OptionSpec { name: "seed", doc: "seed of the validation draw", default: OptionValue::Integer(0) },
        OptionSpec {
            name: "validation",
            doc: "fraction of the training items that become the validation split, 0 to 0.5",
            default: OptionValue::Float(0.0),
        },
    ],
    representations: &["image global", "image labels", "text global", "text labels"],
    get: "get the Wikipedia dataset from svcl.ucsd.edu/projects/crossmodal and put raw_features.mat, categories.list, \
          trainset_txt_img_cat.list and testset_txt_img_cat.list into the folder",
    load,
};

const FEATURES: &str = "raw_features.mat";
const LISTS: [&str; 2] = ["trainset_txt_img_cat.list", "testset_txt_img_cat.list"];
const CATEGORIES: &str = "categories.list";

fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let fraction = options.float("validation", 0.0..=0.5)?;
    let mut stream = options.seed()?.stream(&["wiki", "validation"]);
    let folder = folder(options, root, SOURCE.get)?;
    let file = |name: &str| {
        let path = folder.join(name);
        if path.is_file() { Ok(path) } else { Err(Error::content(path, "", "a file", "nothing", SOURCE.get)) }
    };
    let features = file(FEATURES)?;
    let arrays = mat::read(&features)?;
    let mut classes = lines(&file(CATEGORIES)?)?;
    classes.retain(|name| !name.is_empty());
    let part = |list: &str, suffix: &str| -> Result<Part> {
        let (ids, of) = list_of(&file(list)?, classes.len())?;
        let matrix = |name: String| {
            let matrix = mat::matrix(&features, &arrays, &name)?;
            if matrix.rows != ids.len() {
                let expected = format!("{} rows, as many as lines in {list}", ids.len());
                let next = "use the lists that belong to the features";
                return Err(Error::content(&features, name, expected, matrix.rows.to_string(), next));
            }
            Ok(matrix)
        };
        Ok(Part { image: matrix(format!("I_{suffix}"))?, text: matrix(format!("T_{suffix}"))?, ids, of })
    };
    let (train, test) = (part(LISTS[0], "tr")?, part(LISTS[1], "te")?);
    for (found, like, name) in [(&test.image, &train.image, "I_te"), (&test.text, &train.text, "T_te")] {
        if found.cols != like.cols {
            let expected = format!("{} columns, as in training", like.cols);
            return Err(Error::content(&features, name, expected, found.cols.to_string(), "check the features file"));
        }
    }
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    for name in [FEATURES, LISTS[0], LISTS[1], CATEGORIES] {
        hasher.add(name, &npy::digest(&folder.join(name))?);
    }
    let mut held = Vec::new();
    for class in 0..classes.len() as u32 {
        let mut members: Vec<usize> = (0..train.of.len()).filter(|&item| train.of[item] == class).collect();
        stream.shuffle(&mut members);
        members.truncate((members.len() as f64 * fraction).round() as usize);
        held.extend(members);
    }
    held.sort_unstable();
    let kept: Vec<usize> = (0..train.of.len()).filter(|item| held.binary_search(item).is_err()).collect();
    let count = classes.len();
    let all: Vec<usize> = (0..test.of.len()).collect();
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title: "Wikipedia featured articles (Rasiwasia et al., ACM MM 2010; Costa Pereira et al., TPAMI 2014)"
                .into(),
            licence: "no explicit licence for the features: research use".into(),
            attribution: String::new(),
            caveat: "10 topic proportions as text, bags of SIFT words as images: category retrieval only".into(),
        },
        words: [].into(),
        classes,
        train: train.cut(&kept, count),
        val: (!held.is_empty()).then(|| train.cut(&held, count)),
        test: test.cut(&all, count),
    })
}

struct Part {
    ids: Vec<String>,
    of: Vec<u32>,
    image: Matrix,
    text: Matrix,
}

impl Part {
    fn cut(&self, items: &[usize], classes: usize) -> Collection {
        let rows = |matrix: &Matrix| Matrix {
            rows: items.len(),
            cols: matrix.cols,
            data: items.iter().flat_map(|&item| matrix.row(item)).copied().collect(),
        };
        let ids = items.iter().map(|&item| self.ids[item].clone()).collect();
        let labels = Labels { classes, of: items.iter().map(|&item| vec![self.of[item]]).collect() };
        twins(ids, rows(&self.image), rows(&self.text), Some(labels))
    }
}

/// Names (the text's, which are unique) and classes from 0.
fn list_of(path: &Path, classes: usize) -> Result<(Vec<String>, Vec<u32>)> {
    let (mut ids, mut of) = (Vec::new(), Vec::new());
    for (number, line) in lines(path)?.iter().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let class = match fields.as_slice() {
            [_, _, class] => class.trim().parse::<usize>().ok().filter(|class| (1..=classes).contains(class)),
            _ => None,
        };
        let Some(class) = class else {
            let expected = format!("text name, image name and a category from 1 to {classes}, separated by tabs");
            let place = format!("line {}", number + 1);
            return Err(Error::content(path, place, expected, format!("`{line}`"), "get the list again"));
        };
        ids.push(fields[0].to_owned());
        of.push(class as u32 - 1);
    }
    Ok((ids, of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data;

    #[test]
    fn the_published_split_has_its_sizes_and_labels() {
        let Some(root) = test_data("wiki") else { return };
        let dataset = crate::open("wiki", &toml::Table::new(), Some(&root)).unwrap();
        assert_eq!((dataset.train.images.len(), dataset.test.images.len(), dataset.val.is_some()), (2173, 693, false));
        assert_eq!((dataset.classes.len(), dataset.classes[1].as_str()), (10, "biology"));
        // First line of the test list: category 2, of the training list: 6.
        assert_eq!(dataset.test.images.labels.as_ref().unwrap().of[0], [1]);
        assert_eq!(dataset.train.texts.labels.as_ref().unwrap().of[0], [5]);
        let image = dataset.train.images.global.as_ref().unwrap().all().unwrap();
        let text = dataset.test.texts.global.as_ref().unwrap().all().unwrap();
        assert_eq!((image.cols, text.cols), (128, 10));
        for matrix in [image, text] {
            assert!((0..matrix.rows).all(|i| (matrix.row(i).iter().sum::<f32>() - 1.0).abs() < 1e-3));
        }
    }

    #[test]
    fn validation_is_drawn_within_categories() {
        let Some(root) = test_data("wiki") else { return };
        let dataset = crate::open("wiki", &toml::toml! { validation = 0.2 }, Some(&root)).unwrap();
        let val = dataset.val.as_ref().unwrap();
        assert_eq!(dataset.train.images.len() + val.images.len(), 2173);
        let count = |collection: &Collection, class: u32| {
            collection.images.labels.as_ref().unwrap().of.iter().filter(|of| of[0] == class).count() as f64
        };
        for class in 0..10 {
            let (train, val) = (count(&dataset.train, class), count(val, class));
            assert!((val / (train + val) - 0.2).abs() < 0.01);
        }
        assert!(val.images.ids.iter().all(|id| !dataset.train.images.ids.contains(id)));
    }
}
