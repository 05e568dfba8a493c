use half::f16;
use npyz::Order;

use super::*;
use crate::{npy::tests::write, test_data};

/// A folder with two training, one development and one test image of two regions, three captions each.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for (name, images) in [("train", 2), ("dev", 1), ("test", 1)] {
            let values: Vec<f32> = (0..images * 2 * 4).map(|i| i as f32 + 1.0).collect();
            write(&folder.path(&format!("{name}_ims.npy")), &[images as u64, 2, 4], Order::C, &values);
            let captions: String = (0..images * 3).map(|i| format!("{name} caption number {i} .\n")).collect();
            folder.text(&format!("{name}_caps.txt"), &captions);
        }
        folder
    }
    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }
    fn text(&self, file: &str, content: &str) {
        std::fs::write(self.path(file), content).unwrap();
    }
    fn open_with(&self, mut options: toml::Table) -> Result<Dataset> {
        options.insert("path".into(), toml::Value::String(".".into()));
        options.entry("min_count").or_insert(toml::Value::Integer(1));
        crate::open("precomp", &options, Some(self.0.path()))
    }
    fn open(&self) -> Result<Dataset> {
        self.open_with(toml::Table::new())
    }
    fn error(&self) -> String {
        let error = self.open().unwrap_err().to_string();
        error.replace(&*self.0.path().to_string_lossy(), "DIR").replace("DIR/./", "DIR/")
    }
}

#[test]
fn a_folder_is_read() {
    let folder = Folder::new();
    folder.text("train_ids.txt", "a.jpg\nb.jpg\n");
    let dataset = folder.open().unwrap();
    let train = &dataset.train;
    assert_eq!(
        (train.images.ids.as_slice(), train.texts.ids[3].as_str()),
        (["a.jpg".into(), "b.jpg".into()].as_slice(), "b.jpg#0")
    );
    assert_eq!(train.pairs.texts_of(1), [3, 4, 5]);
    let fragments = train.images.fragments.as_ref().unwrap();
    assert_eq!((fragments.items(), fragments.fragments(), fragments.width()), (2, 2, 4));
    assert_eq!(fragments.gather(&[1]).unwrap().data, [9., 10., 11., 12., 13., 14., 15., 16.]);
    // Without a file of its own the global vector is the mean of the regions.
    assert_eq!(train.images.global.as_ref().unwrap().gather(&[1]).unwrap().data, [11., 12., 13., 14.]);
    assert_eq!(dataset.words[4..9], [".", "caption", "number", "train", "0"]);
    // "test" and "dev" are in no training caption.
    assert_eq!(dataset.test.texts.tokens.as_ref().unwrap()[0], [1, 3, 5, 6, 8, 4, 2]);
    let checksum = dataset.checksum.clone();
    folder.text("test_caps.txt", "a\nb\nc\n");
    assert_ne!(folder.open().unwrap().checksum, checksum);
}

#[test]
fn global_files_and_half_precision_are_read() {
    let folder = Folder::new();
    for (name, images) in [("train", 2), ("dev", 1), ("test", 1)] {
        let values: Vec<f16> = (0..images * 3).map(|i| f16::from_f32(i as f32 / 4.0)).collect();
        write(&folder.path(&format!("{name}_global.npy")), &[images as u64, 3], Order::C, &values);
    }
    let dataset = folder.open().unwrap();
    assert_eq!(dataset.train.images.global.as_ref().unwrap().gather(&[1]).unwrap().data, [0.75, 1.0, 1.25]);
    assert_eq!(dataset.train.images.fragments.as_ref().unwrap().width(), 4);
}

#[test]
fn images_stored_once_a_caption_are_taken_once() {
    let folder = Folder::new();
    // Ten captions and ten rows: two images five times each.
    let rows: Vec<f32> = (0..10).flat_map(|row| [(row / 5) as f32, 1.0]).collect();
    for name in ["train", "dev", "test"] {
        write(&folder.path(&format!("{name}_ims.npy")), &[10, 2], Order::C, &rows);
        folder.text(&format!("{name}_caps.txt"), &"word\n".repeat(10));
    }
    let dataset = folder.open().unwrap();
    assert_eq!((dataset.train.images.len(), dataset.train.texts.len()), (2, 10));
    assert_eq!(dataset.train.images.global.as_ref().unwrap().all().unwrap().data, [0.0, 1.0, 1.0, 1.0]);
    // Ten different rows: one caption an image.
    let rows: Vec<f32> = (0..20).map(|i| i as f32).collect();
    write(&folder.path("train_ims.npy"), &[10, 2], Order::C, &rows);
    assert_eq!(folder.open().unwrap().train.images.len(), 10);
    let error = folder.open_with(toml::toml! { captions = 5 }).unwrap_err().to_string();
    assert!(error.contains("row 1: expected the row before it again"), "{error}");
}

