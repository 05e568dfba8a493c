use candle_core::Device;
use toml::toml;
use xmbench_datasets::planted::{fragments, sequences};

use super::*;
use crate::{
    Method,
    dense::placed::{
        accuracy, all_equal, codes, copes, first_loss, fit_on, one_word, open, options_are_felt, small,
        weights_are_felt,
    },
    loss::{
        Relation, Relations,
        support::{assert_gradients, normal},
    },
    nn::Lengths,
    trained::planted::{fit, planted, recall},
};

/// The weight of the fine terms is that of the released command, and the rate one that a few hundred items bear.
fn localising() -> toml::Table {
    toml! { epochs = 20 learning_rate = 0.003 fine_weight = 10.0 }
}

/// Each word is placed at the frame of its highest similarity, against the planted time.
#[test]
fn words_are_found_at_their_planted_time() {
    let options = toml! { train = 400 val = 0 test = 60 };
    let (dataset, truth) = (open("planted-sequences", &options), sequences::truth(&options).unwrap());
    let (chance, optimum) = (truth.chance(12), truth.optimum(&dataset.test.images).unwrap());
    let find = |options: toml::Table| accuracy(&*fit_on(&LOC_VTP, &dataset, options), &dataset, &truth, 0);
    let found = find(localising());
    let coarse = find(toml! { epochs = 20 learning_rate = 0.003 fine_weight = 0.0 warp_weight = 0.0 });
    println!("chance {chance:.3}, coarse {coarse:.3}, fine {found:.3}, optimum {optimum:.3}");
    assert!((chance - 1.0 / 6.0).abs() < 1e-9 && optimum > 0.99);
    assert!(found > 0.8 && found > coarse, "{found}, coarse {coarse}");
}

#[test]
fn words_find_their_planted_regions() {
    let options = toml! { train = 400 val = 0 test = 60 };
    let (dataset, truth) = (open("planted-fragments", &options), fragments::truth(&options).unwrap());
    let found = accuracy(&*fit_on(&LOC_VTP, &dataset, localising()), &dataset, &truth, 0);
    let (chance, optimum) = (truth.chance(6), truth.optimum(&dataset.test.images).unwrap());
    println!("chance {chance:.3}, found {found:.3}, optimum {optimum:.3}");
    assert!(optimum > 0.99 && found > 0.7, "{found}");
}

#[test]
fn planted_pairs_are_learnt_in_every_form() {
    let (train, test) = (planted("train", 160), planted("test", 40));
    for options in [
        toml::Table::new(),
        toml! { fine_negatives = "sentence" clip_match = "released" matches = 1 order = "shuffle" },
        toml! { normalise = true temperature = 0.07 },
    ] {
        let matcher = fit(&LOC_VTP, &train, small(&LOC_VTP, options.clone())).unwrap();
        let recall = recall(&*matcher, &test);
        println!("{options:?}: recall at 1 {recall}");
        // Chance is 0.025.
        assert!(recall > 0.2, "{options:?}: recall at 1 {recall}");
    }
}

#[test]
fn every_weight_is_felt_in_proportion() {
    weights_are_felt(&LOC_VTP, &["fine_weight", "warp_weight", "order_weight"], &toml! { projection_dropout = 0.0 });
}

#[test]
fn every_option_is_felt() {
    let alone = [
        toml! { projection_dropout = 0.0 },
        toml! { temperature = 2.0 },
        toml! { normalise = true },
        toml! { fine_temperature = 0.2 },
        toml! { matches = 1 },
        toml! { clip_match = "released" },
        toml! { fine_negatives = "sentence" },
        toml! { order = "shuffle" },
        toml! { negatives = "paper" },
        toml! { warp = "released" },
    ];
    options_are_felt(&LOC_VTP, &toml! { epochs = 3 }, alone);
    options_are_felt(&LOC_VTP, &toml! { epochs = 3 fine_negatives = "sentence" }, [toml! { draws = 2 }]);
}

/// The raster of boxes in reverse is another order than the given one, and only then does it matter.
#[test]
fn regions_are_taken_row_by_row() {
    let boxes = [[0.5, 0.5, 1.0, 1.0], [0.0, 0.5, 0.5, 1.0], [0.5, 0.0, 1.0, 0.5], [0.0, 0.0, 0.5, 0.5]];
    assert_eq!(raster(&boxes), [3, 2, 1, 0]);
    let mut train = planted("train", 40);
    let at = |train: &xmbench_datasets::Collection, order: &str| {
        codes(&*fit(&LOC_VTP, train, small(&LOC_VTP, toml! { epochs = 2 region_order = order })).unwrap(), train)
    };
    assert!(at(&train, "raster") == at(&train, "given"));
    let three = [[0.0, 0.6, 1.0, 1.0], [0.0, 0.3, 1.0, 0.6], [0.0, 0.0, 1.0, 0.3f32]];
    train.images.boxes = Some((0..40).flat_map(|_| three).collect());
    assert!(at(&train, "raster") != at(&train, "given"));
}

