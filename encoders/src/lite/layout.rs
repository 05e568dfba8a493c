//! How wide and how deep a network is.

/// Blocks of one width, of which the first has the stride and the rest none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Blocks.
    pub repeat: usize,
    /// Pixels a side of the filter of a channel.
    pub kernel: usize,
    /// Stride of the first block.
    pub stride: usize,
    /// Factor by which a block widens.
    pub expand: usize,
    /// Channels that a block gives.
    pub channels: usize,
}

/// The form of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Pixels a side of what it sees.
    pub side: usize,
    /// Channels of the stem.
    pub stem: usize,
    /// Its blocks.
    pub stages: [Stage; 7],
    /// Channels of the head.
    pub head: usize,
    /// Classes of the last layer.
    pub classes: usize,
}

const fn stage(repeat: usize, kernel: usize, stride: usize, expand: usize, channels: usize) -> Stage {
    Stage { repeat, kernel, stride, expand, channels }
}

/// EfficientNet-Lite0.
pub const LITE0: Layout = Layout {
    side: 224,
    stem: 32,
    stages: [
        stage(1, 3, 1, 1, 16),
        stage(2, 3, 2, 6, 24),
        stage(2, 5, 2, 6, 40),
        stage(3, 3, 2, 6, 80),
        stage(3, 5, 1, 6, 112),
        stage(4, 5, 2, 6, 192),
        stage(1, 3, 1, 6, 320),
    ],
    head: 1280,
    classes: 1000,
};

impl Layout {
    /// Cells a side of the last map.
    pub fn cells(&self) -> usize {
        let strides = std::iter::once(2).chain(self.stages.iter().map(|stage| stage.stride));
        strides.fold(self.side, usize::div_ceil)
    }
}
