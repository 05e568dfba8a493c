//! What is done to a picture before a network sees it, as its `preprocessor_config.json` says.
//!
//! In this order: resized (each side by itself; or the shorter side to a length, the longer one to `floor(length * long / short)`), the middle cut out
//! (`floor((n - crop) / 2)` pixels are left out before it; zeros surround what is smaller), values times `rescale_factor`, minus `image_mean`, over
//! `image_std`. The kinds of processors differ in what holds where a key is missing. ConvNeXT's, which ResNet uses, resizes the shorter side to
//! `floor(side / crop_pct)` and cuts out `side` if `side` is below 384, and resizes each side to `side` else. Resampling is Pillow's (`pillow.rs`);
//! the result is that of `transformers` 5.24.0 on Pillow 12.0.0, to the bit. Its processors on torchvision differ from those by up to a step
//! of 8 bits a pixel.
//!
//! Departures: transparent pixels are laid on white, where the reference drops their transparency; pictures are turned as EXIF says.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use xmbench_datasets::{Error, Picture, Result};

use super::{
    folder::typed,
    pillow::{Filter, resize},
};
use crate::{encoder::Seen, picture::Fit};

/// The most pixels a side that a network sees.
const LARGEST: usize = 2048;

/// How a picture is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// To so many rows and columns.
    Each { height: usize, width: usize },
    /// Its shorter side to so many pixels.
    Shorter(usize),
}

/// A processor of pictures.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pixels {
    resize: Option<Size>,
    /// Rows and columns of what is cut out.
    crop: Option<[usize; 2]>,
    filter: Filter,
    /// What each of 256 values becomes in each channel.
    table: Vec<[f32; 3]>,
    factor: f64,
    mean: [f64; 3],
    std: [f64; 3],
    pub fit: Fit,
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
struct Written {
    image_processor_type: Option<String>,
    /// The key of the same before 2023.
    feature_extractor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<usize>,
    do_center_crop: Option<bool>,
    crop_size: Option<Value>,
    crop_pct: Option<f64>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Vec<f64>>,
    image_std: Option<Vec<f64>>,
    do_pad: Option<bool>,
}

/// What a kind of processor does where its file says nothing.
struct Kind {
    /// What its name begins with.
    name: &'static str,
    /// Pixels a side.
    side: usize,
    /// Whether a side that is a number is that of both, and not of the shorter.
    square: bool,
    crops: bool,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
}

const HALVES: [f64; 3] = [0.5; 3];
const OPENAI: [[f64; 3]; 2] = [[0.481_454_66, 0.457_827_5, 0.408_210_73], [0.268_629_54, 0.261_302_58, 0.275_777_11]];

const KINDS: [Kind; 5] = [
    Kind {
        name: "CLIP",
        side: 224,
        square: false,
        crops: true,
        filter: Filter::Bicubic,
        mean: OPENAI[0],
        std: OPENAI[1],
    },
    Kind { name: "Siglip", side: 224, square: true, crops: false, filter: Filter::Bicubic, mean: HALVES, std: HALVES },
    Kind { name: "ViT", side: 224, square: true, crops: false, filter: Filter::Bilinear, mean: HALVES, std: HALVES },
    Kind {
        name: "Bit",
        side: 224,
        square: false,
        crops: true,
        filter: Filter::Bicubic,
        mean: OPENAI[0],
        std: OPENAI[1],
    },
    Kind {
        name: "ConvNext",
        side: 384,
        square: false,
        crops: false,
        filter: Filter::Bicubic,
        mean: HALVES,
        std: HALVES,
    },
];

/// Side from which on ConvNeXT's processor cuts nothing out.
const WARPED: usize = 384;

