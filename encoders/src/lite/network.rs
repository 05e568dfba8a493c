//! The network: weights folded and laid out, and a picture sent through it.

use std::collections::BTreeMap;

use rayon::prelude::*;
use xmbench_datasets::{Error, Picture, Result};

use super::{
    conv::{After, Band, Depthwise, Pointwise, before},
    layout::Layout,
};
use crate::{
    encoder::{Encoded, Encoder, Recipe, Seen},
    picture::{Fit, resize},
    weights::Weights,
};

/// What batch normalisation adds to a variance.
const EPS: f64 = 1e-3;

/// Bytes that a band of rows may have before its block writes the next: the cache of a core holds it beside the weights.
const BAND: usize = 384 << 10;

/// An inverted residual bottleneck (2).
struct Block {
    widen: Option<Pointwise>,
    filter: Depthwise,
    narrow: Pointwise,
    skip: bool,
}

/// EfficientNet-Lite.
pub struct Lite {
    layout: Layout,
    recipe: Recipe,
    stem: Pointwise,
    blocks: Vec<Block>,
    head: Pointwise,
    classifier: Pointwise,
}

/// Memory of one thread, used again for each picture.
#[derive(Default)]
pub struct Scratch {
    map: Vec<f32>,
    next: Vec<f32>,
    wide: Vec<f32>,
    filtered: Vec<f32>,
}

/// Batch normalisation as a factor and a sum a channel.
fn normalisation(weights: &Weights, name: &str, channels: usize) -> Result<Vec<(f64, f64)>> {
    let take = |part: &str| weights.take(&format!("{name}.{part}"), &[channels]);
    let (gain, bias, mean, variance) = (take("weight")?, take("bias")?, take("running_mean")?, take("running_var")?);
    let folded = (0..channels).map(|c| {
        let factor = f64::from(gain[c]) / (f64::from(variance[c].max(0.0)) + EPS).sqrt();
        (factor, f64::from(bias[c]) - f64::from(mean[c]) * factor)
    });
    Ok(folded.collect())
}

/// A convolution with its normalisation; weights `[outputs, inputs, k, k]` become `[k, k, inputs, outputs]`.
fn convolution(
    weights: &Weights,
    (name, norm): (&str, &str),
    [outputs, inputs, kernel]: [usize; 3],
    after: After,
) -> Result<Pointwise> {
    let from = weights.take(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel])?;
    let folded = normalisation(weights, norm, outputs)?;
    let places = kernel * kernel;
    let mut to = vec![0.0; from.len()];
    for (output, (factor, _)) in folded.iter().enumerate() {
        for input in 0..inputs {
            for place in 0..places {
                let value = f64::from(from[(output * inputs + input) * places + place]) * factor;
                to[(place * inputs + input) * outputs + output] = value as f32;
            }
        }
    }
    let bias = folded.iter().map(|&(_, sum)| sum as f32).collect();
    Ok(Pointwise { weights: to, bias, inputs: places * inputs, after })
}

