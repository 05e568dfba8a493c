use std::path::Path;

use npyz::Order;

use super::{names::*, *};
use crate::{
    mat::tests::{element, write},
    npy::tests::write as write_npy,
    random::Seed,
};

/// An array of a MAT-file from its rows.
fn array(name: &str, rows: &[&[f64]]) -> Vec<u8> {
    let cols = rows[0].len();
    let columns: Vec<f64> = (0..cols).flat_map(|j| rows.iter().map(move |row| row[j])).collect();
    element(name, [rows.len() as i32, cols as i32], &columns)
}

/// Six items of two classes, the last two of none: image `[i, -i]`, text `[10 i]`.
fn whole() -> [Vec<u8>; 3] {
    let images: Vec<[f64; 2]> = (0..6).map(|i| [f64::from(i), f64::from(-i)]).collect();
    let texts: Vec<[f64; 1]> = (0..6).map(|i| [f64::from(10 * i)]).collect();
    let labels: [&[f64]; 6] = [&[1., 0.], &[0., 1.], &[1., 1.], &[0., 1.], &[0., 0.], &[0., 0.]];
    [
        array("IAll", &images.iter().map(<[f64; 2]>::as_slice).collect::<Vec<_>>()),
        array("TAll", &texts.iter().map(<[f64; 1]>::as_slice).collect::<Vec<_>>()),
        array("LAll", &labels),
    ]
}

fn open(root: &Path, options: toml::Table) -> Result<Dataset> {
    crate::open("features", &options, Some(root))
}

fn message(root: &Path, options: toml::Table) -> String {
    open(root, options).unwrap_err().to_string().replace(&*root.to_string_lossy(), "DIR")
}

fn values(table: &Option<FeatureTable>) -> Vec<f32> {
    table.as_ref().unwrap().all().unwrap().data
}

fn classes_of(collection: &Collection) -> &[Vec<u32>] {
    assert_eq!(collection.images.labels, collection.texts.labels);
    &collection.images.labels.as_ref().unwrap().of
}

#[test]
fn names_are_known_whatever_their_case() {
    let all = |role| Some((role, Slice::All));
    for name in ["IAll", "XAll", "images", "image_all", "Img"] {
        assert_eq!(known(name), all(Role::Images), "{name}");
    }
    for name in ["TAll", "YAll", "tags", "txt"] {
        assert_eq!(known(name), all(Role::Texts), "{name}");
    }
    assert_eq!(known("L_tr"), Some((Role::Labels, Slice::Train)));
    assert_eq!(known("T_te"), Some((Role::Texts, Slice::Test)));
    assert_eq!(known("I_db"), Some((Role::Images, Slice::Database)));
    assert_eq!(known("labels_query"), Some((Role::Labels, Slice::Test)));
    for name in ["I", "X_tr", "Y", "imagesize", "param", "__header__", "L_", ""] {
        assert_eq!(known(name), None, "{name}");
    }
}

#[test]
fn the_first_or_the_last_ask_all_others_are_the_database() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("a.mat"), &whole());
    let options = toml::toml! { path = "a.mat" split = "last" queries = 2 train = 3 };
    let last = open(root.path(), options).unwrap();
    let database = last.database.as_ref().unwrap();
    assert_eq!(values(&last.train.images.global), [0., 0., 1., -1., 2., -2.]);
    assert_eq!(values(&database.texts.global), [0., 10., 20., 30.]);
    assert_eq!(values(&last.test.texts.global), [40., 50.]);
    // Rows of zeros have no class; they stay.
    assert_eq!(classes_of(&last.test), [Vec::<u32>::new(), Vec::new()]);
    assert_eq!(classes_of(database), [vec![0], vec![1], vec![0, 1], vec![1]]);
    assert_eq!((last.classes.len(), last.test.images.ids[0].as_str()), (2, "item-4"));
    // An item is the same item in the database and in training.
    assert_eq!(last.train.images.ids, database.images.ids[..3]);

    let options = toml::toml! { path = "a.mat" split = "first" queries = 1 validation = 0.4 };
    let first = open(root.path(), options).unwrap();
    assert_eq!(values(&first.test.texts.global), [0.]);
    let sizes = [&first.train, first.val.as_ref().unwrap(), first.database.as_ref().unwrap()].map(|c| c.images.len());
    assert_eq!(sizes, [3, 2, 5]);
    assert_ne!(first.checksum, last.checksum);
}

