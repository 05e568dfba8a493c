//! Training and encoding of every hashing method on as many items as MIRFlickr-25K has for it: random features of an image network's
//! 4096 values and 1386 tags, 128 bits.
//!
//! `cargo bench -p xmbench-methods --bench hashing -- [ITEMS [NAME,..]]`; 18,015 items and all methods when absent. Of methods that
//! train step by step the time is that of one epoch, the second, without what a training does once; closed forms have the time of
//! the fit. The peak is that of the process since the method began, features included.

#![allow(clippy::disallowed_methods, reason = "peak memory is the kernel's to tell")]

use std::{sync::Arc, sync::atomic::AtomicBool, time::Instant};

use xmbench_datasets::{Collection, Images, Matrix, Pairs, Texts, random::Seed};
use xmbench_methods::{
    Run, Training,
    method::{Epoch, Observer},
    registry,
};

const ITEMS: usize = 18_015;
const IMAGE: usize = 4096;
const TEXT: usize = 1386;
/// Tags of an item.
const TAGS: usize = 6;

/// Activations that are mostly 0, and a few tags.
fn collection(items: usize) -> Collection {
    let mut stream = Seed(1).stream(&["bench"]);
    let images = (0..items * IMAGE).map(|_| (stream.normal() as f32).max(0.0)).collect();
    let mut texts = Matrix::zeros(items, TEXT);
    for item in 0..items {
        let row = texts.row_mut(item);
        (0..TAGS).for_each(|_| row[stream.below(TEXT)] = 1.0);
    }
    let ids: Vec<String> = (0..items).map(|i| i.to_string()).collect();
    let images = Matrix { rows: items, cols: IMAGE, data: images };
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(images)), ..Images::default() },
        texts: Texts { ids, global: Some(Arc::new(texts)), ..Texts::default() },
        pairs: Pairs::new(items, items, (0..items as u32).map(|i| (i, i)).collect()),
    }
}

/// Keeps the seconds of epochs.
#[derive(Default)]
struct Seconds(Vec<f64>);

impl Observer for Seconds {
    fn step(&mut self, _: usize, _: usize, _: f64) {}
    fn epoch(&mut self, epoch: &Epoch) {
        self.0.push(epoch.seconds);
    }
}

/// Peak resident memory since the last call, GiB; nothing where the kernel does not say.
fn peak() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kibibytes / f64::from(1 << 20))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let items = args.first().map_or(ITEMS, |items| items.parse().expect("a number of items"));
    let names: Vec<&str> = args.get(1).map(|names| names.split(',').collect()).unwrap_or_default();
    let data = collection(items);
    let training = Training { train: &data, val: None, vocabulary: 0, classes: 0, dataset: "bench" };
    println!("{items} items, {IMAGE} and {TEXT} values\n");
    println!("| method | epoch or fit s | training pairs/s | encode images/s | encode texts/s | peak GiB |");
    println!("|---|---|---|---|---|---|");
    let hashing = registry::methods().filter(|method| method.card().family == "hashing");
    for method in hashing.filter(|method| names.is_empty() || names.contains(&method.card().name.as_str())) {
        let mut params = toml::toml! { bits = 128 };
        let known = method.resolve(&params).expect("128 bits are valid");
        if known.contains_key("epochs") {
            params.insert("epochs".into(), 2.into());
        }
        peak();
        let (stop, mut seconds) = (AtomicBool::new(false), Seconds::default());
        let start = Instant::now();
        let fitted = method.fit(&training, &params, &mut Run::new(Seed(1), &mut seconds, &stop));
        let fit = seconds.0.last().copied().unwrap_or_else(|| start.elapsed().as_secs_f64());
        let name = &method.card().label;
        let matcher = match fitted {
            Ok(matcher) => matcher,
            Err(error) => {
                println!("| {name} | {error} | | | | |");
                continue;
            }
        };
        let rate = |run: &dyn Fn()| {
            let start = Instant::now();
            run();
            items as f64 / start.elapsed().as_secs_f64()
        };
        let images = rate(&|| drop(matcher.encode_images(&data.images).expect("features of the same width")));
        let texts = rate(&|| drop(matcher.encode_texts(&data.texts).expect("features of the same width")));
        let peak = peak().map_or_else(|| "-".into(), |peak| format!("{peak:.1}"));
        println!("| {name} | {fit:.1} | {:.0} | {images:.0} | {texts:.0} | {peak} |", items as f64 / fit);
    }
}
