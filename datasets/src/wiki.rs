//! Wikipedia featured articles (Rasiwasia et al., ACM MM 2010): 2866 documents of 10 classes, a 128-d SIFT histogram and a 10-d topic
//! proportion each, 2173 for training and 693 for testing.
//!
//! `raw_features.mat` (a MAT-file) holds `I_tr`, `T_tr`, `I_te`, `T_te`, a document a row; the third tab-separated column of the list files is the
//! class, 1 to 10, named by `categories.list`. Where the MAT-file has labels of its own (`L_tr`, `L_te`), they must be those of the lists, row by
//! row: documents in another order than their list would get the classes of others.

use std::path::Path;

use crate::{
    Collection, Dataset, Error, Hasher, Labels, Matrix, Notice, OptionSpec, OptionValue, Result, Source, draft::twins,
    mat::MatFile, npy, options::Options, precomp::lines, source::folder,
};

pub(crate) const SOURCE: Source = Source {
    name: "wiki",
    doc: "Wikipedia featured articles with the original features: SIFT histograms and topic proportions",
    options: &[
        OptionSpec { name: "path", doc: "the folder, relative to the data folder", default: OptionValue::Text("wiki") },
        OptionSpec { name: "seed", doc: "which documents are held out", default: OptionValue::Integer(1) },
        OptionSpec {
            name: "validation",
            doc: "share of the training documents that is held out for selection; 0 for none, as in the paper",
            default: OptionValue::Float(0.0),
        },
    ],
    representations: &["image global", "image labels", "text global", "text labels"],
    get: "get raw_features.mat, trainset_txt_img_cat.list, testset_txt_img_cat.list and categories.list from \
          svcl.ucsd.edu/projects/crossmodal and put them into the folder",
    load,
};

const FEATURES: &str = "raw_features.mat";

/// Identifiers, image and text vectors, classes.
type Part = (Vec<String>, Matrix, Matrix, Vec<Vec<u32>>);

fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let folder = folder(options, root, SOURCE.get)?;
    let validation = options.float("validation", 0.0..=0.9)?;
    let classes: Vec<String> =
        lines(&folder.join("categories.list"))?.into_iter().filter(|line| !line.is_empty()).collect();
    let path = folder.join(FEATURES);
    let features = MatFile::open(&path)?;
    let part = |suffix: &str, list: &str| -> Result<Part> {
        let matrix = |side: &str| features.matrix(&format!("{side}_{suffix}"));
        let (image, text) = (matrix("I")?, matrix("T")?);
        let (ids, labels) = documents(&folder.join(list), classes.len())?;
        for (name, rows) in [(format!("I_{suffix}"), image.rows), (format!("T_{suffix}"), text.rows)] {
            if rows != ids.len() {
                return Err(Error::content(
                    folder.join(FEATURES),
                    name,
                    format!("{} rows, one a line of {list}", ids.len()),
                    format!("{rows} rows"),
                    "take both files from the same source",
                ));
            }
        }
        let name = format!("L_{suffix}");
        if features.infos().iter().any(|info| info.name == name) {
            let own = own_labels(&path, &name, &features.matrix(&name)?, classes.len())?;
            same_labels(&path, &name, &own, list, &labels)?;
        }
        Ok((ids, image, text, labels))
    };
    let (ids, image, text, labels) = part("tr", "trainset_txt_img_cat.list")?;
    let (test_ids, test_image, test_text, test_labels) = part("te", "testset_txt_img_cat.list")?;
    for (name, found, like) in [("I_te", &test_image, &image), ("T_te", &test_text, &text)] {
        if found.cols != like.cols {
            let expected = format!("{} columns, as in training", like.cols);
            let found = format!("{} columns", found.cols);
            return Err(Error::content(&path, name, expected, found, "take both splits from the same source"));
        }
    }

    let order = options.seed()?.stream(&["wiki", "validation"]).permutation(ids.len());
    let (held, kept) = order.split_at((validation * ids.len() as f64).round() as usize);
    let select = |rows: &[usize]| -> Collection {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        let take = |from: &Matrix| Matrix {
            rows: rows.len(),
            cols: from.cols,
            data: rows.iter().flat_map(|&row| from.row(row)).copied().collect(),
        };
        let of = rows.iter().map(|&row| labels[row].clone()).collect();
        let ids = rows.iter().map(|&row| ids[row].clone()).collect();
        twins(ids, take(&image), take(&text), Some(Labels { classes: classes.len(), of }))
    };
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    for file in [FEATURES, "trainset_txt_img_cat.list", "testset_txt_img_cat.list", "categories.list"] {
        hasher.add(file, &npy::digest(&folder.join(file))?);
    }
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title: "Wikipedia featured articles (Rasiwasia et al., ACM MM 2010; Costa Pereira et al., TPAMI 2014)"
                .into(),
            licence: "no explicit licence; research use".into(),
            attribution: String::new(),
            caveat: "the original features of 2010: SIFT bag of visual words and topic proportions".into(),
        },
        words: [].into(),
        train: select(kept),
        val: if held.is_empty() { None } else { Some(select(held)) },
        test: twins(test_ids, test_image, test_text, Some(Labels { classes: classes.len(), of: test_labels })),
        database: None,
        classes,
    })
}

