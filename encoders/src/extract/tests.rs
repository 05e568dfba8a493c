use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use xmbench_datasets::Picture;

use super::*;
use crate::{
    encoder::{Encoded, EncodedText, Recipe, TextRecipe},
    picture::Fit,
};

/// Sums of colours, whole and in four cells; counts what it is given.
struct Sums {
    recipe: Recipe,
    seen: AtomicUsize,
}

impl Sums {
    fn new(grid: usize) -> Self {
        let recipe = Recipe {
            encoder: "sums".into(),
            side: 4,
            fit: Fit::Stretch,
            pixels: "as they are".into(),
            width: 3,
            grid,
            region_width: if grid > 0 { 3 } else { 0 },
            files: std::collections::BTreeMap::new(),
        };
        Self { recipe, seen: AtomicUsize::new(0) }
    }
}

impl Encoder for Sums {
    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn prepare(&self, picture: &Picture) -> Seen {
        let values = crate::picture::resize(picture, Fit::Stretch, self.recipe.grid.max(1));
        Seen { width: picture.width, height: picture.height, values }
    }

    fn encode_seen(&self, seen: &[Seen]) -> Result<Vec<Encoded>> {
        self.seen.fetch_add(seen.len(), Ordering::Relaxed);
        let grid = self.recipe.grid;
        let encoded = |seen: &Seen| {
            let mean = |channel| {
                let values = seen.values.iter().skip(channel).step_by(3);
                values.sum::<f32>() / (seen.values.len() / 3) as f32
            };
            let edge = |at: usize| at as f32 / grid as f32;
            let boxes = (0..grid * grid).map(|i| [i % grid, i / grid, i % grid + 1, i / grid + 1].map(edge)).collect();
            let regions = if grid > 0 { seen.values.clone() } else { Vec::new() };
            Encoded { global: (0..3).map(mean).collect(), regions, boxes }
        };
        Ok(seen.iter().map(encoded).collect())
    }
}

/// Stops behind so many chunks, and remembers what it was told.
#[derive(Default)]
struct Told {
    chunks: Option<usize>,
    told: Mutex<Vec<Progress>>,
}

impl Watch for Told {
    fn progress(&self, at: Progress) {
        self.told.lock().unwrap().push(at);
    }
    fn stopped(&self) -> bool {
        self.chunks.is_some_and(|chunks| self.told.lock().unwrap().len() >= chunks)
    }
}

/// A folder of pictures of one colour each, with captions.
struct Place(tempfile::TempDir);

const NEARLY_EQUAL: Drawn = Drawn { seed: 1, val: 0.1, test: 0.1, near: 0.9999 };

/// Pictures: two chunks and a little more.
const PICTURES: usize = 2 * CHUNK + 9;

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.images()).unwrap();
        let mut captions = String::from("image,caption,label\n");
        for i in 0..PICTURES {
            place.picture(i, [(i * 37 % 256) as u8, (i * 101 % 256) as u8, (i / 2) as u8]);
            for number in 0..1 + i % 3 {
                captions += &format!("{i}.png,picture {i} said {number},{}\n", ["even", "odd"][i % 2]);
            }
        }
        fs::write(place.images().join("captions.csv"), captions).unwrap();
        place
    }
    fn images(&self) -> PathBuf {
        self.0.path().join("images")
    }
    fn picture(&self, i: usize, colour: [u8; 3]) {
        let image = image::RgbImage::from_pixel(5, 3, image::Rgb(colour));
        image.save(self.images().join(format!("{i}.png"))).unwrap();
    }
    fn job(&self, out: &str) -> Job {
        Job {
            images: self.images(),
            captions: Vec::new(),
            lists: Vec::new(),
            // Three colours point nearly the same way more often than the vectors of a network.
            drawn: Some(NEARLY_EQUAL),
            limit: Limit::default(),
            precision: Precision::F32,
            out: self.0.path().join(out),
            fresh: false,
            notice: Notice::default(),
        }
    }
    fn done(&self, job: &Job, encoder: &Sums) -> Manifest {
        match extract(job, encoder, "weights", &Told::default()).unwrap() {
            End::Done(manifest) => *manifest,
            other => panic!("{other:?}"),
        }
    }
    fn error(&self, job: &Job) -> String {
        let error = extract(job, &Sums::new(2), "weights", &Told::default()).err().unwrap().to_string();
        error.replace(&*self.0.path().to_string_lossy(), "DIR")
    }
    /// Every file of a folder, by name.
    fn files(&self, out: &str) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(self.0.path().join(out)).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
    fn open(&self, out: &str) -> xmbench_datasets::Dataset {
        let mut options = toml::Table::new();
        options.insert("path".into(), ".".into());
        xmbench_datasets::open("precomp", &options, Some(&self.0.path().join(out))).unwrap()
    }
}

