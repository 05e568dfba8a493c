//! What the tests of this family share: planted items of a known alignment, and texts that try the limits.

use std::sync::atomic::AtomicBool;

use xmbench_datasets::{Collection, Dataset, planted::Truth, random::Seed};

use crate::{
    Codes, Error, Matcher, Method, Result, Run, Training,
    method::{Epoch, Observer, Silent},
    trained::planted::{self, fit_as, view},
};

/// A planted dataset.
pub fn open(name: &str, options: &toml::Table) -> Dataset {
    xmbench_datasets::open(name, options, None).expect("a planted dataset needs no files")
}

/// Fitted on a planted dataset.
pub fn fit_on(method: &dyn Method, dataset: &Dataset, options: toml::Table) -> Box<dyn Matcher> {
    let (stop, mut silent) = (AtomicBool::new(false), Silent);
    let mut run = Run::new(Seed(1), &mut silent, &stop);
    method.fit(&Training::of(dataset), &small(method, options), &mut run).unwrap()
}

/// Parameters of a small size, and the given ones.
pub fn small(method: &dyn Method, options: toml::Table) -> toml::Table {
    let sizes = toml::toml! { head_hidden = 64 head_width = 32 projection = 32 prototypes = 24 context_layers = 0 decay_every = 0 };
    let known = method.resolve(&toml::Table::new()).expect("defaults are valid");
    let sizes = sizes.into_iter().filter(|(key, _)| known.contains_key(key)).chain(options).collect();
    planted::small(method, sizes)
}

/// Share of test concepts whose word has its largest weight at a fragment that shows them, in map `which`; the first text of each
/// image asks.
pub fn accuracy(matcher: &dyn Matcher, dataset: &Dataset, truth: &Truth, which: usize) -> f64 {
    let test = &dataset.test;
    truth.accuracy(|image, concept| {
        let text = test.pairs.texts_of(image)[0] as usize;
        let map = &matcher.attention((&test.images, image), (&test.texts, text)).unwrap()[which];
        let tokens = &test.texts.tokens.as_ref().unwrap()[text];
        let word = tokens.iter().position(|&token| dataset.words[token as usize] == truth.words[concept]).unwrap();
        let row = &map.weights[word * map.answers..(word + 1) * map.answers];
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-4 && map.weights.len() == tokens.len() * map.answers);
        (0..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
    })
}

/// The loss of the first epoch, before anything has moved: all pairs are one batch.
pub fn first_loss(method: &dyn Method, train: &Collection, options: toml::Table) -> f64 {
    let still = toml::toml! { learning_rate = 1e-12 epochs = 1 batch = 4096 };
    let options = small(method, options.into_iter().chain(still).collect());
    fit_as(method, train, options, false).unwrap().1[0]
}

/// The first loss has a part in proportion to each of the weights, while the others are 0.
pub fn weights_are_felt(method: &dyn Method, weights: &[&str], rest: &toml::Table) {
    let train = planted::planted("train", 12);
    for weight in weights {
        let at = |value: f64| {
            let mut options = rest.clone();
            options.extend(weights.iter().map(|other| ((*other).to_owned(), 0.0.into())));
            options.insert((*weight).to_owned(), value.into());
            first_loss(method, &train, options)
        };
        let [none, one, two] = [0.0, 1.0, 2.0].map(at);
        assert!(one - none > 0.1 && ((two - one) - (one - none)).abs() < 1e-4 * two, "{weight}: {none} {one} {two}");
    }
}

/// Each of the options, beside the rest, leads to other codes than the rest alone.
pub fn options_are_felt(method: &dyn Method, rest: &toml::Table, options: impl IntoIterator<Item = toml::Table>) {
    let train = planted::planted("train", 40);
    let at = |options: &toml::Table| {
        let options = rest.clone().into_iter().chain(options.clone()).collect();
        codes(&*planted::fit(method, &train, small(method, options)).unwrap(), &train)
    };
    let plain = at(&toml::Table::new());
    for options in options {
        assert!(at(&options) != plain, "{options:?} beside {rest:?}");
    }
}

/// Codes of both sides.
pub fn codes(matcher: &dyn Matcher, items: &Collection) -> [Codes; 2] {
    [matcher.encode_images(&items.images).unwrap(), matcher.encode_texts(&items.texts).unwrap()]
}

/// Texts of one word between marks.
pub fn one_word(mut items: Collection) -> Collection {
    let tokens = items.texts.tokens.as_mut().unwrap();
    tokens.iter_mut().for_each(|text| *text = vec![text[0], text[1], *text.last().unwrap()]);
    items
}

/// Texts that are all the same.
pub fn all_equal(mut items: Collection) -> Collection {
    let tokens = items.texts.tokens.as_mut().unwrap();
    let first = tokens[0].clone();
    tokens.iter_mut().for_each(|text| text.clone_from(&first));
    items
}

/// Fits what tries the limits and asserts that codes are numbers.
pub fn copes(method: &dyn Method, train: &Collection, options: toml::Table) {
    let options = small(method, toml::toml! { epochs = 2 }.into_iter().chain(options).collect());
    let (matcher, losses) =
        fit_as(method, train, options.clone(), true).unwrap_or_else(|error| panic!("{options:?}: {error}"));
    assert!(losses.iter().all(|loss| loss.is_finite()), "{options:?}: {losses:?}");
    for codes in codes(&*matcher, train) {
        let Codes::Dense(codes) = codes else { panic!("codes are dense") };
        assert!(codes.data.iter().all(|value| value.is_finite()), "{options:?}");
    }
}

/// Asks to stop after some epochs.
struct StopAfter<'a>(usize, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn step(&mut self, _: usize, _: usize, _: f64) {}
    fn epoch(&mut self, epoch: &Epoch) {
        self.1.store(epoch.epoch == self.0, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A training that is interrupted after two epochs and goes on, and one that is not.
pub fn interrupted(method: &dyn Method, train: &Collection, options: toml::Table) -> Result<[Box<dyn Matcher>; 2]> {
    let params = small(method, options);
    let stop = AtomicBool::new(false);
    let whole = method.fit(&view(train), &params, &mut Run::new(Seed(2), &mut Silent, &stop))?;
    let folder = tempfile::tempdir().unwrap();
    let mut stopper = StopAfter(2, &stop);
    let mut run = Run::new(Seed(2), &mut stopper, &stop);
    run.checkpoints = Some(folder.path().into());
    assert!(matches!(method.fit(&view(train), &params, &mut run), Err(Error::Interrupted)));
    stop.store(false, std::sync::atomic::Ordering::Relaxed);
    let mut silent = Silent;
    let mut run = Run::new(Seed(2), &mut silent, &stop);
    run.checkpoints = Some(folder.path().into());
    Ok([whole, method.fit(&view(train), &params, &mut run)?])
}