/// The classes (counted from 0) that the MAT-file itself gives, a document each: numbers from 1, in a column or a row, or a column a
/// class with a 1 in that of the document.
fn own_labels(path: &Path, name: &str, found: &Matrix, classes: usize) -> Result<Vec<u32>> {
    let wrong = |row: usize, found: String| {
        let expected = format!("a class from 1 to {classes}, or a 1 in the column of one class of {classes}");
        Err(Error::content(path, format!("{name}, row {}", row + 1), expected, found, SOURCE.get))
    };
    if found.rows == 1 || found.cols == 1 {
        let number =
            |(row, &value): (usize, &f32)| match value.fract() == 0.0 && (1.0..=classes as f32).contains(&value) {
                true => Ok(value as u32 - 1),
                false => wrong(row, value.to_string()),
            };
        return found.data.iter().enumerate().map(number).collect();
    }
    let of = |row: usize| {
        let values = found.row(row);
        let ones: Vec<u32> = (0u32..).zip(values).filter(|(_, value)| **value == 1.0).map(|(class, _)| class).collect();
        match ones[..] {
            [class] if values.len() == classes && values.iter().filter(|&&value| value != 0.0).count() == 1 => {
                Ok(class)
            }
            _ => wrong(row, format!("{values:?}")),
        }
    };
    (0..found.rows).map(of).collect()
}

/// Refuses labels that differ from those of the list in any row.
fn same_labels(path: &Path, name: &str, own: &[u32], list: &str, labels: &[Vec<u32>]) -> Result<()> {
    if own.len() != labels.len() {
        let expected = format!("{} labels, one a line of {list}", labels.len());
        let found = format!("{} labels", own.len());
        return Err(Error::content(path, name, expected, found, "take both files from the same source"));
    }
    let other: Vec<usize> = (0..own.len()).filter(|&row| labels[row] != [own[row]]).collect();
    let Some(&row) = other.first() else { return Ok(()) };
    let class = |classes: &[u32]| classes.iter().map(|class| (class + 1).to_string()).collect::<String>();
    let expected = format!("class {}, as {list} has it", class(&labels[row]));
    let found = format!("class {} ({} of {} rows differ)", class(&own[row..=row]), other.len(), own.len());
    let next = "the rows and the list are in different orders: take both from the same source, or open the MAT-file alone as `features`";
    Err(Error::content(path, format!("{name}, row {}", row + 1), expected, found, next))
}

