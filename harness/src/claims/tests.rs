use xmbench_methods::card::Kind;

use super::*;
use crate::{record::synthetic, stats::paired::Basis};

fn tested(card: &Card) -> Vec<(String, Verdict, Result<Finding, Missing>)> {
    let stated: Vec<Stated<'_>> = of_card(card).collect();
    let tested = test(&stated, &synthetic::recording(), None);
    tested.into_iter().map(|it| (it.claim.id.clone(), it.verdict(), it.outcome)).collect()
}

#[test]
fn planted_differences_come_out() {
    let card = synthetic::claims();
    let found = tested(&card);
    let verdicts: Vec<(&str, Verdict)> = found.iter().map(|(id, verdict, _)| (id.as_str(), *verdict)).collect();
    assert_eq!(
        verdicts,
        [
            ("attention", Verdict::Supported),
            ("attention", Verdict::Undecided),
            ("much", Verdict::NotSupported),
            // The interval of this test alone lies below zero; of six tests together it is one that chance may give.
            ("backwards", Verdict::Undecided),
            ("median", Verdict::Supported),
            ("codes", Verdict::Supported),
            ("iterations", Verdict::NotRun),
            ("iterations", Verdict::NotRun),
            ("elsewhere", Verdict::NotRun),
        ]
    );
    let backwards = found[3].2.as_ref().unwrap();
    assert!(backwards.interval.unwrap().high < 0.0 && backwards.p.unwrap() < LEVEL);
    // SCAN failed for seed 2, which counts for pairs without it.
    let seeds = |at: usize| found[at].2.as_ref().unwrap().seeds.clone();
    assert_eq!((seeds(0), seeds(2)), (vec![0, 1], vec![0, 1, 2]));
}

#[test]
fn one_seed_of_a_trained_row_decides_nothing() {
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = of_card(&card).filter(|stated| stated.claim.id == "much").collect();
    let mut recording = synthetic::recording();
    recording.trials.retain(|trial| trial.seed == 0);
    let tested = |recording: &Recording| test(&stated, recording, None).remove(0);
    let trained = tested(&recording);
    let finding = trained.outcome.as_ref().unwrap();
    assert!(finding.interval.unwrap().high < 300.0 && finding.is_one_training());
    assert_eq!(trained.verdict(), Verdict::Undecided);
    // Without training there is nothing that could come out otherwise.
    recording.trials.iter_mut().for_each(|trial| trial.history.clear());
    assert_eq!(tested(&recording).verdict(), Verdict::NotSupported);
}

/// What the rows of "VSE++ over CCA" say where the test asks for something else.
fn asked(kind: Kind, gain: Option<f64>, margin: Option<f64>) -> (Verdict, Finding) {
    let mut card = synthetic::claims();
    card.claims.retain(|claim| claim.id == "much");
    let test = &mut card.claims[0].tests[0];
    (test.kind, test.gain, test.margin) = (kind, gain, margin);
    let (_, verdict, found) = tested(&card).remove(0);
    (verdict, found.unwrap())
}

#[test]
fn each_kind_is_judged_by_where_the_interval_lies() {
    let (_, found) = asked(Kind::Superior, None, None);
    let (gain, interval) = (found.gain, found.interval.unwrap());
    let (below, above) = (gain - interval.low, interval.high - gain);
    let wide = below.max(above);
    assert!(gain > 2.0 * wide, "VSE++ is far above CCA: {gain} within {interval:?}");
    // Within: the interval lies inside. Beyond: it lies outside. Neither: it has an end in it.
    assert_eq!(asked(Kind::Size, Some(gain), Some(1.1 * wide)).0, Verdict::Supported);
    assert_eq!(asked(Kind::Size, Some(gain), Some(0.9 * below.min(above))).0, Verdict::Undecided);
    assert_eq!(asked(Kind::Size, Some(gain + 1.5 * wide), Some(0.4 * wide)).0, Verdict::NotSupported);
    assert_eq!(asked(Kind::Size, Some(gain - 1.5 * wide), Some(0.4 * wide)).0, Verdict::NotSupported);
    assert_eq!(asked(Kind::Equivalent, None, Some(gain + 1.1 * wide)).0, Verdict::Supported);
    assert_eq!(asked(Kind::Equivalent, None, Some(gain - 1.1 * wide)).0, Verdict::NotSupported);
    assert_eq!(asked(Kind::Equivalent, None, Some(gain)).0, Verdict::Undecided);
    assert_eq!(asked(Kind::NotInferior, None, Some(1.0)).0, Verdict::Supported);
    assert_eq!(asked(Kind::Superior, None, None).0, Verdict::Supported);
}

