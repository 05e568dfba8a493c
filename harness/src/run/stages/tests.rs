use super::*;
use crate::run::{Methods, Profile, plan};

const METHODS: &str = "\n[[methods]]\nmethod = 'cca'\nlabel = 'A'\n\
                       [[methods]]\nmethod = 'cca'\nlabel = 'B'\nridge = 0.5\nshuffled = true\n\
                       [[methods]]\nmethod = 'cca'\nlabel = 'C'\ncomponents = [4, 8]\n";

fn planned(task: &str, made: &str) -> Result<Vec<Planned>> {
    let text = format!(
        "title = 'x'\nseeds = [1, 2]\nprotocol = {{ task = {{ {task} }} }}\n[[datasets]]\nname = 'emoji'\n{METHODS}{made}"
    );
    let experiment = Experiment::parse("x", "x.toml", &text, Profile::Quick)?;
    plan(&experiment, &Methods::with(&[]))
}

fn fails(made: &str) -> String {
    format!("{:#}", planned("kind = 'pairs'", made).err().expect("a plan that is refused"))
}

#[test]
fn rows_are_made_seed_by_seed_of_rows_of_that_seed() {
    let made = "[[ensembles]]\nlabel = 'A and B'\nof = ['A', 'B']\n\
                [[rerank]]\nlabel = 'C first'\nfirst = 'C components 8'\nsecond = 'A and B'\nshortlist = [5, 20]\n\
                [[rerank]]\nlabel = 'one size'\nfirst = 'A'\nsecond = 'B'\nshortlist = 7\n";
    let trials = planned("kind = 'pairs'", made).unwrap();
    // A, B with its control, C twice: five rows; an ensemble, two sizes and one; two seeds each.
    assert_eq!(trials.len(), 2 * (5 + 1 + 2 + 1));
    let made: Vec<&Planned> = trials.iter().filter(|trial| matches!(trial.job, Job::Combine(_))).collect();
    let names: Vec<String> = made
        .iter()
        .map(|trial| format!("{} {} {}", trial.position, words::label(&trial.label, &trial.swept), trial.seed))
        .collect();
    assert_eq!(
        names,
        [
            "3 A and B 1",
            "3 A and B 2",
            "4 C first shortlist 5 1",
            "4 C first shortlist 5 2",
            "4 C first shortlist 20 1",
            "4 C first shortlist 20 2",
            "5 one size 1",
            "5 one size 2",
        ]
    );
    assert_eq!(made[0].method(), "ensemble");
    assert_eq!(made[2].method(), "rerank");
    for trial in made {
        let Job::Combine(combined) = &trial.job else { unreachable!() };
        for place in combined.members() {
            assert_eq!((trials[place].seed, trials[place].control), (trial.seed, Control::None));
        }
        let labels = |places: &[usize]| {
            places.iter().map(|&place| words::label(&trials[place].label, &trials[place].swept)).collect::<Vec<_>>()
        };
        match trial.label.as_str() {
            "A and B" => assert_eq!((labels(&combined.first), &combined.second), (vec!["A".into(), "B".into()], &None)),
            "C first" => {
                let (second, size) = combined.second.as_ref().unwrap();
                assert_eq!(
                    (labels(&combined.first), labels(second)),
                    (vec!["C components 8".into()], vec!["A".into(), "B".into()])
                );
                assert_eq!(trial.swept["shortlist"], size.to_string());
            }
            _ => assert_eq!(combined.second.as_ref().unwrap().1, 7),
        }
    }
}

