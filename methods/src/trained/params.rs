use serde::{Deserialize, Serialize};

use super::{Body, Loss, Negatives};
use crate::{Result, params, train::Schedule};

/// Parameters that a method shares with others: of its networks, of its training, and which negatives count.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Shared<B: Body> {
    /// Parameters of the networks.
    #[serde(flatten)]
    pub options: B::Options,
    /// How they are trained.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Which texts of a batch are negatives of an image, where that is a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negatives: Option<Negatives>,
}

impl<B: Body> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self { options: self.options.clone(), schedule: self.schedule.clone(), negatives: self.negatives }
    }
}

impl<B: Body> Default for Shared<B> {
    fn default() -> Self {
        Self { options: B::Options::default(), schedule: Schedule::default(), negatives: Some(Negatives::Others) }
    }
}

impl<B: Body> Shared<B> {
    /// Checks that a batch has more than one pair; `method` is named in the error.
    ///
    /// # Errors
    /// If it has not.
    pub fn has_negatives(&self, method: &str) -> Result<()> {
        match self.schedule.batch {
            0 | 1 => {
                let expected = "at least 2, for there to be a negative";
                Err(params::out_of_range(method, "batch", expected, self.schedule.batch))
            }
            _ => Ok(()),
        }
    }
}

/// All parameters of a method.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Settings<L: Loss> {
    /// Its own.
    #[serde(flatten)]
    pub loss: L,
    /// Those that it shares.
    #[serde(flatten)]
    pub shared: Shared<L::Body>,
}

impl<L: Loss> Clone for Settings<L> {
    fn clone(&self) -> Self {
        Self { loss: self.loss.clone(), shared: self.shared.clone() }
    }
}

impl<L: Loss> Default for Settings<L> {
    fn default() -> Self {
        Self { loss: L::default(), shared: L::shared() }
    }
}

impl<L: Loss> Settings<L> {
    /// Completed and checked parameters.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        let name = &L::card().name;
        let mut table = table.clone();
        L::imply(&mut table);
        let read: Self = params::parse(name, &table)?;
        L::Body::check(&read.shared.options, name)?;
        read.shared.schedule.check(name)?;
        read.loss.check(&read.shared)?;
        Ok(read)
    }
}