#[test]
fn the_probability_of_an_equivalence_is_that_of_the_worse_side() {
    // Two one-sided tests of a gain of 1 with a standard error of 1 and 10 degrees of freedom, margin 3: t = 4 and -2, of which the
    // latter is the weaker; scipy.stats.t.cdf(-2, 10) = 0.0366940.
    let region =
        ClaimTest { kind: Kind::Equivalent, margin: Some(3.0), ..synthetic::claims().claims[0].tests[0].clone() }
            .region();
    let half = crate::stats::student(10.0);
    let interval = crate::stats::Interval { low: 1.0 - half, high: 1.0 + half };
    let p = outcome::probability(1.0, region, &interval, 10.0);
    assert!((p / 2.0 - 0.036_694_0).abs() < 1e-6, "{p}");
    // Beyond the margin, the probability is that of the end that is passed: t = 1, scipy.stats.t.sf(1, 10) = 0.1704466.
    let beyond = crate::stats::Interval { low: 4.0 - half, high: 4.0 + half };
    assert!((outcome::probability(4.0, region, &beyond, 10.0) / 2.0 - 0.170_446_6).abs() < 1e-6);
}

#[test]
fn a_claim_has_one_verdict() {
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = of_card(&card).collect();
    let found = test(&stated, &synthetic::recording(), None);
    let judged = judge(&found);
    let verdict = |id: &str| judged.iter().find(|it| it.claim.id == id).map(|it| (it.verdict, it.tests_text()));
    // One test supports it and one is undecided; no test is not an answer.
    assert_eq!(verdict("attention"), Some((Verdict::Undecided, "1 supported, 1 undecided".into())));
    assert_eq!(verdict("much"), Some((Verdict::NotSupported, "1 not supported".into())));
    assert_eq!(verdict("iterations"), Some((Verdict::NotRun, "2 not run".into())));
    assert_eq!(verdict("untested"), None);
    assert_eq!(judged.iter().filter(|it| it.is_hypothesis()).count(), 1);
    // What was not run takes nothing from what was; one test against it does.
    let of = |verdicts: &[usize]| judge(verdicts.iter().map(|&at| &found[at])).remove(0).verdict;
    let mut more = found.clone();
    more[1].outcome = Err(Missing { reason: String::new(), command: String::new() });
    assert_eq!(judge(&more[..2])[0].verdict, Verdict::Supported);
    let mut against = found[2].clone();
    against.claim = found[0].claim;
    assert_eq!(judge([&found[0], &against])[0].verdict, Verdict::NotSupported);
    assert_eq!(of(&[0]), Verdict::Supported);
}

#[test]
fn a_claim_of_equal_training_is_not_decided_by_unequal_rows() {
    let mut card = synthetic::claims();
    card.claims.truncate(1);
    card.claims[0].tests.truncate(1);
    let verdict = |card: &Card| tested(card).remove(0).1;
    assert_eq!(verdict(&card), Verdict::Supported);
    // SCAN was trained, CCA is solved.
    card.claims[0].tests[0].equal_budget = true;
    assert_eq!(verdict(&card), Verdict::Undecided);
}

#[test]
fn a_gain_is_the_difference_of_the_means() {
    let recording = synthetic::recording();
    let mean = |label: &str| {
        let of_row = recording.trials.iter().filter(|trial| trial.label == label && trial.metrics.contains_key("rsum"));
        of_row.map(|trial| trial.metrics["rsum"]).sum::<f64>() / 3.0
    };
    let card = synthetic::claims();
    let found = tested(&card);
    let finding = found[2].2.as_ref().unwrap();
    assert!((finding.gain - (mean("VSE++") - mean("CCA"))).abs() < 1e-9);
    assert!(finding.interval.unwrap().contains(finding.gain));
    assert_eq!((finding.basis, finding.images), (Basis::Images, 200));
    // Median ranks 0.7 * 9 = 6 and 0.7 * 6 = 4: less is better, and two ranks are gained.
    let median = found[4].2.as_ref().unwrap();
    assert_eq!((median.values, median.gain, median.basis), ([4.0, 6.0], 2.0, Basis::Seeds));
}