impl Lite {
    /// The network of a layout with the weights of a file; `grid` cells a side, 0 for none.
    ///
    /// # Errors
    /// If the weights are those of another network, or the grid is finer than the network's map.
    pub fn new(name: &str, layout: &Layout, weights: &Weights, fit: Fit, grid: usize) -> Result<Self> {
        let cells = layout.cells();
        if grid > cells {
            let next = format!("the last map of {name} has {cells} x {cells} places");
            return Err(Error::option("grid", format!("0 to {cells} cells a side"), grid.to_string(), next));
        }
        let stem = convolution(weights, ("_conv_stem", "_bn0"), [layout.stem, 3, 3], After::Relu6)?;
        let mut blocks = Vec::new();
        let mut channels = layout.stem;
        for stage in &layout.stages {
            for repeat in 0..stage.repeat {
                let at = format!("_blocks.{}", blocks.len());
                let named = |conv: &str, norm: &str| (format!("{at}.{conv}"), format!("{at}.{norm}"));
                let stride = if repeat == 0 { stage.stride } else { 1 };
                let inner = channels * stage.expand;
                let widen = match stage.expand {
                    1 => None,
                    _ => {
                        let (conv, norm) = named("_expand_conv", "_bn0");
                        Some(convolution(weights, (&conv, &norm), [inner, channels, 1], After::Relu6)?)
                    }
                };
                let (conv, norm) = named("_depthwise_conv", "_bn1");
                // A filter a channel is a convolution of one input, laid out `[k, k, 1, channels]`.
                let filter = convolution(weights, (&conv, &norm), [inner, 1, stage.kernel], After::Relu6)?;
                let filter = Depthwise { weights: filter.weights, bias: filter.bias, kernel: stage.kernel, stride };
                let (conv, norm) = named("_project_conv", "_bn2");
                let narrow = convolution(weights, (&conv, &norm), [stage.channels, inner, 1], After::Nothing)?;
                let skip = stride == 1 && channels == stage.channels;
                blocks.push(Block { widen, filter, narrow, skip });
                channels = stage.channels;
            }
        }
        let head = convolution(weights, ("_conv_head", "_bn1"), [layout.head, channels, 1], After::Relu6)?;
        let classifier = classifier(weights, layout)?;
        let recipe = Recipe {
            encoder: name.to_owned(),
            side: layout.side,
            fit,
            pixels: "turned as EXIF says, alpha on white, linear filter as wide as the reduction, (v - 127) / 128"
                .into(),
            width: layout.head,
            grid,
            region_width: if grid > 0 { layout.head } else { 0 },
            files: BTreeMap::new(),
        };
        Ok(Self { layout: layout.clone(), recipe, stem, blocks, head, classifier })
    }

    /// The map of the head (3), `[cells, cells, head]`, of a picture `[side, side, 3]` with values from 0 to 255.
    pub fn map(&self, seen: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let mut side = self.stem(seen, scratch);
        for block in &self.blocks {
            side = block.apply(side, scratch);
            std::mem::swap(&mut scratch.map, &mut scratch.next);
        }
        let mut map = vec![0.0; side * side * self.layout.head];
        // (3)
        self.head.apply(&scratch.map, &mut map, None);
        map
    }

    /// The mean of a map over its places (4).
    pub fn pooled(&self, map: &[f32]) -> Vec<f32> {
        mean(map, self.layout.head, 0..map.len() / self.layout.head)
    }

    /// Scores of the classes (5), before a softmax.
    pub fn classes(&self, pooled: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.layout.classes];
        self.classifier.apply(pooled, &mut out, None);
        out
    }

    /// The stem (1), into the scratch's map; returns its side.
    fn stem(&self, seen: &[f32], scratch: &mut Scratch) -> usize {
        const KERNEL: usize = 3;
        const STRIDE: usize = 2;
        let side = self.layout.side;
        let (out, pad) = (side.div_ceil(STRIDE), before(side, KERNEL, STRIDE));
        let (inputs, outputs) = (self.stem.inputs, self.stem.outputs());
        scratch.map.resize(out * out * outputs, 0.0);
        let band = (BAND / (out * outputs * 4)).max(1);
        for (i, map) in scratch.map.chunks_mut(band * out * outputs).enumerate() {
            let rows = map.len() / (out * outputs);
            let patches = &mut scratch.wide;
            patches.clear();
            patches.resize(rows * out * inputs, 0.0);
            for (place, patch) in patches.chunks_exact_mut(inputs).enumerate() {
                let (y, x) = (i * band + place / out, place % out);
                for row in 0..KERNEL {
                    for column in 0..KERNEL {
                        let at = |n: usize, k: usize| (n * STRIDE + k).checked_sub(pad).filter(|&at| at < side);
                        if let (Some(y), Some(x)) = (at(y, row), at(x, column)) {
                            let pixel = &seen[(y * side + x) * 3..][..3];
                            let patch = &mut patch[(row * KERNEL + column) * 3..][..3];
                            patch.iter_mut().zip(pixel).for_each(|(to, v)| *to = (v - 127.0) / 128.0);
                        }
                    }
                }
            }
            self.stem.apply(patches, map, None);
        }
        out
    }

    fn encode_one(&self, seen: &Seen, scratch: &mut Scratch) -> Result<Encoded> {
        let map = self.map(&seen.values, scratch);
        if map.iter().any(|value| !value.is_finite()) {
            let next = "the weights are damaged, or not those of this network";
            return Err(Error::option("weights", "a network of finite values", "others", next));
        }
        let (cells, grid, width) = (self.layout.cells(), self.recipe.grid, self.layout.head);
        let mut regions = Vec::with_capacity(grid * grid * width);
        let mut boxes = Vec::with_capacity(grid * grid);
        // Cell `i` of a coarser grid is the mean of places `floor(i n / g)` to `ceil((i + 1) n / g)`, as in adaptive pooling.
        let span = |i: usize| i * cells / grid..((i + 1) * cells).div_ceil(grid);
        for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
            let (down, across) = (span(row), span(column));
            let places = down.clone().flat_map(|y| across.clone().map(move |x| y * cells + x));
            regions.extend(mean(&map, width, places));
            let edge = |at: usize| at as f64 / cells as f64;
            let within = [edge(across.start), edge(down.start), edge(across.end), edge(down.end)];
            boxes.push(self.recipe.fit.in_picture(seen.width, seen.height, within));
        }
        Ok(Encoded { global: self.pooled(&map), regions, boxes })
    }
}