#[test]
fn the_parts_of_a_file_are_taken_as_they_are() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("features");
    std::fs::create_dir(&path).unwrap();
    // One number an item is its class; 1 is the least here, so that it is the first.
    let parts = [("tr", vec![[1.], [3.], [2.]]), ("te", vec![[3.]]), ("db", vec![[1.], [3.], [2.], [1.]])];
    let arrays: Vec<Vec<u8>> = parts
        .iter()
        .flat_map(|(end, labels)| {
            let rows: Vec<&[f64]> = labels.iter().map(<[f64; 1]>::as_slice).collect();
            ["I", "T", "L"].map(|letter| array(&format!("{letter}_{end}"), &rows))
        })
        .collect();
    write(&path.join("a.mat"), &arrays);
    let given = open(root.path(), toml::Table::new()).unwrap();
    assert_eq!(classes_of(&given.train), [vec![0], vec![2], vec![1]]);
    assert_eq!(classes_of(&given.test), [vec![2]]);
    assert_eq!(given.database.as_ref().unwrap().images.len(), 4);
    insta::assert_snapshot!(message(root.path(), toml::toml! { queries = 7 }), @"DIR/features, queries: expected 7 items, found 1; set queries = 0 to take what there is, or choose another `split`");
    insta::assert_snapshot!(message(root.path(), toml::toml! { split = "random" queries = 1 }), @r#"DIR/features: expected images of all items, an array such as IAll, found ["I_tr", "T_tr", "L_tr", "I_te", "T_te", "L_te", "I_db", "T_db", "L_db"]; name the array by the option `images`; a file with parts needs split = "given""#);
    // Without a database the training items are searched.
    write(&path.join("a.mat"), &arrays[..6]);
    let given = open(root.path(), toml::Table::new()).unwrap();
    assert!(given.database.is_none());
    assert_eq!(given.split(crate::Split::Database).unwrap().images.len(), 3);
    let found = crate::inspect(&path).unwrap();
    assert_eq!(found.kind, "features folder");
    assert_eq!(found.content[0], "I_tr [3, 1] double: by its name images of training items");
    assert!(crate::inspect(&path.join("a.mat")).unwrap().next.contains("data audit features"));
}

#[test]
fn axes_are_never_guessed() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.mat");
    let [images, texts, _] = whole();
    let labels = array("LAll", &[&[1., 0., 1., 0., 0., 0.], &[0., 1., 1., 1., 0., 0.]]);
    write(&path, &[images, texts, labels]);
    let options = || toml::toml! { path = "a.mat" split = "last" queries = 2 };
    insta::assert_snapshot!(message(root.path(), options()), @r#"DIR/a.mat: expected a row an item, as many in images, texts and labels, found IAll [6, 2] double, TAll [6, 1] double, LAll [2, 6] double; with other axes there are 6 items: set transposed = "labels""#);
    let mut turned = options();
    turned.insert("transposed".into(), "labels".into());
    let found = open(root.path(), turned).unwrap();
    assert_eq!(classes_of(found.database.as_ref().unwrap()), [vec![0], vec![1], vec![0, 1], vec![1]]);
    let mut unknown = options();
    unknown.insert("transposed".into(), "label".into());
    assert!(message(root.path(), unknown).contains("did you mean `labels`?"));
    // All of them, as numpy's users write arrays for MATLAB.
    write(
        &path,
        &[
            array("IAll", &[&[0., 1., 2.], &[3., 4., 5.]]),
            array("TAll", &[&[6., 7., 8.]]),
            array("LAll", &[&[1., 1., 0.], &[0., 0., 1.]]),
        ],
    );
    let whole_file = || toml::toml! { path = "a.mat" split = "first" queries = 1 };
    assert!(message(root.path(), whole_file()).ends_with("set transposed = \"images,texts,labels\""));
    let mut turned = whole_file();
    turned.insert("transposed".into(), true.into());
    let found = open(root.path(), turned).unwrap();
    assert_eq!(values(&found.database.as_ref().unwrap().images.global), [1., 4., 2., 5.]);
    assert_eq!(classes_of(&found.test), [vec![0]]);
    // Nothing agrees.
    write(&path, &[whole()[0].clone(), whole()[1].clone(), array("LAll", &[&[1., 0., 1.]])]);
    insta::assert_snapshot!(message(root.path(), options()), @"DIR/a.mat: expected a row an item, as many in images, texts and labels, found IAll [6, 2] double, TAll [6, 1] double, LAll [1, 3] double; take the arrays from the same source, or name them by the options images, texts and labels");
}

