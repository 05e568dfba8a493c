//! What datasets have in common whose fragments show concepts that their captions name.

use std::{collections::HashSet, ops::Range};

use super::{NOUNS, Shown, Truth};
use crate::{Dataset, Error, Matrix, Result, Source, draft::Draft, options::Options, random::Stream};

/// A model that draws such a dataset.
pub(super) trait Model: Sized {
    /// The dataset and its options.
    const SOURCE: Source;

    /// The model that the options ask for.
    fn new(options: &Options) -> Result<Self>;

    /// What a fragment that shows a concept looks like, `[concepts, width]`, beside noise.
    fn prototypes(&self) -> &Matrix;

    /// Standard deviation of that noise.
    fn noise(&self) -> f64;

    /// The concepts of so many items, in the order in which [`Model::places`] has them.
    fn concepts(&self, items: usize) -> Result<Vec<Vec<usize>>>;

    /// The fragments that show each concept of an item.
    fn places(&self, item: usize) -> Vec<Range<usize>>;

    /// The items of these concepts.
    fn draw(&self, concepts: &[Vec<usize>]) -> Draft;

    /// The nouns of the concepts.
    fn nouns(&self) -> Vec<String> {
        NOUNS[..self.prototypes().rows].iter().map(|&noun| noun.to_owned()).collect()
    }
}

/// The dataset of these options.
pub(super) fn load<M: Model>(options: &Options) -> Result<Dataset> {
    let (model, sizes) = (M::new(options)?, super::sizes(options)?);
    let draft = model.draw(&model.concepts(sizes.iter().sum())?);
    let (words, splits) = super::cut(&draft, sizes);
    super::dataset(M::SOURCE.name, options, words, model.nouns(), splits)
}

/// Where the concepts of its test items are.
pub(super) fn truth<M: Model>(options: &toml::Table) -> Result<Truth> {
    let options = Options::new(M::SOURCE.options, options)?;
    let (model, sizes) = (M::new(&options)?, super::sizes(&options)?);
    let concepts = model.concepts(sizes.iter().sum())?;
    let [_, _, test] = super::runs(sizes);
    let items = test.into_iter().map(|item| {
        let shown = concepts[item].iter().zip(model.places(item));
        shown.map(|(&concept, fragments)| Shown { concept, fragments }).collect()
    });
    let items = items.collect();
    Ok(Truth { words: model.nouns(), prototypes: model.prototypes().clone(), noise: model.noise(), items })
}

/// How concepts are drawn from all there are.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// So many for an item.
    pub shown: usize,
    /// Of so many.
    pub of: usize,
    /// Whether the same concepts in another order are another choice; else each is sorted.
    pub ordered: bool,
    /// What an item is called: `images`.
    pub items: &'static str,
}

impl Choice {
    /// `count` different choices.
    ///
    /// # Errors
    /// If there are not so many.
    pub fn draw(self, count: usize, stream: &mut Stream) -> Result<Vec<Vec<usize>>> {
        let Self { shown, of, ordered, items } = self;
        let orders = |i: usize| if ordered { 1 } else { i + 1 };
        let possible = (0..shown).fold(1.0, |n, i| n * (of - i) as f64 / orders(i) as f64).round();
        if count as f64 > possible {
            let each = if ordered { "order" } else { "set" };
            return Err(Error::option(
                "train + val + test",
                format!("at most {possible} {items}, one for each {each} of {shown} out of {of} concepts"),
                count.to_string(),
                format!("ask for fewer {items}, or raise `concepts` or `shown`"),
            ));
        }
        let (mut seen, mut drawn) = (HashSet::new(), Vec::new());
        while drawn.len() < count {
            let mut choice = stream.permutation(of);
            choice.truncate(shown);
            if !ordered {
                choice.sort_unstable();
            }
            if seen.insert(choice.clone()) {
                drawn.push(choice);
            }
        }
        Ok(drawn)
    }
}
