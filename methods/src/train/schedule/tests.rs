use super::*;
use crate::params;

#[test]
fn a_schedule_is_flattened_into_parameters() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Params {
        margin: f64,
        #[serde(flatten)]
        schedule: Schedule,
    }
    let parsed: Params = params::parse(
        "m",
        &toml::toml! { margin = 1 epochs = 3 learning_rate = 1 optimiser = "sgd" decay_at = [1, 2] },
    )
    .unwrap();
    let expected = Schedule {
        epochs: 3,
        learning_rate: 1.0,
        optimiser: Optimiser::Sgd,
        decay_at: vec![1, 2],
        ..Schedule::default()
    };
    assert_eq!(parsed, Params { margin: 1.0, schedule: expected });
    let error = params::parse::<Params>("m", &toml::toml! { epoch = 3 }).unwrap_err().to_string();
    assert!(error.contains("did you mean `epochs`?"), "{error}");
    for table in [
        toml::toml! { epochs = -1 },
        toml::toml! { optimiser = "rmsprop" },
        toml::toml! { decay_at = 15 },
        toml::toml! { clip = "no" },
    ] {
        let error = params::parse::<Params>("m", &table).unwrap_err().to_string();
        assert!(error.contains(table.keys().next().unwrap()), "{error}");
    }
    assert_eq!(params::to_table(&Params::default()).len(), 18);
}

#[test]
fn schedules_out_of_range_are_refused() {
    for (key, schedule) in [
        ("epochs", Schedule { epochs: 0, ..Schedule::default() }),
        ("batch", Schedule { batch: 0, ..Schedule::default() }),
        ("validate_every", Schedule { validate_every: 0, ..Schedule::default() }),
        ("learning_rate", Schedule { learning_rate: f64::NAN, ..Schedule::default() }),
        ("decay", Schedule { decay: 0.0, ..Schedule::default() }),
        ("clip", Schedule { clip: -1.0, ..Schedule::default() }),
        ("weight_decay", Schedule { weight_decay: f64::INFINITY, ..Schedule::default() }),
        ("momentum", Schedule { momentum: 1.0, optimiser: Optimiser::Sgd, ..Schedule::default() }),
        ("momentum", Schedule { momentum: 0.0, optimiser: Optimiser::Nesterov, ..Schedule::default() }),
        ("beta1", Schedule { beta1: -0.1, ..Schedule::default() }),
        ("beta2", Schedule { beta2: f64::NAN, ..Schedule::default() }),
        ("decay_at", Schedule { decay_at: vec![0, 3], ..Schedule::default() }),
        ("decay_at", Schedule { decay_at: vec![3, 3], ..Schedule::default() }),
    ] {
        let error = schedule.check("m").unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn a_value_that_would_change_nothing_is_refused() {
    let cosine = || Schedule { rate_schedule: RateSchedule::Cosine, decay_every: 0, ..Schedule::default() };
    let at = || Schedule { decay_at: vec![1, 3], decay_every: 0, ..Schedule::default() };
    for (key, schedule) in [
        ("patience", Schedule { patience: 2, epochs: 3, validate_every: 4, ..Schedule::default() }),
        ("momentum", Schedule { momentum: 0.5, ..Schedule::default() }),
        ("beta1", Schedule { beta1: 0.5, optimiser: Optimiser::Sgd, ..Schedule::default() }),
        ("beta2", Schedule { beta2: 0.9, optimiser: Optimiser::Nesterov, ..Schedule::default() }),
        ("decay_at", Schedule { decay_at: vec![1], ..cosine() }),
        ("decay_every", Schedule { decay_every: 2, ..cosine() }),
        ("decay", Schedule { decay: 0.5, ..cosine() }),
        ("decay_every", Schedule { decay_every: 2, ..at() }),
    ] {
        let error = schedule.check("m").unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
    // What is off or was never set stays out of the way.
    for schedule in
        [cosine(), at(), Schedule { decay_every: 15, decay: 1.0, ..cosine() }, Schedule { decay_every: 15, ..at() }]
    {
        schedule.check("m").unwrap();
    }
}