#[test]
fn a_folder_of_pictures_becomes_a_dataset() {
    let place = Place::new();
    let manifest = place.done(&place.job("out"), &Sums::new(2));
    assert_eq!(
        manifest.splits["train"].images + manifest.splits["dev"].images + manifest.splits["test"].images,
        PICTURES
    );
    assert_eq!(
        manifest.splits.values().map(|sizes| sizes.captions).sum::<usize>(),
        (0..PICTURES).map(|i| 1 + i % 3).sum::<usize>()
    );
    let dataset = place.open("out");
    assert_eq!(dataset.classes, ["even", "odd"]);
    assert_eq!(dataset.notice.title, "images, encoded by sums");
    assert!(dataset.notice.caveat.contains("2x2 grid cells, not detector boxes"));
    for (_, collection) in dataset.splits() {
        let images = &collection.images;
        let (global, regions) = (images.global.as_ref().unwrap(), images.fragments.as_ref().unwrap());
        assert_eq!((global.width(), regions.fragments(), regions.width()), (3, 4, 3));
        for (item, id) in images.ids.iter().enumerate() {
            let i: usize = id.strip_suffix(".png").unwrap().parse().unwrap();
            let colour = [(i * 37 % 256) as f32, (i * 101 % 256) as f32, (i / 2) as f32];
            let near = |found: &[f32]| found.iter().zip(&colour).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(near(&global.gather(&[item]).unwrap().data), "{id}");
            assert!(regions.gather(&[item]).unwrap().data.chunks(3).all(near), "{id}");
            assert_eq!(images.boxes.as_ref().unwrap()[item * 4 + 2], [0.0, 0.5, 0.5, 1.0]);
            let texts = collection.pairs.texts_of(item);
            assert_eq!(texts.len(), 1 + i % 3);
            let raw = collection.texts.raw.as_ref().unwrap();
            assert_eq!(raw[texts[texts.len() - 1] as usize], format!("picture {i} said {}", i % 3));
            assert_eq!(images.labels.as_ref().unwrap().of[item], [(i % 2) as u32]);
        }
    }
    // Near duplicates are in one split: an audit with the same measure finds none.
    let found = xmbench_datasets::audit(&dataset, &[].into()).unwrap();
    assert!(found.iter().all(|finding| finding.check != "near-duplicates"), "{found:?}");
}

#[test]
fn again_on_other_threads_and_behind_an_interruption_the_bits_are_the_same() {
    let place = Place::new();
    fs::write(place.images().join("7.png"), "no picture").unwrap();
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let mut job = place.job("one");
    job.precision = Precision::F16;
    pool(1).install(|| place.done(&job, &Sums::new(2)));
    let first = place.files("one");
    assert_eq!(first.len(), 3 * 7 + 2);
    job.out = place.0.path().join("two");
    pool(4).install(|| place.done(&job, &Sums::new(2)));
    assert_eq!(place.files("two"), first);
    // Stopped behind each chunk, and then killed in the middle of writing one.
    job.out = place.0.path().join("three");
    for chunk in 1..=2 {
        let told = Told { chunks: Some(chunk), ..Told::default() };
        let end = extract(&job, &Sums::new(2), "weights", &told).unwrap();
        let done = chunk * CHUNK;
        assert!(matches!(end, End::Stopped { done: found, total: PICTURES } if found == done), "{end:?}");
    }
    let torn = job.out.join(WORK).join("chunks/00000001");
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let encoder = Sums::new(2);
    place.done(&job, &encoder);
    // The torn chunk and the one that was not begun.
    assert_eq!(encoder.seen.into_inner(), CHUNK + 9);
    assert_eq!(place.files("three"), first);
    let end = extract(&job, &Sums::new(2), "weights", &Told::default()).unwrap();
    assert!(matches!(end, End::Already(_)));
}

#[test]
fn a_picture_that_changes_meanwhile_is_encoded_again() {
    let place = Place::new();
    let job = place.job("out");
    let told = Told { chunks: Some(2), ..Told::default() };
    extract(&job, &Sums::new(0), "weights", &told).unwrap();
    image::RgbImage::from_pixel(50, 30, image::Rgb([9, 8, 7])).save(place.images().join("3.png")).unwrap();
    let encoder = Sums::new(0);
    place.done(&job, &encoder);
    assert_eq!(encoder.seen.into_inner(), CHUNK + 9);
    let dataset = place.open("out");
    let found = dataset.splits().find_map(|(_, collection)| {
        let item = collection.images.ids.iter().position(|id| id == "3.png")?;
        Some(collection.images.global.as_ref()?.gather(&[item]).unwrap().data)
    });
    assert!(found.unwrap().iter().zip([9.0, 8.0, 7.0]).all(|(found, planted)| (found - planted).abs() < 1e-3));
}