impl Pixels {
    /// What the file says.
    pub fn parse(path: &Path, value: &Value, fit: Fit) -> Result<Self> {
        let wrong = |place: &str, expected: &str, found: String| {
            let next = "name a folder whose processor is of a known form";
            Error::content(path, place, expected, found, next)
        };
        let written: Written = typed(path, "", value)?;
        let kind = written.image_processor_type.as_deref().or(written.feature_extractor_type.as_deref()).unwrap_or("");
        let stem = ["ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"];
        let stem = stem.iter().find_map(|ending| kind.strip_suffix(ending)).unwrap_or(kind);
        let known = KINDS.iter().find(|known| known.name == stem).ok_or_else(|| {
            let known = KINDS.map(|kind| format!("{}ImageProcessor", kind.name)).join(", ");
            wrong("image_processor_type", &format!("one of {known}"), format!("`{kind}`"))
        })?;
        if written.do_pad == Some(true) {
            return Err(wrong("do_pad", "false", "true".into()));
        }
        let side = |place: &str, value: &Value| match value.as_u64().and_then(|side| usize::try_from(side).ok()) {
            Some(side) if (1..=LARGEST).contains(&side) => Ok(side),
            _ => Err(wrong(place, &format!("a length of 1 to {LARGEST} pixels"), value.to_string())),
        };
        let each = |place: &str, value: &Value| match (value.get("height"), value.get("width")) {
            (Some(height), Some(width)) => Ok([side(place, height)?, side(place, width)?]),
            _ => Err(wrong(place, "a number, or `height` and `width`", value.to_string())),
        };
        let size = match &written.size {
            None if known.square => Size::Each { height: known.side, width: known.side },
            None => Size::Shorter(known.side),
            Some(value) if value.is_u64() => match side("size", value)? {
                length if known.square => Size::Each { height: length, width: length },
                length => Size::Shorter(length),
            },
            Some(value) if value.get("longest_edge").is_some_and(|edge| !edge.is_null()) => {
                return Err(wrong("size", "`shortest_edge`, or `height` and `width`", value.to_string()));
            }
            Some(value) => match value.get("shortest_edge").filter(|edge| !edge.is_null()) {
                Some(length) => Size::Shorter(side("size", length)?),
                None => each("size", value).map(|[height, width]| Size::Each { height, width })?,
            },
        };
        let crop = match &written.crop_size {
            _ if !written.do_center_crop.unwrap_or(known.crops) => None,
            None => Some([224; 2]),
            Some(value) if value.is_u64() => Some([side("crop_size", value)?; 2]),
            Some(value) => Some(each("crop_size", value)?),
        };
        let (mut resize, mut crop) = (written.do_resize.unwrap_or(true).then_some(size), crop);
        if let ("ConvNext", Some(Size::Shorter(length))) = (known.name, resize) {
            let share = written.crop_pct.unwrap_or(224.0 / 256.0);
            let wide = length as f64 / share;
            if !(share > 0.0 && (1.0..=LARGEST as f64).contains(&wide)) {
                return Err(wrong("crop_pct", "a share of the side between 0 and 1", share.to_string()));
            }
            if length < WARPED {
                resize = Some(Size::Shorter(wide as usize));
                crop = crop.or(Some([length; 2]));
            } else {
                resize = Some(Size::Each { height: length, width: length });
            }
        }
        let number = written.resample.unwrap_or(known.filter as usize);
        let filter = *Filter::ALL
            .get(number)
            .ok_or_else(|| wrong("resample", "a filter of Pillow, 0 to 5", number.to_string()))?;
        let three = |place: &str, values: Option<Vec<f64>>, usual: [f64; 3]| match values {
            None => Ok(usual),
            Some(values) => values
                .try_into()
                .map_err(|values: Vec<f64>| wrong(place, "three numbers", format!("{} of them", values.len()))),
        };
        let (mut mean, mut std) =
            (three("image_mean", written.image_mean, known.mean)?, three("image_std", written.image_std, known.std)?);
        if let Some(zero) = std.iter().find(|std| !(std.is_finite() && **std > 0.0)) {
            return Err(wrong("image_std", "positive numbers", zero.to_string()));
        }
        if !written.do_normalize.unwrap_or(true) {
            (mean, std) = ([0.0; 3], [1.0; 3]);
        }
        let factor = match written.do_rescale.unwrap_or(true) {
            true => written.rescale_factor.unwrap_or(1.0 / 255.0),
            false => 1.0,
        };
        let value = |value: u8| {
            let scaled = (f64::from(value) * factor) as f32;
            [0, 1, 2].map(|channel| (scaled - mean[channel] as f32) / std[channel] as f32)
        };
        let table: Vec<[f32; 3]> = (0..=255).map(value).collect();
        if table.as_flattened().iter().any(|value| !value.is_finite()) {
            return Err(wrong("", "finite values of pixels", "others".into()));
        }
        let pixels = Self { resize, crop, filter, table, factor, mean, std, fit };
        match pixels.sides() {
            Some([height, width]) if height == width => Ok(pixels),
            Some(sides) => Err(wrong("", "as many rows as columns", format!("{sides:?}"))),
            None => Err(wrong("", "pictures of one size", "none that is given by `size` or `crop_size`".into())),
        }
    }