#[test]
fn wrong_folders_are_refused() {
    let folder = Folder::new();
    folder.text("dev_caps.txt", "one\ntwo\n\nfour\n");
    insta::assert_snapshot!(folder.error(), @"DIR/dev_caps.txt, line 3: expected a caption, found an empty line; write a caption for it, or drop the image with all its captions");
    folder.text("dev_caps.txt", "");
    insta::assert_snapshot!(folder.error(), @"DIR/dev_caps.txt: expected a multiple of the 1 rows of DIR/dev_ims.npy, found 0 captions; write one caption a line, those of an image one behind the other, or set the option `captions`");
    let folder = Folder::new();
    folder.text("train_caps.txt", "one\ntwo\nthree\n");
    insta::assert_snapshot!(folder.error(), @"DIR/train_caps.txt: expected a multiple of the 2 rows of DIR/train_ims.npy, found 3 captions; write one caption a line, those of an image one behind the other, or set the option `captions`");
    std::fs::write(folder.path("train_caps.txt"), b"one\ntwo\xff\n").unwrap();
    insta::assert_snapshot!(folder.error(), @"DIR/train_caps.txt, line 2: expected text in UTF-8, found other bytes; convert it with iconv -t UTF-8");
    let folder = Folder::new();
    write(&folder.path("test_ims.npy"), &[1, 2, 3], Order::C, &[1.0f32; 6]);
    insta::assert_snapshot!(folder.error(), @"DIR/test_ims.npy, header: expected rows of shape [2, 4], as in DIR/train_ims.npy, found [2, 3]; extract the features of every split in the same way");
    write(&folder.path("test_ims.npy"), &[4], Order::C, &[1.0f32; 4]);
    insta::assert_snapshot!(folder.error(), @"DIR/test_ims.npy, header: expected shape [images, width] or [images, regions, width], none of them zero, found [4]; check what wrote the features");
    std::fs::remove_file(folder.path("test_ims.npy")).unwrap();
    assert!(folder.error().starts_with("DIR/test_ims.npy: expected a file, found nothing; put train_ims.npy"));
    let folder = Folder::new();
    write(&folder.path("train_global.npy"), &[2, 3], Order::C, &[1.0f32; 6]);
    insta::assert_snapshot!(folder.error(), @"DIR/train_global.npy: expected global vectors for every split or for none, found some splits without a file SPLIT_global.npy; add the missing files or remove this one");
    let folder = Folder::new();
    folder.text("train_ids.txt", "a\n");
    insta::assert_snapshot!(folder.error(), @"DIR/train_ids.txt: expected one line for each of the 2 images, found 1 lines; write it again, or remove it");
}

#[test]
fn captions_in_any_number_boxes_and_labels_are_read() {
    let folder = Folder::new();
    folder.text("train_counts.txt", "1\n5\n");
    for (name, images) in [("train", 2), ("dev", 1), ("test", 1)] {
        let boxes: Vec<f32> = (0..images * 2).flat_map(|i| [0.0, 0.25, 0.5 + i as f32 / 8.0, 1.0]).collect();
        write(&folder.path(&format!("{name}_boxes.npy")), &[images as u64, 2, 4], Order::C, &boxes);
    }
    folder.text("train_labels.txt", "pets\tdogs\n\n");
    folder.text("dev_labels.txt", "cats\n");
    folder.text("test_labels.txt", "dogs\n");
    let dataset = folder.open().unwrap();
    let train = &dataset.train;
    assert_eq!((train.pairs.texts_of(0), train.pairs.texts_of(1)), ([0].as_slice(), [1, 2, 3, 4, 5].as_slice()));
    assert_eq!(train.texts.ids[5], "train-1#4");
    assert_eq!(train.images.boxes.as_ref().unwrap()[3], [0.0, 0.25, 0.875, 1.0]);
    assert_eq!(dataset.classes, ["cats", "dogs", "pets"]);
    assert_eq!(train.images.labels.as_ref().unwrap().of, [vec![1, 2], vec![]]);
    assert_eq!(train.texts.labels.as_ref().unwrap().of, [vec![1, 2], vec![], vec![], vec![], vec![], vec![]]);
    assert_eq!(dataset.test.images.labels.as_ref().unwrap().of, [[1]]);
    // What the option says goes before.
    let dataset = folder.open_with(toml::toml! { captions = 3 }).unwrap();
    assert_eq!(dataset.train.pairs.texts_of(0), [0, 1, 2]);

    folder.text("train_counts.txt", "1\n4\n");
    insta::assert_snapshot!(folder.error(), @"DIR/train_counts.txt: expected numbers whose sum is the 6 captions of DIR/train_caps.txt, found 5; write both files from the same captions, or remove this one");
    folder.text("train_counts.txt", "6\n0\n");
    insta::assert_snapshot!(folder.error(), @"DIR/train_counts.txt, line 2: expected a number from 1 to 6, found `0`; write both files from the same captions, or remove this one");
    folder.text("train_counts.txt", "6\n");
    insta::assert_snapshot!(folder.error(), @"DIR/train_counts.txt: expected a line for each of the 2 images, found 1 lines; write both files from the same captions, or remove this one");
    folder.text("train_counts.txt", "3\n3\n");
    write(&folder.path("dev_boxes.npy"), &[1, 2, 4], Order::C, &[0.0f32, 0.0, 1.0, 1.0, 0.5, 0.0, 0.5, 1.0]);
    insta::assert_snapshot!(folder.error(), @"DIR/dev_boxes.npy, row 0, region 1: expected 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1, found [0.5, 0.0, 0.5, 1.0]; write the box of each region in fractions of the image, or remove the file");
    write(&folder.path("dev_boxes.npy"), &[2, 4], Order::C, &[0.5f32; 8]);
    insta::assert_snapshot!(folder.error(), @"DIR/dev_boxes.npy, header: expected shape [1, 2, 4], found [2, 4]; write the box of each region in fractions of the image, or remove the file");
    std::fs::remove_file(folder.path("dev_boxes.npy")).unwrap();
    folder.text("dev_labels.txt", "");
    insta::assert_snapshot!(folder.error(), @"DIR/dev_labels.txt: expected a line for each of the 1 images, found 0 lines; write an empty line for an image without a class");
    std::fs::remove_file(folder.path("dev_labels.txt")).unwrap();
    insta::assert_snapshot!(folder.error(), @"DIR/train_labels.txt: expected labels for every split or for none, found some splits without a file SPLIT_labels.txt; add the missing files or remove the others");
}

