use std::cell::{OnceCell, RefCell, RefMut};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Labels, random::Stream};

use super::Body;
use crate::{
    Error, Result, Training,
    loss::{Relation, Relations},
    train::Step,
};

/// Positions of what a step encodes, in the training split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    /// Images.
    pub images: Vec<usize>,
    /// Texts.
    pub texts: Vec<usize>,
    /// Place in `images` of each text's image.
    pub owner: Vec<usize>,
}

impl Items {
    /// The images and texts of some pairs, in their order.
    pub fn of(pairs: &[(u32, u32)]) -> Self {
        let (images, texts) = pairs.iter().map(|&(image, text)| (image as usize, text as usize)).unzip();
        Self { images, texts, owner: (0..pairs.len()).collect() }
    }
}

/// What a loss sees of a step. What the networks make of the items is computed when it is first asked for, and once.
pub struct Batch<'a, B: Body> {
    /// The method's name, for messages.
    pub method: &'static str,
    /// The training data.
    pub training: &'a Training<'a>,
    /// Positions of images and texts in them.
    pub items: Items,
    /// The epoch, counted from 0.
    pub epoch: usize,
    /// The step, counted from 0 over the whole training.
    pub step: usize,
    /// Which of the method's phases.
    pub phase: usize,
    body: &'a B,
    seen: B::Seen,
    device: &'a Device,
    negatives: Option<Negatives>,
    stream: RefCell<&'a mut Stream>,
}

/// Which texts of a batch are negatives of an image, and the other way around.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Negatives {
    /// Those that do not belong to it.
    Others,
    /// Every one but that of the pair, as fartashf/vsepp@abe382f and kuanghuei/SCAN@8063557 have it: other texts of the same image too.
    Paper,
    /// Those that do not belong to it and share no class with it.
    Classes,
}

impl Negatives {
    /// What a table says beside a row.
    pub fn remark(self) -> Option<String> {
        (self == Self::Paper).then(|| "other texts of the same image count as negatives, as in released code".into())
    }
}

impl<'a, B: Body> Batch<'a, B> {
    pub(super) fn new(
        method: &'static str,
        training: &'a Training<'a>,
        body: &'a B,
        items: Items,
        negatives: Option<Negatives>,
        step: &'a mut Step,
        device: &'a Device,
    ) -> Self {
        let Step { epoch, step, phase, ref mut stream } = *step;
        let stream = RefCell::new(stream);
        Self { method, training, items, epoch, step, phase, body, seen: B::Seen::default(), device, negatives, stream }
    }

    /// The networks.
    pub fn body(&self) -> &'a B {
        self.body
    }

    /// Where tensors live.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// Random numbers of this step.
    pub fn stream(&self) -> RefMut<'_, Stream> {
        RefMut::map(self.stream.borrow_mut(), |stream| &mut **stream)
    }

    /// What is in a cell of [`Body::Seen`], computed if it is not there yet.
    ///
    /// # Errors
    /// Those of the computation.
    pub fn once<T>(
        &self,
        cell: impl FnOnce(&B::Seen) -> &OnceCell<T>,
        compute: impl FnOnce() -> Result<T>,
    ) -> Result<&T> {
        let cell = cell(&self.seen);
        match cell.get() {
            Some(value) => Ok(value),
            None => {
                let value = compute()?;
                Ok(cell.get_or_init(|| value))
            }
        }
    }

    /// Which texts are negatives of an image; those that do not belong to it, where the method has no choice.
    pub fn negatives(&self) -> Negatives {
        self.negatives.unwrap_or(Negatives::Others)
    }

    /// What image `i` and text `j` of a batch of pairs are to each other: positives on the diagonal, and negatives as the
    /// parameter says.
    ///
    /// # Errors
    /// If negatives go by classes and there are none.
    pub fn relations(&self) -> Result<Relations> {
        let negatives = self.negatives();
        let pairs = &self.training.train.pairs;
        let labels = match negatives {
            Negatives::Classes => Some(self.labels()?),
            _ => None,
        };
        let Items { images, texts, .. } = &self.items;
        Ok(Relations::new(images.len(), texts.len(), |i, j| {
            let belongs = || pairs.texts_of(images[i]).binary_search(&(texts[j] as u32)).is_ok();
            let shares = || labels.is_some_and(|(x, y)| Labels::share(&x.of[images[i]], &y.of[texts[j]]));
            match () {
                () if i == j => Relation::Positive,
                () if negatives != Negatives::Paper && (belongs() || shares()) => Relation::Ignored,
                () => Relation::Negative,
            }
        }))
    }

    /// Labels of all training images and texts.
    ///
    /// # Errors
    /// If there are none.
    pub fn labels(&self) -> Result<(&'a Labels, &'a Labels)> {
        let train = self.training.train;
        let missing = |need| self.training.missing(self.method, need);
        let images = train.images.labels.as_ref().ok_or_else(|| missing("images.labels"))?;
        Ok((images, train.texts.labels.as_ref().ok_or_else(|| missing("texts.labels"))?))
    }

    /// A class of each image and of each text; of several, one is drawn.
    ///
    /// # Errors
    /// If there are no labels, or an item has none.
    pub fn classes(&self) -> Result<[Vec<u32>; 2]> {
        let (images, texts) = self.labels()?;
        let draw = |labels: &Labels, items: &[usize], kind: &str| -> Result<Vec<u32>> {
            let class = |&item: &usize| match labels.of[item][..] {
                [] => Err(Error::Numeric(format!(
                    "{}: expected at least one class an item, found none for training {kind} {item}; drop it from the dataset",
                    self.method
                ))),
                [class] => Ok(class),
                ref several => Ok(several[self.stream().below(several.len())]),
            };
            items.iter().map(class).collect()
        };
        Ok([draw(images, &self.items.images, "image")?, draw(texts, &self.items.texts, "text")?])
    }
}
