use serde::{Deserialize, Serialize};

use super::{Direction, Standing, Ties};

/// The outcome of one query. From `better`, `tied` and `own` the value under each tie rule follows in closed form.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Which kind of item asked.
    pub direction: Direction,
    /// Position of the query in its split.
    pub query: u32,
    /// The image that the query belongs to: bootstrap clusters.
    pub cluster: u32,
    /// Gallery items that score strictly above the best-scored relevant item.
    pub better: u32,
    /// Gallery items, relevant ones included, that score exactly as the best-scored relevant item.
    pub tied: u32,
    /// Relevant items among `tied`.
    pub own: u32,
    /// Average precision over the whole gallery under the protocol's tie rule; NaN for the pairs task.
    pub average_precision: f64,
}

impl Query {
    /// The share of orders in which an own item is among the first `k`, in `[0, 1]`.
    pub fn hit(&self, k: usize, ties: Ties) -> f64 {
        self.standing().hit(k, ties)
    }

    /// Where its best own item stands.
    pub fn standing(&self) -> Standing {
        Standing { better: self.better as usize, tied: self.tied.max(self.own) as usize, own: self.own as usize }
    }
}