#[test]
fn names_that_are_given_come_first_and_two_of_a_kind_are_told() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.mat");
    let [images, texts, labels] = whole();
    let other = array("XAll", &[[7.].as_slice(); 6]);
    write(&path, &[images, other, texts, labels]);
    let options = || toml::toml! { path = "a.mat" split = "last" queries = 2 };
    insta::assert_snapshot!(message(root.path(), options()), @"DIR/a.mat: expected one array of images, found IAll of DIR/a.mat and XAll of DIR/a.mat; name one by the option `images`");
    let mut named = options();
    named.insert("images".into(), "XAll".into());
    assert_eq!(values(&open(root.path(), named.clone()).unwrap().test.images.global), [7., 7.]);
    named.insert("images".into(), "Z".into());
    insta::assert_snapshot!(message(root.path(), named), @r#"DIR/a.mat: expected images of all items, an array such as Z, found ["IAll", "XAll", "TAll", "LAll"]; name the array by the option `images`; a file with parts needs split = "given""#);
}

#[test]
fn labels_in_the_file_come_before_others_which_must_be_the_same() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("features");
    std::fs::create_dir(&path).unwrap();
    write(&path.join("a.mat"), &whole());
    let options = || toml::toml! { split = "last" queries = 2 };
    let mut beside = [1u8, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 0];
    write_npy(&path.join("labels.npy"), &[6, 2], Order::C, &beside);
    let same = open(root.path(), options()).unwrap();
    assert_eq!(classes_of(same.database.as_ref().unwrap()), [vec![0], vec![1], vec![0, 1], vec![1]]);
    beside[11] = 1;
    write_npy(&path.join("labels.npy"), &[6, 2], Order::C, &beside);
    insta::assert_snapshot!(message(root.path(), options()), @"DIR/features/labels.npy, labels: expected the labels `LAll` of DIR/features/a.mat, found others; remove the wrong ones, or name the right ones by the option `labels`");
}

#[test]
fn npy_files_are_a_dataset_too() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("features");
    std::fs::create_dir(&path).unwrap();
    write_npy(&path.join("images.npy"), &[4, 2], Order::C, &[0f32, 1., 2., 3., 4., 5., 6., 7.]);
    // The first axis varies fastest: columns 1 2 3 4 and 5 6 7 8.
    write_npy(&path.join("tags.npy"), &[4, 2], Order::Fortran, &[1i32, 2, 3, 4, 5, 6, 7, 8]);
    write_npy(&path.join("labels.npy"), &[4], Order::C, &[0i64, 2, 1, 1]);
    let dataset = open(root.path(), toml::toml! { split = "first" queries = 1 }).unwrap();
    assert_eq!(values(&dataset.train.images.global), [2., 3., 4., 5., 6., 7.]);
    assert_eq!(values(&dataset.train.texts.global), [2., 6., 3., 7., 4., 8.]);
    assert_eq!((classes_of(&dataset.train), dataset.classes.len()), ([vec![2], vec![1], vec![1]].as_slice(), 3));
    write_npy(&path.join("labels.npy"), &[4], Order::C, &[0.5f32, 2., 1., 1.]);
    let text = message(root.path(), toml::toml! { split = "first" queries = 1 });
    assert!(text.contains("labels, row 0: expected the number of a class, from 0 to 65535, found 0.5"), "{text}");
}

#[test]
fn each_class_gives_as_many_as_in_the_code_of_djsrh() {
    // 24 classes of one class an item, 600 of the first and 300 of each other: 160 and 400, then 80 and 200.
    let of: Vec<Vec<u32>> = (0..600 + 23 * 300).map(|i: u32| vec![i.saturating_sub(300) / 300]).collect();
    let labels = Labels { classes: 24, of };
    let rows = split::made(Path::new("a"), "djsrh", &labels, [2000, 5000], Seed(1)).unwrap();
    let counts = |rows: &[usize]| {
        let mut counts = [0; 24];
        rows.iter().for_each(|&row| counts[labels.of[row][0] as usize] += 1);
        counts
    };
    let like = |first: usize, each: usize| std::array::from_fn(|class| if class == 0 { first } else { each });
    assert_eq!((counts(&rows.test), counts(&rows.train)), (like(160, 80), like(400, 200)));
    assert_eq!(rows.database.len(), 7500 - 2000);
    assert!(rows.train.iter().all(|row| rows.database.binary_search(row).is_ok()));
    assert!(rows.test.iter().all(|row| rows.database.binary_search(row).is_err()));
    let again = |seed| split::made(Path::new("a"), "djsrh", &labels, [2000, 5000], Seed(seed)).unwrap().test;
    assert_eq!(again(1), rows.test);
    assert_ne!(again(2), rows.test);
    // Ten classes share evenly. Classes of 300 have 100 left for training: 400 more of the database fill up.
    let of: Vec<Vec<u32>> = (0..3000).map(|i: u32| vec![i / 300]).chain((0..1000).map(|_| vec![])).collect();
    let labels = Labels { classes: 10, of };
    let rows = split::made(Path::new("a"), "djsrh", &labels, [2000, 1400], Seed(1));
    let rows = rows.unwrap();
    let tagged = rows.train.iter().filter(|&&row| row < 3000).count();
    assert_eq!((rows.test.len(), rows.train.len(), rows.database.len()), (2000, 1400, 2000));
    assert!(tagged >= 1000, "{tagged}");
    let error = |wanted| split::made(Path::new("a"), "djsrh", &labels, wanted, Seed(1)).unwrap_err().to_string();
    insta::assert_snapshot!(error([3100, 100]), @"a, labels: expected 310 items of class 1 that no class before it took, found 300; ask for fewer queries, or choose another `split`");
    insta::assert_snapshot!(error([2001, 100]), @"queries: expected a multiple of 10 classes or of 11, found 2001; choose such a number, or another `split`");
}

