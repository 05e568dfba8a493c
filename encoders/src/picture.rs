//! From a picture's file to what a network sees.
//!
//! A file is refused from its header when it has more pixels than [`Limit`] allows: 30 kB of PNG can ask for 231 megapixels. Pictures are
//! turned as their EXIF data says, since that is how people saw them when they wrote captions. Where a pixel is transparent, white
//! shows: `value * alpha + 255 * (1 - alpha)`, rounded.
//!
//! Resizing is linear interpolation with the filter widened by the factor of reduction, first along rows and then along columns: output `i` of
//! `n` stands at `c = (i + 1/2) s` of the input with `s = N / n`, and an input pixel `j` weighs `max(0, 1 - |j + 1/2 - c| / max(s, 1))`,
//! divided by the sum of these weights. It is the filter that Pillow calls `BILINEAR` and PyTorch `bilinear` with `antialias`, computed in
//! f32 without rounding in between.

use std::{
    io::Cursor,
    sync::{Mutex, PoisonError},
};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use serde::{Deserialize, Serialize};
use xmbench_datasets::Picture;

/// What of a picture a network sees, as a square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The whole of it, each side scaled by itself.
    #[default]
    Stretch,
    /// The square in its middle whose side is 7/8 of the shorter side: the evaluation transform of EfficientNet (224 of 256 pixels).
    Crop,
    /// What the network's publisher says: `preprocessor_config.json`, or `Crop` of EfficientNet.
    Published,
}

impl Fit {
    /// What is seen, as `[x0, y0, x1, y1]` in pixels.
    fn window(self, width: usize, height: usize) -> [f64; 4] {
        let (width, height) = (width as f64, height as f64);
        match self {
            Self::Stretch => [0.0, 0.0, width, height],
            Self::Crop | Self::Published => {
                let side = width.min(height) * 7.0 / 8.0;
                let (x, y) = ((width - side) / 2.0, (height - side) / 2.0);
                [x, y, x + side, y + side]
            }
        }
    }

    /// A box in fractions of what is seen, in fractions of the picture.
    pub fn in_picture(self, width: usize, height: usize, within: [f64; 4]) -> [f32; 4] {
        let [x0, y0, x1, y1] = self.window(width, height);
        let x = |fraction: f64| ((x0 + fraction * (x1 - x0)) / width as f64) as f32;
        let y = |fraction: f64| ((y0 + fraction * (y1 - y0)) / height as f64) as f32;
        [x(within[0]), y(within[1]), x(within[2]), y(within[3])]
    }
}

/// The largest picture that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Pixels.
    pub pixels: u64,
}

impl Default for Limit {
    /// 50 megapixels: more than most cameras give, and at most 400 MB for what a decoder makes of them.
    fn default() -> Self {
        Self { pixels: 50_000_000 }
    }
}

/// More pixels than these take so much memory that pictures of that size are decoded one after the other.
const LARGE: u64 = 8_000_000;

/// Who decodes a large picture.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Decodes a PNG, JPEG or WebP file and lays it on white.
///
/// # Errors
/// What is wrong with it, in words: no such file, damaged, larger than the limit, or without pixels.
pub fn decode(bytes: &[u8], limit: Limit) -> Result<Picture, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    let Some(format) = reader.format() else {
        return Err("expected a PNG, JPEG or WebP picture, found another file".into());
    };
    let mut decoder = reader.into_decoder().map_err(|error| damaged(format, &error))?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limit.pixels {
        return Err(format!(
            "expected at most {} pixels, found {width} x {height} = {pixels} in the header; make it smaller, or allow more",
            limit.pixels
        ));
    }
    let _turn = (pixels > LARGE).then(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
    if pixels == 0 {
        return Err("expected pixels, found none".into());
    }
    // Eight bytes a channel of a pixel are more than any of the formats has; what is behind is for its tables.
    let mut limits = Limits::default();
    limits.max_alloc = Some(limit.pixels.saturating_mul(32).saturating_add(1 << 20));
    decoder.set_limits(limits).map_err(|error| damaged(format, &error))?;
    let orientation = decoder.orientation().map_err(|error| damaged(format, &error))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| damaged(format, &error))?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    let rgb = match image.color().has_alpha() {
        false => image.into_rgb8().into_raw(),
        true => image.into_rgba8().pixels().flat_map(|pixel| on_white(pixel.0)).collect(),
    };
    Ok(Picture { width, height, rgb })
}

fn damaged(format: image::ImageFormat, error: &image::ImageError) -> String {
    format!("expected a whole {format:?} picture, found that {error}")
}

fn on_white([r, g, b, alpha]: [u8; 4]) -> [u8; 3] {
    let alpha = u32::from(alpha);
    [r, g, b].map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha) + 127) / 255) as u8)
}

/// The inputs of an output value and how much each of them weighs.
struct Taps {
    first: usize,
    weights: Vec<f32>,
}

/// For each of `n` outputs, the taps into an axis of `length` pixels of which `from..to` is seen.
fn taps(length: usize, from: f64, to: f64, n: usize) -> Vec<Taps> {
    let scale = (to - from) / n as f64;
    let reach = scale.max(1.0);
    (0..n)
        .map(|i| {
            let centre = from + (i as f64 + 0.5) * scale;
            let first = (centre - reach - 0.5).ceil().max(0.0) as usize;
            let last = ((centre + reach - 0.5).floor().max(0.0) as usize).min(length - 1);
            let first = first.min(last);
            let weight = |j: usize| (1.0 - (j as f64 + 0.5 - centre).abs() / reach).max(0.0);
            let sum: f64 = (first..=last).map(weight).sum();
            let weights = (first..=last).map(|j| (weight(j) / sum) as f32).collect();
            Taps { first, weights }
        })
        .collect()
}

/// What the network sees, `[side, side, 3]`, values from 0 to 255.
pub fn resize(picture: &Picture, fit: Fit, side: usize) -> Vec<f32> {
    let (width, height) = (picture.width, picture.height);
    let [x0, y0, x1, y1] = fit.window(width, height);
    let (across, down) = (taps(width, x0, x1, side), taps(height, y0, y1, side));
    // Rows that any output needs, each of them `side` pixels long.
    let rows = down.iter().map(|taps| taps.first).min().unwrap_or(0)
        ..down.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0);
    let mut narrow = vec![0.0f32; rows.len() * side * 3];
    for (row, out) in rows.clone().zip(narrow.chunks_exact_mut(side * 3)) {
        let line = &picture.rgb[row * width * 3..][..width * 3];
        for (taps, out) in across.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [0.0f32; 3];
            for (weight, pixel) in taps.weights.iter().zip(line[taps.first * 3..].chunks_exact(3)) {
                (0..3).for_each(|channel| sums[channel] += weight * f32::from(pixel[channel]));
            }
            out.copy_from_slice(&sums);
        }
    }
    let mut seen = vec![0.0f32; side * side * 3];
    for (taps, out) in down.iter().zip(seen.chunks_exact_mut(side * 3)) {
        for (i, weight) in taps.weights.iter().enumerate() {
            let line = &narrow[(taps.first - rows.start + i) * side * 3..][..side * 3];
            out.iter_mut().zip(line).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    seen
}

#[cfg(test)]
mod tests;