/// Identifier and class (counted from 0) of each line `text <tab> image <tab> class`.
fn documents(path: &Path, classes: usize) -> Result<(Vec<String>, Vec<Vec<u32>>)> {
    let (mut ids, mut labels) = (Vec::new(), Vec::new());
    for (number, line) in lines(path)?.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let columns: Vec<&str> = line.split('\t').collect();
        let class = match columns[..] {
            [_, _, class] => class.trim().parse::<usize>().ok().filter(|class| (1..=classes).contains(class)),
            _ => None,
        };
        let Some(class) = class else {
            return Err(Error::content(
                path,
                format!("line {}", number + 1),
                format!("text, image and a class from 1 to {classes}, separated by tabs"),
                format!("`{line}`"),
                SOURCE.get,
            ));
        };
        ids.push(columns[0].to_string());
        labels.push(vec![class as u32 - 1]);
    }
    Ok((ids, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_original_features_have_their_known_shape() {
        let Some(root) = crate::test_data("wiki") else { return };
        let dataset = crate::open("wiki", &toml::Table::new(), Some(&root)).unwrap();
        assert_eq!((dataset.train.images.len(), dataset.test.texts.len(), dataset.classes.len()), (2173, 693, 10));
        let image = dataset.train.images.global.as_ref().unwrap();
        let text = dataset.test.texts.global.as_ref().unwrap();
        assert_eq!((image.width(), text.width()), (128, 10));
        for table in [image, text] {
            for row in table.all().unwrap().data.chunks(table.width()) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4, "histograms and proportions sum to 1");
            }
        }
        let held = crate::open("wiki", &toml::toml! { validation = 0.1 }, Some(&root)).unwrap();
        assert_eq!((held.train.images.len(), held.val.as_ref().unwrap().images.len()), (1956, 217));
        assert_ne!(held.checksum, dataset.checksum);
    }

    use crate::mat::tests::{element, write};

    /// A folder of three classes, five documents to train on and three that ask; `labels` go into the MAT-file.
    fn small(folder: &Path, labels: &[(&str, [i32; 2], &[f64])]) -> Result<Dataset> {
        let root = folder.join("wiki");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join("categories.list"), "art\nbiology\nmusic\n").unwrap();
        let list = |classes: &[u32]| -> String {
            classes.iter().enumerate().map(|(i, class)| format!("t{i}\ti{i}\t{class}\n")).collect()
        };
        std::fs::write(root.join("trainset_txt_img_cat.list"), list(&[1, 3, 2, 2, 1])).unwrap();
        std::fs::write(root.join("testset_txt_img_cat.list"), list(&[2, 1, 3])).unwrap();
        let values: Vec<f64> = (0..10).map(f64::from).collect();
        let features = [("tr", 5usize), ("te", 3)].into_iter().flat_map(|(part, rows)| {
            ["I", "T"].map(|side| element(&format!("{side}_{part}"), [rows as i32, 2], &values[..2 * rows]))
        });
        let own = labels.iter().map(|(name, size, values)| element(name, *size, values));
        let elements: Vec<Vec<u8>> = features.chain(own).collect();
        write(&root.join(FEATURES), &elements);
        crate::open("wiki", &toml::Table::new(), Some(folder))
    }

    #[test]
    fn labels_of_the_features_must_be_those_of_the_lists() {
        let folder = tempfile::tempdir().unwrap();
        let message = |labels: &[(&str, [i32; 2], &[f64])]| {
            let text = small(folder.path(), labels).unwrap_err().to_string();
            text.replace(&*folder.path().to_string_lossy(), "DIR")
        };
        assert_eq!(small(folder.path(), &[]).unwrap().train.images.len(), 5);
        // Numbers in a column or a row, or a column a class.
        let (train, test) = ([1., 3., 2., 2., 1.], [2., 1., 3.]);
        let columns = [0., 1., 0., 1., 0., 0., 0., 0., 1.];
        small(folder.path(), &[("L_tr", [5, 1], &train), ("L_te", [3, 3], &columns)]).unwrap();
        small(folder.path(), &[("L_tr", [1, 5], &train), ("L_te", [3, 1], &test)]).unwrap();
        // The rows of the file in another order than its list.
        insta::assert_snapshot!(message(&[("L_tr", [5, 1], &[1., 2., 2., 3., 1.])]), @"DIR/wiki/raw_features.mat, L_tr, row 2: expected class 3, as trainset_txt_img_cat.list has it, found class 2 (2 of 5 rows differ); the rows and the list are in different orders: take both from the same source, or open the MAT-file alone as `features`");
        insta::assert_snapshot!(message(&[("L_te", [3, 1], &[1., 2., 3.])]), @"DIR/wiki/raw_features.mat, L_te, row 1: expected class 2, as testset_txt_img_cat.list has it, found class 1 (2 of 3 rows differ); the rows and the list are in different orders: take both from the same source, or open the MAT-file alone as `features`");
        insta::assert_snapshot!(message(&[("L_te", [3, 3], &[1., 0., 0., 0., 1., 0., 0., 0., 1.])]), @"DIR/wiki/raw_features.mat, L_te, row 1: expected class 2, as testset_txt_img_cat.list has it, found class 1 (2 of 3 rows differ); the rows and the list are in different orders: take both from the same source, or open the MAT-file alone as `features`");
        insta::assert_snapshot!(message(&[("L_tr", [4, 1], &[1., 3., 2., 2.])]), @"DIR/wiki/raw_features.mat, L_tr: expected 5 labels, one a line of trainset_txt_img_cat.list, found 4 labels; take both files from the same source");
        insta::assert_snapshot!(message(&[("L_tr", [5, 1], &[1., 3., 2., 2.5, 1.])]), @"DIR/wiki/raw_features.mat, L_tr, row 4: expected a class from 1 to 3, or a 1 in the column of one class of 3, found 2.5; get raw_features.mat, trainset_txt_img_cat.list, testset_txt_img_cat.list and categories.list from svcl.ucsd.edu/projects/crossmodal and put them into the folder");
        insta::assert_snapshot!(message(&[("L_te", [3, 3], &[0., 1., 0., 1., 1., 0., 0., 0., 1.])]), @"DIR/wiki/raw_features.mat, L_te, row 2: expected a class from 1 to 3, or a 1 in the column of one class of 3, found [1.0, 1.0, 0.0]; get raw_features.mat, trainset_txt_img_cat.list, testset_txt_img_cat.list and categories.list from svcl.ucsd.edu/projects/crossmodal and put them into the folder");
    }

    #[test]
    fn broken_files_are_named() {
        let Some(root) = crate::test_data("wiki") else { return };
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("wiki");
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(root.join("wiki")).unwrap().flatten() {
            std::fs::write(copy.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
        }
        let message = || crate::open("wiki", &toml::Table::new(), Some(folder.path())).unwrap_err().to_string();
        let mat = std::fs::read(copy.join(FEATURES)).unwrap();
        for cut in [0, 64, 200, mat.len() / 2] {
            std::fs::write(copy.join(FEATURES), &mat[..cut]).unwrap();
            assert!(message().contains(FEATURES), "{}", message());
        }
        std::fs::write(copy.join(FEATURES), &mat).unwrap();
        let list = std::fs::read_to_string(copy.join("trainset_txt_img_cat.list")).unwrap();
        std::fs::write(copy.join("trainset_txt_img_cat.list"), list.replacen("\t6", "\t11", 1)).unwrap();
        assert!(message().contains("line 1") && message().contains("class from 1 to 10"), "{}", message());
        let shorter: Vec<&str> = list.lines().skip(1).collect();
        std::fs::write(copy.join("trainset_txt_img_cat.list"), shorter.join("\n")).unwrap();
        assert!(message().contains("I_tr") && message().contains("2173 rows"), "{}", message());
    }
}