    /// Rows and columns of what the network sees, if they are the same for every picture.
    fn sides(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(crop), _) => Some(crop),
            (None, Some(Size::Each { height, width })) => Some([height, width]),
            (None, _) => None,
        }
    }

    /// Pixels a side of what the network sees.
    pub fn side(&self) -> usize {
        self.sides().map_or(0, |[height, _]| height)
    }

    /// What is done, in words; it stands in the manifest.
    pub fn words(&self) -> String {
        let size = match (self.fit, self.resize) {
            (Fit::Stretch, _) => format!("each side to {}", self.side()),
            (_, None) => "not resized".into(),
            (_, Some(Size::Each { height, width })) => format!("to {height} x {width}"),
            (_, Some(Size::Shorter(length))) => format!("shorter side to {length}"),
        };
        let crop = match (self.fit, self.crop) {
            (Fit::Stretch, _) | (_, None) => String::new(),
            (_, Some([height, width])) => format!("the middle {height} x {width}, "),
        };
        format!(
            "turned as EXIF says, alpha on white, {size} by Pillow's {} filter, {crop}(v * {} - {:?}) / {:?}",
            self.filter.name(),
            self.factor,
            self.mean,
            self.std
        )
    }

    /// The size to which a picture is resized, and what is cut out: width and height, left and top.
    fn window(&self, width: usize, height: usize) -> ([usize; 2], [isize; 2]) {
        let side = self.side();
        if self.fit == Fit::Stretch {
            return ([side; 2], [0; 2]);
        }
        let size = match self.resize {
            None => [width, height],
            Some(Size::Each { height, width }) => [width, height],
            Some(Size::Shorter(length)) => {
                let (short, long) = (width.min(height), width.max(height));
                let longer = ((length * long) as f64 / short as f64) as usize;
                if width <= height { [length, longer] } else { [longer, length] }
            }
        };
        // Euclid's division rounds down, as Python's does, where a picture is smaller than what is cut out.
        (size, size.map(|length| (length as isize - side as isize).div_euclid(2)))
    }

    /// What the network sees, `[side, side, 3]`.
    pub fn prepare(&self, picture: &Picture) -> Seen {
        let side = self.side();
        let (size, before) = self.window(picture.width, picture.height);
        // What of the window lies on the picture.
        let on = |axis: usize| {
            let first = before[axis].max(0) as usize;
            let last = (before[axis] + side as isize).min(size[axis] as isize).max(0) as usize;
            first..last
        };
        let (columns, rows) = (on(0), on(1));
        let (left, top) = ((-before[0]).max(0) as usize, (-before[1]).max(0) as usize);
        let bytes = resize(picture, self.filter, size, columns.clone(), rows);
        let mut values = self.table[0].repeat(side * side);
        for (row, line) in bytes.chunks_exact(columns.len() * 3).enumerate() {
            let out = &mut values[((top + row) * side + left) * 3..];
            for (out, pixel) in out.chunks_exact_mut(3).zip(line.chunks_exact(3)) {
                (0..3).for_each(|channel| out[channel] = self.table[usize::from(pixel[channel])][channel]);
            }
        }
        Seen { width: picture.width, height: picture.height, values }
    }

    /// A box in pixels of what the network sees, in fractions of the picture.
    pub fn in_picture(&self, width: usize, height: usize, [x0, y0, x1, y1]: [f64; 4]) -> [f32; 4] {
        let (size, before) = self.window(width, height);
        let share = |axis: usize, at: f64| ((before[axis] as f64 + at) / size[axis] as f64).clamp(0.0, 1.0) as f32;
        [share(0, x0), share(1, y0), share(0, x1), share(1, y1)]
    }
}
