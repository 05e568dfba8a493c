//! The numbers that cards report stay what they are, and cards stay short enough to be read.

use std::{fs, path::Path};

use sha2::{Digest, Sha256};
use xmbench_methods::{
    card::{Evidence, Number},
    registry,
};

/// How many numbers each card reports, and the SHA-256 of their list: one line a number, `variant`, `dataset`, `metric`, `value`,
/// `source` and `evidence` with tabs between them, lines sorted and joined by newlines.
///
/// Papers' numbers are typed by hand and nothing else in the project would notice a slip of the finger, or a line that an
/// edit of the format loses. The values are those of the cards when every number still was an entry of its own. Who adds or
/// mends a number on purpose takes the count and sum that the failing test prints, after a look at the card's diff. A card that is not
/// listed is free: a new method touches its own two files and one line.
const REPORTED: [(&str, usize, &str); 18] = [
    ("scan", 91, "d12beb943ca6e8bd4ef16e3b33ae7c555104e22b4bd7021456e42e3aa0865cb2"),
    ("cca", 14, "220f628d29564691b898983fb87ddd3f2540f026501078ef322f2dfec5578ed4"),
    ("dcca", 8, "274e09609a19120adc28abd63dd3cf426b2d3dd81c57758e9a2cbab8409d8447"),
    ("kcca", 3, "db3d8aaf705e55f1b2b502372db3c8cac3b519e61b6517d7af396ed3dfcb3d10"),
    ("scm", 14, "266d718df2afe1bece165783ee11f5c25c1538daf8ac9478887984275b232f38"),
    ("djsrh", 24, "08992edbaa91345184b61c61b538b9ab4174abbfaf200bb8ae411985e3db6243"),
    ("jdsh", 32, "a48496c1fd1da356ef42296ff3f93743955bff5bc4da9a57f57d1ef1000cfa26"),
    ("dsah", 24, "01f467103989bdf5c27412186b6708c69ad99f32e06dc5adbc482871c7089d96"),
    ("hnh", 16, "59581053667a4d1330daf2f828df48470d8e3079c19310bd4ece9715c20dd2d6"),
    ("agch", 24, "f6705faf40d8f8fb292ad1cca27d55a3d8aa90494abf05889aa49d42c6c27cd6"),
    ("dgcpn", 33, "105e95c2c5b48638e66d27054c56e04a4e66589c2009c7f5e31622b2bc29345c"),
    ("cvh", 60, "e412d57912ed9c39fd98466decccd7d80b709979bced09bb68eddab65662d9d8"),
    ("cmfh", 64, "658c0f0b424bbd39d0a38efad589f9b8a26d794ab499e05d2625dc5e1d7e4199"),
    ("contrastive", 3, "ef36f53111590d2286cec25687b662d0390e42bd44744b03e010ad3f318e31e2"),
    ("n_pair", 4, "1d22d2c22756e8bb49c61daf2bd567a6dae2b3e7505b3727a52160f389a0440f"),
    ("structure_preserving", 12, "8dccc11f1c43dd1d1774a0c282a690f5a73f87badb1ecc9b1142d789fd42b74c"),
    ("hrem", 12, "ba50e59e1b05b4032dc08298e69a3f6eb13df12e2944aafa36d8a356377be79c"),
    ("vse", 184, "a8db0f0ad3decd2813f0436f338d9e2e1022b1ef301873702477da14a5b58026"),
];

/// Lines that a card may have.
const LINES: usize = 250;
/// Characters that a card's line may have: a row of ten metrics.
const CHARACTERS: usize = 200;

fn line(number: Number<'_>) -> String {
    let Number { variant, dataset, metric, value, source, evidence } = number;
    let evidence = match evidence {
        Evidence::Verified => "verified",
        Evidence::Recalled => "recalled",
        Evidence::Measured => "measured",
    };
    format!("{variant}\t{dataset}\t{metric}\t{value:?}\t{source}\t{evidence}")
}

#[test]
fn reported_numbers_are_those_that_were_typed_in() {
    for (name, count, sum) in REPORTED {
        let card = registry::find(name).unwrap_or_else(|| panic!("no card is called {name}")).card();
        let mut lines: Vec<String> = card.numbers().map(line).collect();
        lines.sort();
        let found: String = Sha256::digest(lines.join("\n")).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((lines.len(), &found[..]), (count, sum), "the numbers of card {name} changed");
    }
}

#[test]
fn every_parameter_is_documented_in_full() {
    for card in registry::methods().map(|method| method.card()) {
        for (key, parameter) in &card.parameters {
            for (part, text) in [("doc", &parameter.doc), ("range", &parameter.range), ("paper", &parameter.paper)] {
                assert!(!text.is_empty(), "{}: parameter {key} has no `{part}`", card.name);
            }
        }
    }
}

#[test]
fn tuning_draws_what_the_parameter_permits() {
    for method in registry::methods() {
        let (card, defaults) = (method.card(), method.resolve(&toml::Table::new()).unwrap());
        for (key, tune) in card.tuned() {
            assert!(defaults.contains_key(key), "{}: `tune` of `{key}`, which is no parameter", card.name);
            assert!(card.is_trained(), "{}: `tune` of a method that no gradient trains", card.name);
            let needed = tune.with.as_ref().map_or(key, |with| &with.key);
            assert!(defaults.contains_key(needed), "{}: `{key}` is tuned with `{needed}`, which is none", card.name);
            for value in tune.domain.extremes() {
                let table = toml::Table::from_iter([(key.to_string(), value.clone())]);
                let resolved = method.resolve(&table).unwrap_or_else(|error| panic!("{}: {error}", card.name));
                assert_eq!(resolved[key], value, "{}: `{key}` is drawn as another type", card.name);
            }
        }
    }
}

#[test]
fn every_trained_method_has_its_rate_its_penalty_and_its_margin_or_temperature_tuned() {
    let mut trained = 0;
    for card in registry::methods().map(|method| method.card()).filter(|card| card.is_trained()) {
        let tuned: Vec<&str> = card.tuned().map(|(key, _)| key).collect();
        let weighs = |key: &str| key == "margin" || key.ends_with("temperature") || key == "lambda_softmax";
        for key in card.parameters.keys() {
            let must = ["learning_rate", "weight_decay"].contains(&key.as_str()) || weighs(key);
            // Whether it is learnt is no number, and words attend to regions in no row of that method.
            let other = ["learn_temperature"].contains(&key.as_str())
                || (&card.name[..], &key[..]) == ("joint_embedding", "lambda_softmax");
            assert!(!must || other || tuned.contains(&key.as_str()), "{}: `{key}` is not tuned", card.name);
        }
        trained += 1;
    }
    assert!(trained >= 27, "{trained}");
}

#[test]
fn cards_are_short_enough_to_be_read() {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let text = fs::read_to_string(&path).expect("a card");
                let (lines, longest) = (text.lines().count(), text.lines().map(|line| line.chars().count()).max());
                assert!(lines <= LINES, "{}: {lines} lines, expected at most {LINES}", path.display());
                let longest = longest.unwrap_or(0);
                assert!(
                    longest <= CHARACTERS,
                    "{}: a line of {longest}, expected at most {CHARACTERS}",
                    path.display()
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= REPORTED.len(), "{seen} cards");
}
