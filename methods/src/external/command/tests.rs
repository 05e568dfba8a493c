use xmbench_datasets::Dataset;

use super::*;
use crate::{method::Silent, registry};

fn planted() -> Dataset {
    let options = toml::toml! { image_width = 6 text_width = 6 latent = 4 train = 20 val = 5 test = 10 };
    xmbench_datasets::open("planted-linear", &options, None).unwrap()
}

/// Hands its input back, and keeps the seed.
const BACK: &str = "case $XMBENCH_PHASE in fit) echo $XMBENCH_SEED $XMBENCH_OPTIONS >$XMBENCH_MODEL/seed;; \
                    *) test -s $XMBENCH_MODEL/seed && cp $XMBENCH_IN/$XMBENCH_PHASE.npy $XMBENCH_OUT;; esac";

fn table(command: &str) -> toml::Table {
    [("command", command), ("options", "a b")].map(|(key, value)| (key.to_string(), value.into())).into_iter().collect()
}

fn fit(command: &str, dataset: &Dataset, stop: &AtomicBool) -> Result<Box<dyn Matcher>> {
    let mut silent = Silent;
    Command.fit(&Training::of(dataset), &table(command), &mut Run::new(Seed(7), &mut silent, stop))
}

fn dense(codes: Codes) -> Matrix {
    match codes {
        Codes::Dense(matrix) => matrix,
        other => panic!("{other:?}"),
    }
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

#[test]
fn its_card_says_that_it_runs_programs_and_documents_every_parameter() {
    let method = registry::find("command").unwrap();
    assert!(method.card().runs_programs && !registry::find("given").unwrap().card().runs_programs);
    let known = method.resolve(&toml::Table::new()).unwrap();
    let mut keys: Vec<&String> = known.keys().collect();
    keys.sort();
    assert!(keys.into_iter().eq(method.card().parameters.keys()));
    let said = |table: toml::Table| method.resolve(&table).unwrap_err().to_string();
    assert!(said(toml::toml! { time_limit = 1 }).contains("`command`: expected a command line"));
    assert!(said(toml::toml! { command = "x" time_limit = 0 }).contains("`time_limit`: expected seconds above 0"));
    assert!(said(toml::toml! { command = "x" code_bits = 3 }).contains("`code_bits`"));
}

#[test]
fn what_it_hands_back_comes_back_in_the_order_of_the_items_saved_or_not() {
    let dataset = planted();
    let matcher = fit(BACK, &dataset, &never()).unwrap();
    let saved = tempfile::tempdir().unwrap();
    matcher.save(saved.path()).unwrap();
    assert_eq!(fs::read_to_string(saved.path().join("model/seed")).unwrap(), "7 a b\n");
    let loaded = Command.load(saved.path(), &Device::Cpu).unwrap();
    for matcher in [&matcher, &loaded] {
        // Splits of different sizes, one after the other and again.
        for collection in [&dataset.test, dataset.val.as_ref().unwrap(), &dataset.test] {
            let images: &dyn Features = &**collection.images.global.as_ref().unwrap();
            let texts: &dyn Features = &**collection.texts.global.as_ref().unwrap();
            assert_eq!(dense(matcher.encode_images(&collection.images).unwrap()), images.all().unwrap());
            assert_eq!(dense(matcher.encode_texts(&collection.texts).unwrap()), texts.all().unwrap());
        }
    }
}

#[test]
fn a_program_is_told_of_as_it_ends() {
    let dataset = planted();
    let said = |command: &str| fit(command, &dataset, &never()).err().unwrap().to_string();
    let failed = said("echo one; echo two >&2; exit 4");
    assert!(failed.contains("ended with exit status: 4 in phase `fit`; its last lines: one | two"), "{failed}");
    assert!(said("kill -9 $$").contains("ended with signal: 9") && said("false").contains("it printed nothing"));
    let long = said("yes long | head -c 100000; exit 1");
    assert!(long.len() < 3000, "{} characters", long.len());
    let stop = AtomicBool::new(true);
    assert!(matches!(fit("sleep 60", &dataset, &stop), Err(Error::Interrupted)));
    assert!(stop.load(Ordering::Relaxed));
    // It leaves nothing behind it that goes on.
    let folder = tempfile::tempdir().unwrap();
    let child = folder.path().join("child");
    fit(&format!("sleep 60 >/dev/null 2>&1 & echo $! > {}", child.display()), &dataset, &never()).unwrap();
    let child = fs::read_to_string(child).unwrap();
    // A signal that was sent takes a moment to arrive; a zombie that nobody has waited for is dead as well.
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    let dead = || state().is_empty() || state().contains(") Z");
    (0..500).find(|_| {
        dead() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }
    });
    assert!(dead(), "{}", state());
}

#[test]
fn what_it_writes_is_held_against_what_was_asked() {
    let dataset = planted();
    let said = |command: &str| {
        let command = format!("test $XMBENCH_PHASE = fit || {{ {command}; }}");
        let matcher = fit(&command, &dataset, &never()).unwrap();
        matcher.encode_images(&dataset.test.images).unwrap_err().to_string()
    };
    assert!(said("true").contains("images.npy: expected what the program wrote, found nothing"));
    assert!(said("echo text > $XMBENCH_OUT").contains("expected a .npy, .npz or safetensors file"));
    let cut = said("head -c 100 $XMBENCH_IN/images.npy > $XMBENCH_OUT");
    assert!(cut.contains("images.npy"), "{cut}");
}
