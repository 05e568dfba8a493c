//! Methods of another crate, most of which go wrong: the run goes on, and the recording says why.

use std::{path::Path, sync::atomic::AtomicBool};

use candle_core::Device;
use xmbench::{
    record::{Control, Manifest, Outcome, Store},
    run::{Clocking, Experiment, Methods, Profile, Progress, Settings, plan, sweep},
};
use xmbench_datasets::{Images, Matrix, Texts};
use xmbench_methods::{Codes, Error, Matcher, Method, Result, Run, Similarity, Training, card::Card, params};

/// Takes the vectors as they are; `fault` says what goes wrong.
struct Faulty;

#[derive(serde::Serialize, serde::Deserialize, Default)]
struct Params {
    fault: String,
}

impl Method for Faulty {
    fn card(&self) -> &Card {
        static CARD: std::sync::LazyLock<Card> = std::sync::LazyLock::new(|| {
            Card::parse(
                "faulty.toml",
                r#"
                name = "faulty"
                family = "example"
                label = "Faulty"
                title = ""
                authors = ""
                venue = ""
                year = 2000
                identifier = ""
                needs = ["images.global"]
                codes = "dense"
                [parameters.fault]
                doc = ""
                range = ""
                paper = ""
                "#,
            )
            .expect("a complete card")
        });
        &CARD
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Ok(params::to_table(&params::parse::<Params>("faulty", table)?))
    }

    fn fit(&self, _: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        run.check_stop()?;
        match table["fault"].as_str() {
            Some("panic") => panic!("the third wheel came off"),
            Some("error") => Err(Error::Numeric("loss is NaN at step 3".into())),
            Some("deep") => Ok(Box::new(Plain(format!("{}", deep(100_000) % 2)))),
            Some(fault) => Ok(Box::new(Plain(fault.into()))),
            None => unreachable!(),
        }
    }

    fn load(&self, _: &Path, _: &Device) -> Result<Box<dyn Matcher>> {
        Ok(Box::new(Plain(String::new())))
    }
}

/// Recursion as deep as the graph of a long recurrence.
fn deep(left: usize) -> usize {
    let held = std::hint::black_box([left; 16]);
    if left == 0 { 0 } else { deep(left - 1) + held[left % 16] % 2 }
}

struct Plain(String);

impl Plain {
    fn codes(&self, items: usize, side: &str) -> Codes {
        let n = if self.0 == format!("few {side}") { items - 1 } else { items };
        let value = if self.0 == format!("nan {side}") { f32::NAN } else { 1.0 };
        Codes::Dense(Matrix { rows: n, cols: 1, data: vec![value; n] })
    }
}

impl Matcher for Plain {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        Ok(self.codes(images.len(), "images"))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        Ok(self.codes(texts.len(), "texts"))
    }

    fn similarity(&self) -> Similarity<'_> {
        if self.0 == "mixed" { Similarity::Hamming } else { Similarity::Cosine }
    }

    fn save(&self, _: &Path) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_failure_is_a_row_with_its_reason_and_the_run_goes_on() {
    let text = r#"
        title = "Faults"
        seeds = [1]
        protocol = { task = { kind = "pairs" } }
        datasets = [{ name = "planted-linear" }]
        [[methods]]
        method = "faulty"
        fault = ["panic", "error", "nan images", "nan texts", "few images", "few texts", "mixed", "deep", "none"]
    "#;
    let methods = Methods::with(&[&Faulty]);
    let experiment = Experiment::parse("faults", "faults.toml", text, Profile::Smoke).unwrap();
    let trials = plan(&experiment, &methods).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let manifest = Manifest { profile: "smoke".into(), ..Manifest::default() };
    let mut store = Store::open(folder.path(), manifest).unwrap();
    let (profile, device) = (Profile::Smoke, Device::Cpu);
    let settings = Settings {
        profile,
        device,
        data: None,
        require_data: true,
        clock: Clocking::Now,
        allow_commands: false,
        lean: true,
        jobs: 2,
    };
    let stop = AtomicBool::new(false);
    let run =
        |store: &mut Store| sweep(&[(&experiment, &trials)], &settings, store, &Progress::new(0, true), &stop).unwrap();
    let summary = run(&mut store);
    assert_eq!((summary.done, summary.failed.len()), (3, 7));
    store.seal().unwrap();
    let recording = xmbench::record::store::read(folder.path()).unwrap();
    let reason = |fault: &str| {
        let trial = recording.trials.iter().find(|trial| trial.swept.get("fault").is_some_and(|value| value == fault));
        match &trial.unwrap().outcome {
            Outcome::Failed { reason } => reason.clone(),
            Outcome::Done => "done".into(),
        }
    };
    assert_eq!(reason("panic"), "the method panicked: the third wheel came off");
    assert_eq!(reason("error"), "loss is NaN at step 3");
    assert!(
        reason("nan images").contains("image 0") && reason("nan texts").contains("text 0"),
        "{}",
        reason("nan images")
    );
    assert!(reason("few images").contains("99") && reason("few images").contains("100"), "{}", reason("few images"));
    assert!(reason("few texts").contains("99"));
    assert_ne!(reason("mixed"), "done");
    assert_eq!((reason("deep"), reason("none")), ("done".into(), "done".into()));
    // Every item has the same code: the expected hit rate over tied orders is that of chance.
    let of = |control: Control| {
        recording.trials.iter().find(|trial| trial.control == control && !trial.metrics.is_empty()).unwrap()
    };
    assert!((of(Control::None).metrics["i2t R@1"] - of(Control::Chance).metrics["i2t R@1"]).abs() < 1e-9);
    // Failed trials are tried again, the others are not.
    let again = run(&mut store);
    assert_eq!((again.done, again.recorded, again.failed.len()), (0, 3, 7));
}
