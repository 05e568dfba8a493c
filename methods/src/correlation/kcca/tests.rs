use std::sync::Arc;

use xmbench_datasets::{Collection, Pairs, random::Seed};

use super::*;
use crate::{
    correlation::checks::{codes, cosine, fit, keeps_every_bit},
    linalg::views::{ImageInput, TextInput},
};

fn fitted(train: &Collection, table: toml::Table) -> Result<Box<dyn Matcher>> {
    fit(&Kcca, 1, train, 0, &table)
}

/// Images are points on a circle, texts bumps along the angle: no line through either says where. Every image has two texts, and
/// the last image and the last two texts belong to nothing.
fn toy(n: usize, label: &str) -> Collection {
    let mut stream = Seed(4).stream(&["circle", label]);
    let (mut images, mut texts) = (Matrix::zeros(n, 2), Matrix::zeros(2 * n, 12));
    for i in 0..n {
        let angle = stream.uniform(0.0, std::f64::consts::TAU);
        images.row_mut(i).copy_from_slice(&[angle.cos() as f32, angle.sin() as f32]);
        for t in [2 * i, 2 * i + 1] {
            for (j, value) in texts.row_mut(t).iter_mut().enumerate() {
                let away = (angle - j as f64 / 12.0 * std::f64::consts::TAU).cos();
                *value = ((2.0 * away).exp() + 0.1 * stream.normal()) as f32;
            }
        }
    }
    let ids = |count: usize| (0..count).map(|i| i.to_string()).collect();
    Collection {
        images: Images { ids: ids(n), global: Some(Arc::new(images)), ..Images::default() },
        texts: Texts { ids: ids(2 * n), global: Some(Arc::new(texts)), ..Texts::default() },
        pairs: Pairs::new(n, 2 * n, (0..2 * n as u32 - 2).map(|t| (t / 2, t)).collect()),
    }
}

fn ways() -> [toml::Table; 6] {
    [
        toml::toml! { components = 5 },
        toml::toml! { components = 5 approximation = "icd" },
        toml::toml! { components = 5 approximation = "rff" features = 400 },
        toml::toml! { components = 5 ridge_convention = "kappa" ridge = 1 text_kernel = "polynomial" degree = 2 },
        toml::toml! { components = 5 ridge_convention = "mixed" ridge = 0.1 threshold = 1e-4 power = 0 },
        toml::toml! { components = 5 ridge_convention = "cca-zoo" ridge = 0.3 },
    ]
}

#[test]
fn texts_find_their_image_in_every_way() {
    let (train, test) = (toy(150, "train"), toy(40, "test"));
    for table in ways() {
        let matcher = fitted(&train, table.clone()).unwrap();
        let [u, v] = codes(&*matcher, &test);
        assert_eq!((u.cols, v.cols), (5, 5));
        let ranks = (0..v.rows).map(|t| {
            let own = cosine(u.row(t / 2), v.row(t));
            (0..u.rows).filter(|&i| cosine(u.row(i), v.row(t)) > own).count()
        });
        let mean = ranks.sum::<usize>() as f64 / v.rows as f64;
        assert!(mean < 3.0, "{table}: mean rank {mean} of 40");
    }
}

#[test]
fn saved_matchers_encode_to_the_same_bits() {
    let train = toy(60, "train");
    for table in ways().into_iter().chain([toml::toml! { approximation = "rff" text_kernel = "linear" }]) {
        keeps_every_bit(&Kcca, &train, || fitted(&train, table.clone()));
    }
    let drawn = |seed| codes(&*fit(&Kcca, seed, &train, 0, &toml::toml! { approximation = "rff" }).unwrap(), &train);
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn saved_files_that_do_not_fit_are_refused() {
    let train = toy(20, "train");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE);
    fitted(&train, toml::toml! { components = 3 }).unwrap().save(folder.path()).unwrap();
    let store = Store::load(&path).unwrap().with_vector("x.map.offset", &[0.0]);
    store.save(&path).unwrap();
    let error = Kcca.load(folder.path(), &Device::Cpu).err().unwrap().to_string();
    assert!(error.contains("`x.map`: expected weights [19, 1], found [19, 3]"), "{error}");
    Store::default().with_word("image", &ImageInput::Global).with_word("text", &TextInput::Global).save(&path).unwrap();
    assert!(Kcca.load(folder.path(), &Device::Cpu).is_err());
}

#[test]
fn many_items_are_told_what_to_do() {
    let error = fitted(&toy(40, "train"), toml::toml! { exact_limit = 60 }).err().unwrap().to_string();
    insta::assert_snapshot!(error, @"method `kcca`, parameter `approximation`: expected at most 60 training items of a kind for exact Gram matrices, found 80 (about 0 GiB); set approximation to rff (random Fourier features) or icd (incomplete Cholesky), or raise exact_limit");
    assert!(small_enough(54_000, 6000).unwrap_err().to_string().contains("found 54000 (about 174 GiB)"));
}

#[test]
fn wrong_parameters_and_inputs_are_named() {
    let train = toy(20, "train");
    let error = |table: toml::Table| fitted(&train, table).err().unwrap().to_string();
    assert!(error(toml::toml! { ridge = 0 }).contains("without one every exact correlation is 1, found 0"));
    assert!(error(toml::toml! { ridge = -1 approximation = "rff" }).contains("at least 0, found -1"));
    assert!(error(toml::toml! { ridge = 2 ridge_convention = "mixed" }).contains("a mix in [0, 1], found 2"));
    assert!(
        error(toml::toml! { ridge_convention = "cca-zoo" approximation = "icd" })
            .contains("unless approximation is exact")
    );
    assert!(error(toml::toml! { threshold = 0.1 approximation = "icd" }).contains("`threshold`: expected 0, unless"));
    assert!(
        error(toml::toml! { image_kernel = "polynomial" approximation = "rff" }).contains("set approximation to icd")
    );
    assert!(error(toml::toml! { bandwidth = 0 }).contains("`bandwidth`: expected a number above 0"));
    assert!(error(toml::toml! { bandwith = 1 }).contains("did you mean"));
    assert!(error(toml::toml! { components = 400 }).contains("components, found 400"));
    let constant = Matrix { rows: 20, cols: 2, data: vec![1.0; 40] };
    let same =
        Collection { images: Images { global: Some(Arc::new(constant)), ..train.images.clone() }, ..train.clone() };
    assert!(fitted(&same, toml::Table::new()).err().unwrap().to_string().contains("the same vector for every item"));
    for approximation in ["exact", "icd"] {
        let table = toml::toml! { image_kernel = "linear" approximation = approximation };
        assert!(fitted(&same, table).err().unwrap().to_string().contains("constant"), "{approximation}");
    }
    let matcher = fitted(&train, toml::Table::new()).unwrap();
    let wide = Images { ids: vec!["a".into()], global: Some(Arc::new(Matrix::zeros(1, 3))), ..Images::default() };
    assert!(
        matcher
            .encode_images(&wide)
            .unwrap_err()
            .to_string()
            .contains("expected vectors of 2 values as in training, found 3")
    );
}

#[test]
fn golden_files_agree() {
    let files = crate::golden::assert_files(&Kcca.operations());
    assert!(files >= 4, "{files} files");
}
