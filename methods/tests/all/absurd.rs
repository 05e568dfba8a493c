//! No whole number that a parameter takes may end the process: each is set to a million million in a process of its own, with so
//! much room that an allocation that was not asked for fails at once.

use std::{
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use xmbench_datasets::random::Seed;
use xmbench_methods::{Run, Training, method::Silent, registry};

const ABSURD: i64 = 1_000_000_000_000;
/// Which parameter a process tries.
const CASE: &str = "XMBENCH_ABSURD";
/// A parameter that asks for steps, and not for memory, runs on until then.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a case tries; nothing where this is not such a process.
#[test]
#[ignore = "runs as a process of the other test"]
fn one() {
    let Ok(case) = std::env::var(CASE) else { return };
    let (name, key) = case.split_once(' ').unwrap();
    let method = registry::find(name).unwrap();
    let mut params = method.resolve(&toml::Table::new()).unwrap();
    if params.contains_key("epochs") {
        params.insert("epochs".into(), 1.into());
    }
    match &mut params[key] {
        toml::Value::Array(values) => values.iter_mut().for_each(|value| *value = ABSURD.into()),
        value => *value = ABSURD.into(),
    }
    let options = toml::toml! { train = 40 val = 10 test = 10 };
    let dataset = xmbench_datasets::open("planted-fragments", &options, None).unwrap();
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let fitted = method.fit(&Training::of(&dataset), &params, &mut Run::new(Seed(1), &mut silent, &stop));
    println!("{case}: {}", fitted.err().map_or("fits".to_string(), |error| error.to_string()));
}

#[test]
#[ignore = "minutes: a process a parameter"]
fn no_whole_number_ends_the_process() {
    let mut ended = Vec::new();
    let mut tried = 0;
    for method in registry::methods() {
        let params = method.resolve(&toml::Table::new()).unwrap();
        for (key, value) in &params {
            let whole = |value: &toml::Value| value.is_integer();
            if !(whole(value) || value.as_array().is_some_and(|values| !values.is_empty() && values.iter().all(whole)))
            {
                continue;
            }
            tried += 1;
            let case = format!("{} {key}", method.card().name);
            // Address space of 8 GB, of which a process of many threads takes one or two.
            let line = "ulimit -v 8000000; exec \"$0\" --exact absurd::one --ignored --nocapture";
            let mut child = Command::new("sh")
                .args(["-c", line])
                .arg(std::env::current_exe().unwrap())
                .env(CASE, &case)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begin = Instant::now();
            let status = loop {
                match child.try_wait().unwrap() {
                    Some(status) => break Some(status),
                    None if begin.elapsed() > PATIENCE => {
                        child.kill().unwrap();
                        child.wait().unwrap();
                        break None;
                    }
                    None => std::thread::sleep(Duration::from_millis(20)),
                }
            };
            println!("{case}: {status:?} in {:.1} s", begin.elapsed().as_secs_f64());
            // A panic is an exit code and a row of a recording; a signal is the end of the run.
            if status.is_some_and(|status| status.code().is_none()) {
                ended.push(case);
            }
        }
    }
    println!("{tried} parameters");
    assert!(ended.is_empty(), "{ended:#?}");
}
