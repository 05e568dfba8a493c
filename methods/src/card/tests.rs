use super::*;

/// A card with everything that one can have.
const FULL: &str = r#"
name = "made_up"
family = "metric"
label = "Made up"
title = "A title"
authors = "A. Author"
venue = "A venue"
year = 2018
identifier = "10.1/2"
needs = ["images.global"]
codes = "dense"
shared = ["schedule"]
code = [
    { repository = "owner/name", commit = "0123456789ab", taken = "the loss" },
    { repository = "package", version = "1.2.3", taken = "the loss again" },
    { repository = "other/name", taken = "defaults" },
]

[parameters.margin]
doc = "margin"
range = "above 0"
paper = "0.2"

[parameters.epochs]
paper = "12 epochs"

[[reported]]
variant = "a row"
dataset = "a set"
source = "Table 1"
evidence = "verified"
metrics = { "t2i R@5" = 3, "i2t R@10" = 2.5, "i2t R@1" = 1.5, rsum = 7 }
notes = { rsum = "summed" }

[[claims]]
id = "claim"
text = "It holds"
evidence = "recalled"
tests = [{ experiment = "01", better = "A", worse = "B", metric = "rsum" }]
"#;

fn refused(text: &str) -> String {
    Card::parse("made_up.toml", text).expect_err(text).to_string()
}

#[test]
fn a_row_gives_its_numbers_in_the_order_of_the_file() {
    let card = Card::parse("made_up.toml", FULL).unwrap();
    let numbers: Vec<_> = card.numbers().map(|number| (number.metric, number.value, number.source)).collect();
    let expected = [("t2i R@5", 3.0, "Table 1"), ("i2t R@10", 2.5, "Table 1"), ("i2t R@1", 1.5, "Table 1")];
    assert_eq!(numbers[..3], expected.map(|(metric, value, source)| (metric, value, source.into())));
    assert_eq!(numbers[3..], [("rsum", 7.0, "Table 1; summed".into())]);
    let row = serde_json::to_string(&card.reported[0]).unwrap();
    assert!(row.contains(r#""metrics":{"t2i R@5":3.0,"i2t R@10":2.5,"i2t R@1":1.5,"rsum":7.0}"#), "{row}");
}

#[test]
fn a_card_says_of_a_shared_parameter_only_what_differs() {
    let card = Card::parse("made_up.toml", FULL).unwrap();
    let epochs = &card.parameters["epochs"];
    assert_eq!((&epochs.doc[..], &epochs.paper[..]), ("passes over the training pairs", "12 epochs"));
    assert_eq!(card.parameters["batch"].doc, "pairs a step");
    assert_eq!(
        refused(&FULL.replace("[parameters.epochs]", "[parameters.epoch]")).matches("parameters.epoch.").count(),
        2
    );
}

#[test]
fn code_is_named_by_repository_and_commit_or_by_package_and_version() {
    let card = Card::parse("made_up.toml", FULL).unwrap();
    let named: Vec<_> = card.code.iter().map(|code| (code.short(), code.address())).collect();
    let expected = [
        ("owner/name@0123456", Some("https://github.com/owner/name/tree/0123456789ab")),
        ("package==1.2.3", None),
        ("other/name", Some("https://github.com/other/name")),
    ];
    assert_eq!(named, expected.map(|(short, address)| (short.to_string(), address.map(str::to_string))));
    for (from, to, key) in [
        ("0123456789ab", "012345", "code[0].commit"),
        ("0123456789ab", "HEAD of main", "code[0].commit"),
        ("repository = \"package\", version", "repository = \"own/package\", version", "code[1].repository"),
        ("repository = \"other/name\"", "repository = \"name\"", "code[2].repository"),
    ] {
        let message = refused(&FULL.replace(from, to));
        assert!(message.starts_with("made_up.toml: expected `") && message.contains(key), "{message}");
    }
}

#[test]
fn every_missing_key_is_named_at_once() {
    let keys = FULL.lines().filter(|line| !line.starts_with(['[', ' ', ']'])).filter_map(|line| line.split_once(" = "));
    let optional = ["shared", "code", "notes", "tests"];
    for (key, _) in keys.filter(|(key, _)| !optional.contains(key)) {
        let without: Vec<&str> = FULL.lines().filter(|line| !line.starts_with(&format!("{key} = "))).collect();
        let found = Card::parse("made_up.toml", &without.join("\n"));
        let message = found.expect_err(key).to_string();
        assert!(message.starts_with("made_up.toml: expected a card with `"), "{key}: {message}");
        assert!(message.contains(&format!("`{key}`")) || message.contains(&format!(".{key}`")), "{key}: {message}");
    }
    let bare = "[[code]]\n[parameters.margin]\n[[reported]]\n[[claims]]\n[[claims.tests]]\n";
    assert_eq!(
        refused(bare),
        "made_up.toml: expected a card with `name`, `family`, `label`, `title`, `authors`, `venue`, `year`, `identifier`, `needs`, \
         `codes`, `code[0].repository`, `code[0].taken`, `parameters.margin.doc`, `parameters.margin.range`, \
         `parameters.margin.paper`, `reported[0].variant`, `reported[0].dataset`, `reported[0].source`, `reported[0].evidence`, \
         `reported[0].metrics`, `claims[0].id`, `claims[0].text`, `claims[0].evidence`, `claims[0].tests[0].experiment`, \
         `claims[0].tests[0].better`, `claims[0].tests[0].worse`, `claims[0].tests[0].metric`, found none of them"
    );
}

#[test]
fn errors_name_file_and_key() {
    for (from, to, named) in [
        ("year = 2018", "year = \"2018\"", "year"),
        ("venue = ", "venues = ", "`venue`"),
        ("codes = \"dense\"", "codes = \"dense\"\ncolour = 1", "colour"),
        ("rsum = 7", "rsum = nan", "metric `rsum`: expected a finite number, found NaN"),
        ("rsum = 7", "rsum = \"7\"", "rsum = \"7\""),
        ("notes = { rsum", "notes = { mean", "`reported[0].notes` of metrics of its row, found `mean`"),
        (
            "[\"schedule\"]",
            "[\"schedules\"]",
            "`shared` with groups among encoders, fragments, hashing, negatives, ranking, schedule, found `schedules`",
        ),
        ("evidence = \"verified\"", "evidence = \"seen\"", "seen"),
        ("name = \"made_up\"", "name = ", "line 2"),
    ] {
        let message = refused(&FULL.replacen(from, to, 1));
        assert!(message.starts_with("made_up.toml: expected ") && message.contains(named), "{message}");
    }
    let line = FULL.lines().find(|line| line.starts_with("metrics")).unwrap();
    let message = refused(&FULL.replace(line, "metrics = {}"));
    assert!(message.contains("expected at least one metric, found none"), "{message}");
}