#[test]
fn what_cannot_be_made_is_told_before_anything_runs() {
    let ensemble = |of: &str| {
        fails(&format!(
            "[[ensembles]]\nlabel = 'E'\nof = [{of}]\n[[rerank]]\nlabel = 'R'\nfirst = 'A'\nsecond = 'B'\nshortlist = 3\n"
        ))
    };
    let rerank = |first: &str, second: &str, size: &str| {
        fails(&format!(
            "[[ensembles]]\nlabel = 'E'\nof = ['A', 'B']\n[[rerank]]\nlabel = 'R'\nfirst = '{first}'\nsecond = '{second}'\nshortlist = {size}\n"
        ))
    };
    let messages = [
        ensemble("'A'"),
        ensemble("'A', 'A'"),
        ensemble("'A', 'C'"),
        ensemble("'A', 'C component 4'"),
        ensemble("'A', 'E'"),
        ensemble("'A', 'R'"),
        rerank("A", "D", "3"),
        rerank("R", "A", "3"),
        rerank("A", "A", "3"),
        rerank("A", "E", "0"),
        rerank("A", "E", "[5, 0]"),
        rerank("A", "E", "[5, 5]"),
        rerank("A", "E", "[]"),
        rerank("A", "E", "'all'"),
        fails("[[ensembles]]\nlabel = 'B'\nof = ['A', 'B']\n"),
        fails("[[ensembles]]\nlabel = 'E'\nfo = ['A', 'B']\n"),
        format!(
            "{:#}",
            planned("kind = 'correlation', dimensions = 2", "[[ensembles]]\nlabel = 'E'\nof = ['A', 'B']\n")
                .err()
                .unwrap()
        ),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    experiment x, ensembles entry 1: `of`: expected the labels of at least two rows, found 1
    experiment x, ensembles entry 1: `of` names `A` twice
    experiment x, ensembles entry 1: `of`: `C` is the label of 2 rows; name one of them: `C components 4`, `C components 8`
    experiment x, ensembles entry 1: `of`: `C component 4` is no row of the experiment; did you mean `C components 4`?
    experiment x, ensembles entry 1: `of`: `E` is an ensemble; an ensemble is made of rows that are fitted
    experiment x, ensembles entry 1: `of`: `R` is re-ranked already; name a row that is fitted, or for a stage an ensemble
    experiment x, rerank entry 1: `second`: `D` is no row of the experiment; its rows are A, B, C components 4, C components 8, E
    experiment x, rerank entry 1: `first`: `R` is re-ranked already; name a row that is fitted, or for a stage an ensemble
    experiment x, rerank entry 1: `first` and `second` are both `A`: there is nothing to order anew
    experiment x, rerank entry 1: `shortlist`: expected a number of items from 1 on, or an array of different ones, found 0
    experiment x, rerank entry 1: `shortlist`: expected a number of items from 1 on, or an array of different ones, found 0
    experiment x, rerank entry 1: `shortlist`: expected a number of items from 1 on, or an array of different ones, found 5 twice
    experiment x, rerank entry 1: `shortlist`: expected a number of items from 1 on, or an array of different ones, found none
    experiment x, rerank entry 1: `shortlist`: expected a number of items from 1 on, or an array of different ones, found "all"
    experiment x, ensembles entry 1: the row `B` is there already; give this one a `label` of its own
    x.toml, line 21: unknown field `fo`, expected `label` or `of`
      | fo = ['A', 'B']
    experiment x: `ensembles` and `rerank` combine scores, and the task `correlation` compares codes; choose another task
    "#);
}

#[test]
fn a_value_may_be_expected_of_a_row_that_is_made_of_others() {
    let made = "[[ensembles]]\nlabel = 'E'\nof = ['A', 'B']\n\
                [[expected]]\nlabel = 'E'\nmetric = 'rsum'\nvalue = 1\nsource = 'x'\nevidence = 'measured'\n";
    assert!(planned("kind = 'pairs'", made).is_ok());
    assert!(
        fails(&made.replace("label = 'E'\nmetric", "label = 'F'\nmetric")).contains("`F`, which is no label of it")
    );
}

#[test]
fn rows_for_shortlists_stand_in_second_place_alone() {
    let slow = "\n[[methods]]\nmethod = 'cca'\nlabel = 'Slow'\nshortlists_only = true\n";
    let rerank = |first: &str, second: &str| {
        format!("[[rerank]]\nlabel = 'R'\nfirst = '{first}'\nsecond = '{second}'\nshortlist = 3\n")
    };
    let trials = planned("kind = 'pairs'", &format!("{slow}{}", rerank("A", "Slow"))).unwrap();
    let unscored: Vec<&str> = trials.iter().filter(|trial| !trial.scored).map(|trial| trial.label.as_str()).collect();
    assert_eq!(unscored, ["Slow"; 2]);
    let messages = [
        fails(slow),
        fails(&format!("{slow}{}", rerank("Slow", "A"))),
        fails(&format!("{slow}{}[[ensembles]]\nlabel = 'E'\nof = ['A', 'Slow']\n", rerank("A", "Slow"))),
        fails(&format!("{slow}shuffled = true\n{}", rerank("A", "Slow"))),
        fails(&format!("{slow}select = ['ridge']\nridge = [0.1, 1]\n{}", rerank("A", "Slow"))),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r"
    experiment x: row `Slow` is for shortlists only, and no `rerank` entry has it as its `second`
    experiment x: row `Slow` is for shortlists only, and no `rerank` entry has it as its `second`
    experiment x, ensembles entry 1: `of`: row `Slow` is for shortlists only; it can be the `second` of a `rerank` entry
    experiment x, methods entry 4: `shuffled` needs scores of a gallery, of which there are none with `shortlists_only`
    experiment x, methods entry 4: `select` needs scores of a gallery, of which there are none with `shortlists_only`
    ");
    let both = format!("{slow}{}{}", rerank("A", "Slow"), rerank("Slow", "A").replace("'R'", "'S'"));
    let expected = "experiment x, rerank entry 2: `first`: row `Slow` is for shortlists only; it can be the `second` of a `rerank` entry";
    assert_eq!(fails(&both), expected);
}

#[test]
fn a_profile_may_have_shortlists_of_its_own() {
    let made = "[[rerank]]\nlabel = 'R'\nfirst = 'A'\nsecond = 'B'\nshortlist = [5, 20]\n";
    let sizes = |profile: &str| -> Result<Vec<String>> {
        let trials = planned("kind = 'pairs'", &format!("{made}[profile.quick]\n{profile}"))?;
        let reranked = trials.iter().filter(|trial| trial.label == "R" && trial.seed == 1);
        Ok(reranked.map(|trial| trial.params["shortlist"].to_string()).collect())
    };
    assert_eq!(sizes("").unwrap(), ["5", "20"]);
    assert_eq!(sizes("params.R = { shortlist = [7, 8, 9] }").unwrap(), ["7", "8", "9"]);
    let error = format!("{:#}", sizes("params.R = { first = 'B' }").unwrap_err());
    assert!(error.ends_with("profile.quick.params.\"R\": expected `shortlist`, found `first`"), "{error}");
}
