use serde::{Deserialize, Serialize};

/// Which kind of item asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Images ask for texts.
    I2t,
    /// Texts ask for images.
    T2i,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::I2t => "i2t",
            Self::T2i => "t2i",
        })
    }
}
