//! Trials side by side: the same bits as one after another, each once, and what a fit had beside it stands with it.

use crate::common::{EVERY_KIND, Place, all_numbers};
use xmbench::record::{Control, Trial};

#[test]
fn side_by_side_gives_the_bits_of_one_after_another() {
    let place = Place::new();
    place.write("a.toml", EVERY_KIND);
    for jobs in ["1", "3"] {
        let run =
            format!("run a.toml --profile smoke --threads 3 --jobs {jobs} --out out{jobs} --reports reports{jobs}");
        place.run(&run).code(0);
    }
    let [alone, beside] = ["out1", "out3"].map(|out| place.recording(out));
    assert_eq!(all_numbers(&alone), all_numbers(&beside));
    let fitted = |trial: &&Trial| trial.control != Control::Chance && !trial.is_made_of_others();
    let threads = |trial: &Trial| trial.origin.as_ref().unwrap().fit_threads;
    assert!(alone.trials.iter().all(|trial| threads(trial).is_none()));
    assert!(beside.trials.iter().filter(fitted).all(|trial| threads(trial) == Some(1)));
    assert!(beside.trials.iter().filter(|trial| !fitted(trial)).all(|trial| threads(trial).is_none()));
    // Each counts its own memory.
    let most = |trial: &Trial| trial.peak_memory;
    let trained = |trials: &[Trial]| trials.iter().filter(fitted).map(most).collect::<Vec<_>>();
    for memory in [trained(&alone.trials), trained(&beside.trials)].concat() {
        assert!((1 << 10..1 << 30).contains(&memory), "{memory}");
    }
    let cost = |reports: &str| {
        let files = std::fs::read_dir(place.path(reports)).unwrap().map(|entry| entry.unwrap().path());
        let mut tables = files.filter(|path| path.to_string_lossy().ends_with("cost.md"));
        std::fs::read_to_string(tables.next().expect("a table of cost")).unwrap()
    };
    assert!(
        cost("reports3").contains("of a step are of 1 of 3 threads, while other fits ran beside"),
        "{}",
        cost("reports3")
    );
    assert!(!cost("reports1").contains("other fits ran beside"));
}

#[test]
fn what_two_experiments_share_is_fitted_once() {
    let place = Place::new();
    for name in ["a.toml", "b.toml"] {
        place.write(name, EVERY_KIND);
    }
    let [one, both] = [("one", "a.toml"), ("both", "a.toml b.toml")].map(|(out, files)| {
        let said = place.run(&format!("run {files} --profile smoke --jobs 2 --no-report --json --out {out}")).code(0);
        let said = said.json();
        [&said["done"], &said["recorded_before"]].map(|count| count.as_u64().unwrap())
    });
    assert_eq!(one[1], 0);
    assert_eq!(both, [one[0], one[0]], "the second experiment has what the first one ran");
}