#[test]
fn bad_pictures_are_named_rows() {
    let place = Place::new();
    let at = |name: &str| place.images().join(name);
    fs::write(at("0.png"), "no picture").unwrap();
    let whole = fs::read(at("1.png")).unwrap();
    fs::write(at("1.png"), &whole[..whole.len() - 20]).unwrap();
    fs::remove_file(at("2.png")).unwrap();
    fs::remove_file(at("3.png")).unwrap();
    fs::create_dir(at("3.png")).unwrap();
    image::RgbImage::new(60, 50).save(at("4.png")).unwrap();
    let outside = place.0.path().join("outside.png");
    fs::copy(at("6.png"), &outside).unwrap();
    fs::remove_file(at("5.png")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&outside, at("5.png")).unwrap();
    let mut job = place.job("out");
    job.limit = Limit { pixels: 2999 };
    let told = Told::default();
    let End::Done(manifest) = extract(&job, &Sums::new(1), "weights", &told).unwrap() else {
        panic!("it goes to the end")
    };
    let reasons: Vec<&str> = manifest.skipped.iter().map(|skipped| skipped.reason.as_str()).collect();
    let images: Vec<&str> = manifest.skipped.iter().map(|skipped| skipped.image.as_str()).collect();
    assert_eq!(images, ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]);
    assert_eq!(reasons[0], "expected a PNG, JPEG or WebP picture, found another file");
    assert!(reasons[1].starts_with("expected a whole Png picture, found that "), "{}", reasons[1]);
    assert!(reasons[2].starts_with("cannot be read: "), "{}", reasons[2]);
    assert_eq!(reasons[3], "expected a regular file, found a folder");
    assert!(
        reasons[4].starts_with("expected at most 2999 pixels, found 60 x 50 = 3000 in the header"),
        "{}",
        reasons[4]
    );
    assert!(
        reasons[5].starts_with("expected a file within the folder of pictures, found a link to "),
        "{}",
        reasons[5]
    );
    let at = |done| Progress { done, total: PICTURES, skipped: 6, fresh: done };
    assert_eq!(*told.told.lock().unwrap(), [64, 128, PICTURES].map(at));
    assert_eq!(manifest.splits.values().map(|sizes| sizes.images).sum::<usize>(), PICTURES - 6);
}

#[test]
fn given_splits_are_kept_and_what_is_in_none_is_left_out() {
    let place = Place::new();
    let list = |name: &str, numbers: std::ops::Range<usize>| {
        let path = place.0.path().join(name);
        fs::write(&path, numbers.map(|i| format!("{i}.png\n")).collect::<String>()).unwrap();
        path
    };
    let mut job = place.job("out");
    job.drawn = None;
    job.lists = vec![("train".into(), list("a", 0..100)), ("test".into(), list("b", 100..120))];
    let manifest = place.done(&job, &Sums::new(1));
    assert_eq!((manifest.splits["train"].images, manifest.splits["test"].images), (100, 20));
    assert_eq!((manifest.left_out, manifest.splits.len(), manifest.groups), (PICTURES - 120, 2, None));
    let dataset = place.open("out");
    assert!(dataset.val.is_none());
    assert_eq!(dataset.test.images.ids[0], "100.png");
    // The same folder, other settings.
    job.lists.clear();
    job.drawn = Some(NEARLY_EQUAL);
    assert!(
        place
            .error(&job)
            .starts_with("DIR/out: expected a folder without features, found train_ims.npy of other pictures")
    );
    job.fresh = true;
    let manifest = place.done(&job, &Sums::new(0));
    assert_eq!(manifest.splits.len(), 3);
    // What the new features do not have is gone.
    let names: Vec<String> = place.files("out").into_iter().map(|(name, _)| name).collect();
    assert!(!names.contains(&"train_boxes.npy".into()) && names.contains(&"dev_ims.npy".into()), "{names:?}");
}

#[test]
fn what_cannot_become_a_dataset_is_refused() {
    let place = Place::new();
    let mut job = place.job("out");
    let drawn = Drawn::default();
    job.drawn = Some(Drawn { test: 0.0, ..drawn });
    assert!(place.error(&job).starts_with("val, test: expected shares"));
    job.drawn = Some(Drawn { near: 1.5, ..drawn });
    assert_eq!(place.error(&job), "near: expected a cosine from 0 to 1, found 1.5; 0.95 is usual");
    // All pictures are near duplicates but a black one, whose vector points nowhere: no group fits into the test split.
    place.picture(0, [1, 2, 3]);
    job.drawn = Some(Drawn { near: 0.0, ..drawn });
    assert!(
        place.error(&job).starts_with("DIR/images: expected pictures in the split test, found none of 137 pictures")
    );
    job.drawn = None;
    for i in 0..PICTURES {
        fs::write(place.images().join(format!("{i}.png")), "").unwrap();
    }
    job.out = place.0.path().join("other");
    assert!(place.error(&job).starts_with("DIR/images: expected a picture that can be used, found 0.png: expected"));
    // Another one writes there.
    let work = job.out.join(WORK);
    let _held = lock(&work).unwrap();
    assert!(
        place.error(&job).starts_with("DIR/other/.extract: expected a folder of its own, found another extraction")
    );
}