/// The last layer, `[classes, head]` turned.
fn classifier(weights: &Weights, layout: &Layout) -> Result<Pointwise> {
    let from = weights.take("_fc.weight", &[layout.classes, layout.head])?;
    let bias = weights.take("_fc.bias", &[layout.classes])?;
    let mut turned = vec![0.0; from.len()];
    for (class, row) in from.chunks_exact(layout.head).enumerate() {
        row.iter().enumerate().for_each(|(input, &value)| turned[input * layout.classes + class] = value);
    }
    Ok(Pointwise { weights: turned, bias, inputs: layout.head, after: After::Nothing })
}

/// The mean of some places of a map.
pub(crate) fn mean(map: &[f32], width: usize, places: impl Iterator<Item = usize>) -> Vec<f32> {
    let mut sums = vec![0.0f32; width];
    let mut count = 0.0;
    for place in places {
        sums.iter_mut().zip(&map[place * width..]).for_each(|(sum, value)| *sum += value);
        count += 1.0;
    }
    sums.iter_mut().for_each(|sum| *sum /= count);
    sums
}

impl Block {
    /// From the scratch's map to its next one, a band of rows at a time; returns the side of what comes out.
    fn apply(&self, side: usize, scratch: &mut Scratch) -> usize {
        let Scratch { map, next, wide, filtered } = scratch;
        let (inner, outputs) = (self.filter.channels(), self.narrow.outputs());
        let inputs = map.len() / (side * side);
        let out = side.div_ceil(self.filter.stride);
        next.resize(out * out * outputs, 0.0);
        // The rows of the band that are there already move to its beginning: none is computed twice.
        let mut there = 0..0;
        let band = (BAND / (side * self.filter.stride * inner * 4)).clamp(1, out);
        for first in (0..out).step_by(band) {
            let rows = first..(first + band).min(out);
            let needs = self.filter.needs(side, &rows);
            let line = side * inner;
            if let Some(widen) = &self.widen {
                let kept = needs.start.max(there.start)..there.end;
                if !kept.is_empty() {
                    wide.copy_within((kept.start - there.start) * line..(kept.end - there.start) * line, 0);
                }
                let kept = kept.len();
                wide.resize(needs.len() * line, 0.0);
                let fresh = needs.start + kept..needs.end;
                let from = &map[fresh.start * side * inputs..fresh.end * side * inputs];
                widen.apply(from, &mut wide[kept * line..], None);
                there = needs.clone();
            }
            let values = match self.widen {
                Some(_) => &wide[..],
                None => &map[needs.start * line..needs.end * line],
            };
            filtered.resize(rows.len() * out * inner, 0.0);
            self.filter.apply(&Band { side, rows: needs, values }, &rows, filtered);
            let at = rows.start * out * outputs..rows.end * out * outputs;
            let skip = self.skip.then(|| &map[at.clone()]);
            self.narrow.apply(filtered, &mut next[at], skip);
        }
        out
    }
}

impl Encoder for Lite {
    fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    fn prepare(&self, picture: &Picture) -> Seen {
        let values = resize(picture, self.recipe.fit, self.layout.side);
        Seen { width: picture.width, height: picture.height, values }
    }

    fn encode_seen(&self, seen: &[Seen]) -> Result<Vec<Encoded>> {
        // A picture is the work of one thread, so that its bits cannot depend on how many there are.
        seen.par_iter().map_init(Scratch::default, |scratch, seen| self.encode_one(seen, scratch)).collect()
    }
}