#[test]
fn numbers_that_do_not_fit_are_told() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("a.mat"), &whole());
    let text = |queries: i64, train: i64| {
        message(root.path(), toml::toml! { path = "a.mat" split = "random" queries = queries train = train })
    };
    insta::assert_snapshot!(text(0, 0), @"queries: expected from 1 to 5 items that ask, of 6, found 0; set the option `queries`");
    insta::assert_snapshot!(text(6, 0), @"queries: expected from 1 to 5 items that ask, of 6, found 6; set the option `queries`");
    insta::assert_snapshot!(text(2, 5), @"train: expected at most 4 items, all but the queries, found 5; lower the option `train`, or set it to 0 for all");
    for (name, said) in [("mirflickr25k", "expected 20015 items, found 6"), ("coco", "expected 122218 items, found 6")]
    {
        let options = toml::toml! { path = "a.mat" split = "last" queries = 2 train = 3 };
        let error = crate::open(name, &options, Some(root.path())).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let error = crate::open("nuswide10", &toml::Table::new(), Some(root.path())).unwrap_err().to_string();
    assert!(error.contains("National University of Singapore"), "{error}");
}

#[test]
fn hdf5_whole_and_cut_off() {
    let root = tempfile::tempdir().unwrap();
    let whole = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/v73-deflate.mat")).unwrap();
    std::fs::write(root.path().join("a.mat"), &whole).unwrap();
    let options =
        toml::toml! { path = "a.mat" split = "first" queries = 2 images = "I_tr" texts = "T_tr" labels = "L_tr" };
    let dataset = open(root.path(), options.clone()).unwrap();
    assert_eq!(values(&dataset.test.images.global), [-1., -0.75, -0.5, -0.25, 0., 0.25]);
    assert_eq!(classes_of(dataset.database.as_ref().unwrap()), [vec![], vec![0, 1], vec![]]);
    for end in [0, 7, 600, 5000, whole.len() - 1] {
        std::fs::write(root.path().join("a.mat"), &whole[..end]).unwrap();
        let text = message(root.path(), options.clone());
        assert!(text.contains("DIR/a.mat"), "cut at {end}: {text}");
    }
}

#[test]
fn the_wikipedia_set_is_the_same_by_either_way() {
    let Some(root) = crate::test_data("wiki") else { return };
    let wiki = crate::open("wiki", &toml::Table::new(), Some(&root)).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let folder = copy.path().join("features");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(root.join("wiki/raw_features.mat"), folder.join("raw_features.mat")).unwrap();
    for (name, part) in [("L_tr", &wiki.train), ("L_te", &wiki.test)] {
        // Classes from 1, as the list files have them.
        let numbers: Vec<u8> = classes_of(part).iter().map(|of| of[0] as u8 + 1).collect();
        write_npy(&folder.join(format!("{name}.npy")), &[numbers.len() as u64, 1], Order::C, &numbers);
    }
    let found = open(copy.path(), toml::Table::new()).unwrap();
    assert_eq!(found.classes.len(), 10);
    for (a, b) in [(&found.train, &wiki.train), (&found.test, &wiki.test)] {
        assert_eq!(values(&a.images.global), values(&b.images.global));
        assert_eq!(values(&a.texts.global), values(&b.texts.global));
        assert_eq!(classes_of(a), classes_of(b));
    }
    assert_eq!(crate::inspect(&folder).unwrap().kind, "features folder");
}