/// A network for texts: length of a caption, number of its words, and one.
struct Counts {
    recipe: TextRecipe,
    read: AtomicUsize,
}

impl Counts {
    fn new() -> Self {
        let recipe = TextRecipe {
            encoder: "counts".into(),
            length: 9,
            width: 3,
            token_width: 1,
            weights_sha256: "none".into(),
            files: std::collections::BTreeMap::new(),
        };
        Self { recipe, read: AtomicUsize::new(0) }
    }
}

impl TextEncoder for Counts {
    fn recipe(&self) -> &TextRecipe {
        &self.recipe
    }

    fn encode_texts(&self, texts: &[&str]) -> Result<Vec<EncodedText>> {
        self.read.fetch_add(texts.len(), Ordering::Relaxed);
        let one = |text: &&str| EncodedText {
            vector: vec![text.len() as f32, text.split(' ').count() as f32, 1.0],
            tokens: vec![1.0; 2],
        };
        Ok(texts.iter().map(one).collect())
    }
}

/// Sums, and counts of the captions beside them.
struct Both(Sums, Counts);

impl Encoder for Both {
    fn recipe(&self) -> &Recipe {
        self.0.recipe()
    }
    fn prepare(&self, picture: &Picture) -> Seen {
        self.0.prepare(picture)
    }
    fn encode_seen(&self, seen: &[Seen]) -> Result<Vec<Encoded>> {
        self.0.encode_seen(seen)
    }
    fn texts(&self) -> Option<&dyn TextEncoder> {
        Some(&self.1)
    }
}

/// Captions become vectors in the order of their lines; a run that is stopped among them goes on behind those that are read.
#[test]
fn captions_become_vectors() {
    let place = Place::new();
    let captions: usize = (0..PICTURES).map(|i| 1 + i % 3).sum();
    let job = place.job("out");
    let counts = Counts::new();
    let first: usize = (0..CHUNK).map(|i| 1 + i % 3).sum();

    /// Stops behind the first part of the captions.
    #[derive(Default)]
    struct Once(AtomicUsize);
    impl Watch for Once {
        fn progress(&self, _: Progress) {}
        fn read(&self, captions: usize, _: usize, of: usize) {
            assert_eq!(of, 3);
            self.0.store(captions, Ordering::Relaxed);
        }
        fn stopped(&self) -> bool {
            self.0.load(Ordering::Relaxed) > 0
        }
    }
    let sums = Sums::new(2);
    let End::Stopped { .. } = extract_with(&job, &sums, "weights", Some(&counts), &Once::default()).unwrap() else {
        panic!("it was told to stop");
    };
    assert_eq!(counts.read.load(Ordering::Relaxed), first);
    let end = extract_with(&job, &sums, "weights", Some(&counts), &Told::default()).unwrap();
    let End::Done(manifest) = end else { panic!("{end:?}") };
    assert_eq!((counts.read.load(Ordering::Relaxed), sums.seen.load(Ordering::Relaxed)), (captions, PICTURES));
    assert_eq!(manifest.texts.as_ref().unwrap().encoder, "counts");
    // In a space of their own, the pictures' vectors are not written beside them.
    assert!(
        manifest.files.contains_key("test_caps_vectors.npy") && !manifest.files.contains_key("test_ims_vectors.npy")
    );
    let dataset = place.open("out");
    for (_, collection) in dataset.splits() {
        let (raw, vectors) = (collection.texts.raw.as_ref().unwrap(), collection.texts.global.as_ref().unwrap());
        for (text, line) in raw.iter().enumerate() {
            assert_eq!(vectors.gather(&[text]).unwrap().data, [line.len() as f32, 4.0, 1.0], "{line}");
        }
    }
    let again = extract_with(&job, &sums, "weights", Some(&counts), &Told::default()).unwrap();
    assert!(matches!(again, End::Already(_)));

    // The text tower of a pair needs no naming, and both sides are there to be compared.
    let pair = place.job("pair");
    let End::Done(manifest) = extract(&pair, &Both(Sums::new(2), Counts::new()), "weights", &Told::default()).unwrap()
    else {
        panic!("nothing was there")
    };
    assert_eq!(manifest.files["test_ims_vectors.npy"], manifest.files["test_global.npy"]);
    assert!(manifest.files.contains_key("dev_caps_vectors.npy"));
}
