use xmbench_datasets::random::Seed;

use super::*;
use crate::hashing::checks::{bit, codes, collection, fitted, matrix, noise, saving_keeps_every_bit};

/// Views of three shared latent columns, with a little noise.
fn planted(n: usize, label: &str) -> xmbench_datasets::Collection {
    let latent = noise(label, n, 3);
    let [mix_x, mix_y] = [noise("mix x", 3, 7), noise("mix y", 3, 5)];
    let [extra_x, extra_y] = [noise(&format!("{label} x"), n, 7), noise(&format!("{label} y"), n, 5)];
    let view = |mix: &Matrix, extra: &Matrix, cols| {
        matrix(n, cols, |i, j| {
            let clean: f32 = (0..3).map(|k| latent.row(i)[k] * mix.row(k)[j]).sum();
            f64::from(clean + 0.05 * extra.row(i)[j])
        })
    };
    collection(view(&mix_x, &extra_x, 7), view(&mix_y, &extra_y, 5))
}

fn rows(items: &Matrix) -> Mat<f64> {
    View::new(items, 0..items.rows as u32).unwrap().rows
}

#[test]
fn each_update_minimises_the_objective_over_its_factor() {
    let (x, y) = (rows(&noise("x", 30, 4)), rows(&noise("y", 30, 3)));
    let params = Params { bits: 2, weight: 0.3, mu: 5.0, gamma: 0.5, ..Params::default() };
    let mut factors = Factors::start(&params, [&x, &y], &mut Seed(1).stream(&["start"])).unwrap();
    let mut last = f64::INFINITY;
    for _ in 0..8 {
        for update in [Factors::bases, Factors::maps, Factors::factor] {
            update(&mut factors).unwrap();
            let found = factors.objective();
            assert!(found <= last + 1e-9, "{found} after {last}");
            last = found;
        }
    }
    // After its own update a factor is at a minimum: no step of any entry, either way, is downhill.
    for which in 0..3 {
        match which {
            0 => factors.bases(),
            1 => factors.maps(),
            _ => factors.factor(),
        }
        .unwrap();
        let best = factors.objective();
        for t in 0..2 {
            let shape = match which {
                0 => (2, factors.bases[t].ncols()),
                1 => (factors.maps[t].nrows(), 2),
                _ => (30, 2),
            };
            for i in 0..shape.0 {
                for j in 0..shape.1 {
                    for by in [1e-4, -1e-4] {
                        let mut move_by = |by: f64| match which {
                            0 => factors.bases[t][(i, j)] += by,
                            1 => factors.maps[t][(i, j)] += by,
                            _ => factors.common[(i, j)] += by,
                        };
                        move_by(by);
                        let moved = factors.objective();
                        let mut move_by = |by: f64| match which {
                            0 => factors.bases[t][(i, j)] += by,
                            1 => factors.maps[t][(i, j)] += by,
                            _ => factors.common[(i, j)] += by,
                        };
                        move_by(-by);
                        assert!(moved >= best - 1e-9, "factor {which}, entry ({i}, {j}) of {t}: {moved} below {best}");
                    }
                }
            }
        }
    }
}

#[test]
fn both_modalities_reach_the_planted_factor() {
    let (train, test) = (planted(200, "train"), planted(60, "test"));
    let matcher = fitted(&Cmfh, &train, &toml::toml! { bits = 16 }).unwrap();
    let [images, texts] = codes(&*matcher, &test);
    let agree =
        (0..60).flat_map(|i| (0..16).map(move |b| (i, b))).filter(|&(i, b)| bit(&images, i, b) == bit(&texts, i, b));
    let share = agree.count() as f64 / (60.0 * 16.0);
    assert!(share > 0.95, "{share} of the bits of a pair agree");
    saving_keeps_every_bit(&Cmfh, &*matcher, &test);
}

#[test]
fn training_items_have_one_code_for_both_modalities_where_asked() {
    let (train, test) = (planted(80, "train"), planted(40, "test"));
    let unified = fitted(&Cmfh, &train, &toml::toml! { bits = 70 codes = "unified" }).unwrap();
    let modality = fitted(&Cmfh, &train, &toml::toml! { bits = 70 }).unwrap();
    let [images, texts] = codes(&*unified, &train);
    assert_eq!(images, texts);
    assert!(unified.unified() && !modality.unified());
    assert_ne!(codes(&*modality, &train)[0], codes(&*modality, &train)[1]);
    // Test items count from 0 as training items do; their features are others.
    assert_eq!(codes(&*unified, &test), codes(&*modality, &test));
    saving_keeps_every_bit(&Cmfh, &*unified, &train);
    assert!(Cmfh.remark(&toml::toml! { codes = "unified" }).is_some() && Cmfh.remark(&toml::Table::new()).is_none());
}

#[test]
fn wrong_parameters_and_features_are_named() {
    let error = |table: toml::Table| Cmfh.resolve(&table).unwrap_err().to_string();
    assert!(error(toml::toml! { weight = 1 }).contains("between 0 and 1, found 1"));
    assert!(error(toml::toml! { gamma = 0 }).contains("above 0, found 0"));
    assert!(error(toml::toml! { iterations = 0 }).contains("1 to 10000"));
    let mut broken = noise("x", 10, 2);
    broken.row_mut(3)[1] = f32::NAN;
    let error =
        fitted(&Cmfh, &collection(broken, noise("y", 10, 2)), &toml::toml! { bits = 4 }).err().unwrap().to_string();
    assert!(error.contains("found NaN in item 3, column 1"), "{error}");
    let error = fitted(&Cmfh, &collection(noise("x", 1, 2), noise("y", 1, 2)), &toml::Table::new()).err().unwrap();
    assert!(error.to_string().contains("at least 2 training pairs, found 1"), "{error}");
}