#[test]
fn time_is_gained_in_percent_of_the_other_row() {
    let mut card = synthetic::claims();
    card.claims.truncate(1);
    card.claims[0].tests.truncate(1);
    let mut at = |better: &str, worse: &str, metric: &str, size: Option<f64>| {
        let asked = &mut card.claims[0].tests[0];
        (asked.better, asked.worse, asked.metric) = (better.into(), worse.into(), metric.into());
        (asked.kind, asked.gain, asked.margin) = match size {
            None => (Kind::Superior, None, None),
            size => (Kind::Size, size, Some(10.0)),
        };
        tested(&card).remove(0)
    };
    // A query of CCA takes 12 / 9 ms and up to 0.3 more of it, one of VSE++ 12 / 6: a third less.
    let (_, verdict, found) = at("CCA", "VSE++", "query ms", Some(33.0));
    let found = found.unwrap();
    assert_eq!((verdict, found.basis), (Verdict::Supported, Basis::Clock));
    assert!((found.gain - 33.0).abs() < 5.0 && found.interval.unwrap().contains(found.gain), "{found:?}");
    assert!(found.metric.format_gain(found.gain).ends_with(" %"));
    assert_eq!(at("CCA", "VSE++", "query ms", Some(60.0)).1, Verdict::NotSupported);
    assert_eq!(at("VSE++", "CCA", "query ms", None).1, Verdict::NotSupported);
    // Closed forms have no step.
    let (_, verdict, missing) = at("CCA", "VSE++", "step ms", None);
    assert_eq!(verdict, Verdict::NotRun);
    assert_eq!(missing.unwrap_err().reason, "no step ms of `CCA` and `VSE++` was clocked");
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let card = synthetic::claims();
    let found = tested(&card);
    let missing = |at: usize| found[at].2.as_ref().unwrap_err();
    assert!(missing(6).reason.starts_with("row `IMRAM_2 & co` failed for every seed: loss is NaN"), "{:?}", missing(6));
    assert_eq!(missing(7).reason, "no row `VSE0` in 01-recall");
    assert_eq!(missing(8).reason, "no trial of 05-mnist-halves");
    assert!(
        missing(8).command.contains("xmbench run 05-mnist-halves --profile")
            && missing(8).command.contains("--data-dir DIR")
    );
}

fn complaint(change: impl FnOnce(&mut ClaimTest)) -> String {
    let mut card = synthetic::claims();
    card.claims.truncate(1);
    card.claims[0].tests.truncate(1);
    let test = &mut card.claims[0].tests[0];
    (test.experiment, test.better, test.worse) = ("01-emoji-pairs".into(), "VSE++".into(), "VSE0".into());
    change(test);
    let stated: Vec<Stated<'_>> = of_card(&card).collect();
    check(&stated, None, &Methods::with(&[])).map_or_else(|error| format!("{error:#}"), |()| "sound".into())
}

#[test]
fn tests_that_name_what_does_not_exist_are_found() {
    assert_eq!(complaint(|_| ()), "sound");
    assert_eq!(complaint(|test| test.worse = "VSE++, shuffled pairs".into()), "sound");
    insta::assert_snapshot!(complaint(|test| test.experiment = "01-emoji-pears".into()), @"method made-up, claim attention: no experiment `01-emoji-pears`; did you mean `01-emoji-pairs`?; `xmbench list experiments` shows them all");
    insta::assert_snapshot!(complaint(|test| test.better = "VSE+".into()), @"method made-up, claim attention: experiment 01-emoji-pairs has no row `VSE+`; did you mean `VSE++`?");
    insta::assert_snapshot!(complaint(|test| test.worse = "VSE++".into()), @"method made-up, claim attention: expected two rows, found `VSE++` beside itself");
}

#[test]
fn an_experiment_that_only_the_recording_has_is_known() {
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = of_card(&card).filter(|stated| stated.claim.id == "codes").collect();
    let (recording, methods) = (synthetic::recording(), Methods::with(&[]));
    check(&stated, Some(&recording), &methods).unwrap();
    let error = format!("{:#}", check(&stated, None, &methods).unwrap_err());
    assert!(error.starts_with("method made-up, claim codes: no experiment `02-hashing`"), "{error}");
}

#[test]
fn claims_are_chosen_by_name_or_method() {
    let card = synthetic::claims();
    let all: Vec<Stated<'_>> = of_card(&card).collect();
    let chosen = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        choose(&all, &names).map(|chosen| chosen.len()).map_err(|error| error.to_string())
    };
    assert_eq!((chosen(&[]), chosen(&["made-up"]), chosen(&["codes", "much"])), (Ok(8), Ok(8), Ok(2)));
    let error = chosen(&["code"]).unwrap_err();
    assert_eq!(error, "no claim and no method `code`; did you mean `codes`?; `xmbench claims --list` shows them all");
}

#[test]
fn every_test_of_a_card_names_rows_that_exist() {
    let methods = Methods::with(&[]);
    check(&stated(&methods), None, &methods).unwrap();
}