#[test]
fn numbers_that_are_not_finite_are_found_when_read() {
    let folder = Folder::new();
    let mut values = [1.0f64; 16];
    values[13] = 1e300;
    write(&folder.path("train_ims.npy"), &[2, 2, 4], Order::C, &values);
    let dataset = folder.open().unwrap();
    let error = dataset.train.images.global.as_ref().unwrap().all().unwrap_err().to_string();
    assert!(error.contains("train_ims.npy, row 1, value 5: expected a finite number, found inf"), "{error}");
}

#[test]
fn a_notice_is_read() {
    let folder = Folder::new();
    folder.text("notice.toml", "title = 'Pets'\ncaveat = 'two regions'\n");
    assert_eq!(folder.open().unwrap().notice.title, "Pets");
    folder.text("notice.toml", "titel = 'Pets'\n");
    assert!(folder.error().contains("notice.toml: expected strings title, licence"));
}

#[test]
fn flickr8k_has_its_sizes() {
    let Some(root) = test_data("f8k_precomp") else { return };
    let start = std::time::Instant::now();
    let dataset = crate::open("precomp", &toml::Table::new(), Some(&root)).unwrap();
    println!("opened in {:?}", start.elapsed());
    let sizes = [&dataset.train, dataset.val.as_ref().unwrap(), &dataset.test].map(|s| (s.images.len(), s.texts.len()));
    assert_eq!(sizes, [(6000, 30000), (1000, 5000), (1000, 5000)]);
    assert_eq!(
        (dataset.name.as_str(), dataset.test.images.ids[0].as_str()),
        ("f8k_precomp", "3385593926_d3e9c21170.jpg")
    );
    let images = &dataset.test.images;
    let fragments = images.fragments.as_ref().unwrap();
    assert_eq!((fragments.fragments(), fragments.width()), (36, 256));
    assert_eq!(images.global.as_ref().unwrap().width(), 1280);
    assert!(fragments.gather(&[0, 999]).unwrap().data.iter().any(|&value| value != 0.0));
    println!("{} words", dataset.words.len());
}

/// A vector a caption is the text's own representation, and must be there for every split.
#[test]
fn vectors_of_captions_are_read() {
    let folder = Folder::new();
    let vectors = |name: &str, captions: usize, width: usize| {
        let values: Vec<f32> = (0..captions * width).map(|i| i as f32).collect();
        let shape = [captions as u64, width as u64];
        write(&folder.path(&format!("{name}_caps_vectors.npy")), &shape, Order::C, &values);
    };
    let checksum = folder.open().unwrap().checksum;
    assert!(folder.open().unwrap().train.texts.global.is_none());
    vectors("train", 6, 5);
    assert!(folder.error().starts_with(
        "DIR/train_caps_vectors.npy: expected vectors of captions, of one width, for every split or for none, found some splits without"
    ));
    vectors("dev", 3, 5);
    vectors("test", 3, 4);
    assert!(folder.error().contains("or with another width"));
    vectors("test", 3, 5);
    let dataset = folder.open().unwrap();
    let texts = dataset.train.texts.global.as_ref().unwrap();
    assert_eq!((texts.items(), texts.fragments(), texts.width()), (6, 1, 5));
    assert_eq!(texts.gather(&[4]).unwrap().data, [20.0, 21.0, 22.0, 23.0, 24.0]);
    assert_ne!(dataset.checksum, checksum);
    vectors("dev", 4, 5);
    assert_eq!(
        folder.error(),
        "DIR/dev_caps_vectors.npy, header: expected shape [3, width], a row for each caption, found [4, 5]; write a vector for each line \
         of the captions, or remove the file"
    );
}
