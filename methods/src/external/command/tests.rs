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
fn scores_of_pairs_are_those_of_the_items_that_were_asked_for() {
    let dataset = planted();
    let folder = tempfile::tempdir().unwrap();
    // A hundred times the row and the column, as the program counts them.
    let mut matrix = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    matrix.extend(format!("{:<117}\n", "{'descr': '<f4', 'fortran_order': False, 'shape': (10, 10), }").bytes());
    let values = (0..10).flat_map(|row| (0..10).map(move |column| 100.0 * row as f32 + column as f32));
    matrix.extend(values.flat_map(f32::to_le_bytes));
    fs::write(folder.path().join("matrix.npy"), matrix).unwrap();
    let command = format!(
        "cd {0}; case $XMBENCH_PHASE in fit) ;; pairs) test -s $XMBENCH_IN/images/images.npy && test -s $XMBENCH_IN/texts/texts.npy && \
         echo x >> calls && cp matrix.npy $XMBENCH_OUT;; *) exit 9;; esac",
        folder.path().display()
    );
    let mut table = table(&command);
    table.insert("pairs".into(), true.into());
    let (mut silent, stop) = (Silent, never());
    let mut run = Run::new(Seed(7), &mut silent, &stop);
    let matcher = Command.fit(&Training::of(&dataset), &table, &mut run).unwrap();
    let Similarity::Pairwise(scorer) = matcher.similarity() else { panic!("pairs") };
    // Other items before, so that numbers do not begin at 0.
    let val = dataset.val.as_ref().unwrap();
    let few = [matcher.encode_images(&val.images), matcher.encode_texts(&val.texts)].map(Result::unwrap);
    let place = |side: &str| {
        let order = Seed(7).stream(&[NAME, side, "10"]).permutation(10);
        (0..10).map(|item| order.iter().position(|&it| it == item).unwrap()).collect::<Vec<_>>()
    };
    let (rows, columns) = (place("images"), place("texts"));
    // Asked for again, to the byte: the same numbers, and no second call.
    for _ in 0..2 {
        let images = matcher.encode_images(&dataset.test.images).unwrap();
        let texts = matcher.encode_texts(&dataset.test.texts).unwrap();
        let mut out = vec![0.0; 12];
        scorer.score(&images, 2..5, &texts, 4..8, &mut out).unwrap();
        let expected = (2..5).flat_map(|image| (4..8).map(move |text| (image, text)));
        let expected: Vec<f32> =
            expected.map(|(image, text)| 100.0 * rows[image] as f32 + columns[text] as f32).collect();
        assert_eq!(out, expected);
    }
    assert_eq!(fs::read_to_string(folder.path().join("calls")).unwrap().lines().count(), 1);
    // Five items have no matrix of ten.
    let error = scorer.score(&few[0], 0..1, &few[1], 0..1, &mut [0.0]).unwrap_err().to_string();
    assert!(error.contains("pairs-0-0.npy: expected 5 rows, one for each of the images, found 10 rows"), "{error}");
    let error = scorer.score(&Codes::Dense(Matrix::zeros(3, 2)), 0..1, &few[1], 0..1, &mut [0.0]).unwrap_err();
    assert!(error.to_string().contains("expected codes of this matcher"), "{error}");
    let remark = Command.remark(&table).unwrap();
    assert!(remark.ends_with("in one call, which no time here has in it"), "{remark}");
    table.insert("similarity".into(), "dot".into());
    assert!(Command.resolve(&table).unwrap_err().to_string().contains("the default beside `pairs`"));
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