/// Against the formula, written out for each query and each of its positives; with gradients.
#[test]
fn fine_terms_are_the_formula_with_the_negatives_of_other_pairs() {
    let lengths = [Lengths::new([2, 3, 1]).unwrap(), Lengths::new([2, 1, 2]).unwrap()];
    let rows = [normal("clips", 6, 4), normal("words", 5, 4)];
    // The first two are of one image: neither is a negative of the other.
    let relations = Relations::new(3, 3, |i, j| match () {
        () if i == j => Relation::Positive,
        () if i + j == 1 => Relation::Ignored,
        () => Relation::Negative,
    });
    let terms = |rows: &[Tensor]| {
        let sides = [Side::new(&rows[0], &lengths[0]).unwrap(), Side::new(&rows[1], &lengths[1]).unwrap()];
        let picked = pick(&sides, 2, ClipMatch::Own).unwrap();
        let cosines = sides[0].units.matmul(&sides[1].units.t().unwrap()).unwrap();
        let ways = [(cosines.clone(), relations.clone()), (cosines.t().unwrap(), relations.t())];
        let mut terms = Vec::new();
        for (way, (cosines, relations)) in ways.iter().enumerate() {
            let negatives = Negatives::Others(cosines, relations);
            let fine = Fine::new([&sides[way], &sides[1 - way]], 0.3, &negatives).unwrap();
            terms.push(fine.matched(&picked[way]).unwrap());
        }
        (terms, picked)
    };
    let (found, picked) = terms(&rows);
    let units = rows.each_ref().map(|rows| unit(rows).unwrap().to_vec2::<f64>().unwrap());
    let e = |a: &[f64], b: &[f64]| (a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / 0.3).exp();
    for way in 0..2 {
        let [q, k] = [way, 1 - way];
        let [items, of] = [q, k].map(|side| parts::owners(&lengths[side]));
        let mut losses = Vec::new();
        for (r, query) in units[q].iter().enumerate() {
            let others = units[k].iter().zip(&of).filter(|(_, of)| items[r] + **of > 1 && items[r] != **of);
            let others: f64 = others.map(|(key, _)| e(query, key)).sum();
            for place in &picked[way][r] {
                let own = e(query, &units[k][lengths[k].range(items[r]).start + place]);
                losses.push(-(own / (own + others)).ln());
            }
        }
        let expected = losses.iter().sum::<f64>() / losses.len() as f64;
        let found = found[way].to_scalar::<f64>().unwrap();
        assert!((found - expected).abs() < 1e-12, "way {way}: {found}, {expected}");
        assert_gradients(&rows, |rows| terms(rows).0.swap_remove(way));
    }
}

#[test]
fn soft_targets_have_known_values() {
    let value = |x: &Tensor| x.to_scalar::<f64>().unwrap();
    // Whatever is all the same has uniform targets and costs the logarithm of the batch.
    let same = Tensor::full(0.3f64, (5, 4), &Device::Cpu).unwrap();
    assert!((value(&coarse(&same, &same, 1.0).unwrap()) - 5f64.ln()).abs() < 1e-12);
    // Two pairs, v = s = the axes times a: logits and targets are softmax(a^2, 0).
    let axes = Tensor::new(&[[2f64, 0.0], [0.0, 2.0]], &Device::Cpu).unwrap();
    let p = 1.0 / (1.0 + (-4f64).exp());
    let entropy = -(p * p.ln() + (1.0 - p) * (1.0 - p).ln());
    assert!((value(&coarse(&axes, &axes, 1.0).unwrap()) - entropy).abs() < 1e-12);
}

#[test]
fn small_batches_and_poor_texts_are_coped_with() {
    let train = planted("train", 20);
    copes(&LOC_VTP, &train, toml! { batch = 2 });
    for options in [toml::Table::new(), toml! { fine_negatives = "sentence" }] {
        copes(&LOC_VTP, &one_word(train.clone()), options.clone());
        copes(&LOC_VTP, &all_equal(train.clone()), options);
    }
    // Three fragments an image, one word a text: there is no third word.
    let options = small(&LOC_VTP, toml! { warp = "released" });
    let error = fit(&LOC_VTP, &one_word(train.clone()), options).err().unwrap().to_string();
    assert!(error.contains("word 2 of each text") && error.contains("warp = \"own\""), "{error}");
    // A text of one word is the same the other way round: the order costs nothing.
    let at = |weight: f64| {
        let options = toml! { order_weight = weight projection_dropout = 0.0 };
        first_loss(&LOC_VTP, &one_word(train.clone()), options)
    };
    assert_eq!(at(0.0), at(5.0));
}

#[test]
fn wrong_parameters_are_named() {
    for (table, text) in [
        (toml! { projection = 0 }, "projection"),
        (toml! { matches = 0 }, "matches"),
        (toml! { temperature = -1 }, "temperature"),
        (toml! { fine_weight = -1 }, "fine_weight"),
        (toml! { projection_dropout = 1.0 }, "projection_dropout"),
        (toml! { draws = 5 }, "draws"),
        (toml! { warp = "none" }, "warp"),
        (toml! { image_pooling = "gpo" }, "image_pooling"),
        (toml! { image = "auto" }, "image"),
        (toml! { batch = 1 }, "batch"),
    ] {
        let message = LOC_VTP.resolve(&table).unwrap_err().to_string();
        assert!(message.contains(&format!("`{text}`")), "{message}");
    }
    let resolved = LOC_VTP.resolve(&toml! { fine_weight = 0 warp_weight = 0 }).unwrap();
    assert!(LOC_VTP.remark(&resolved).unwrap().contains("wholes alone"));
}
