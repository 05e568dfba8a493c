//! `config.json`, read and typed: what a network's kind is, and its sizes.
//!
//! Keys that are absent have the reference's defaults, since the hub's older files write down only what differs from them. What would change the
//! computation and is not there to be computed is refused by name; keys without a part in it (dropout, initialisation, labels, names) are passed over.

use std::path::Path;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;
use xmbench_datasets::{Error, Result, nearest};

use super::{arrays::Form, folder::typed, layers::Activation};

/// The most layers, heads, tokens, channels that are taken: far more than any network has.
const MOST: usize = 1 << 20;

/// A kind of network, with its sizes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Config {
    Clip(Joint),
    Siglip(Joint),
    Vit(Seeing),
    Dino(Seeing),
    Resnet(Resnet),
    Bert(Reading),
}

/// Both towers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Joint {
    pub seeing: Seeing,
    pub reading: Reading,
    /// Values of both vectors.
    pub width: usize,
}

/// A tower for pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seeing {
    pub form: Form,
    /// Pixels a side that positions are for.
    pub side: usize,
    /// Pixels a side of a patch.
    pub patch: usize,
}

/// A tower for texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    pub form: Form,
    pub words: usize,
    pub positions: usize,
    /// Kinds of segments, of which the first is used.
    pub segments: usize,
    pub pad: u32,
    pub end: u32,
}

/// A residual network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resnet {
    pub stem: usize,
    pub widths: Vec<usize>,
    pub depths: Vec<usize>,
    pub bottleneck: bool,
    pub reduce_first_stage: bool,
    pub reduce_first_layer: bool,
    pub activation: Activation,
}

/// Kinds of networks, as `model_type` names them.
pub const KINDS: [&str; 6] = ["clip", "siglip", "vit", "dinov2", "resnet", "bert"];

/// A length that is written as a number, or as twice the same.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Side(usize);

impl<'de> Deserialize<'de> for Side {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(usize),
            Two([usize; 2]),
        }
        match Written::deserialize(deserializer)? {
            Written::One(side) => Ok(Self(side)),
            Written::Two([height, width]) if height == width => Ok(Self(height)),
            Written::Two(sides) => Err(D::Error::custom(format!("expected a square, found {sides:?}"))),
        }
    }
}

/// The keys of a transformer; each kind has some of them.
#[derive(Debug, Deserialize)]
struct Written {
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    mlp_ratio: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    image_size: Option<Side>,
    patch_size: Option<Side>,
    num_channels: Option<usize>,
    qkv_bias: Option<bool>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    projection_size: Option<usize>,
    pad_token_id: Option<u32>,
    eos_token_id: Option<u32>,
    use_swiglu_ffn: Option<bool>,
    vision_use_head: Option<bool>,
    position_embedding_type: Option<String>,
    is_decoder: Option<bool>,
}

/// A residual network's keys.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct WrittenResnet {
    num_channels: usize,
    embedding_size: usize,
    hidden_sizes: Vec<usize>,
    depths: Vec<usize>,
    layer_type: String,
    hidden_act: String,
    downsample_in_first_stage: bool,
    downsample_in_bottleneck: bool,
}

impl Default for WrittenResnet {
    fn default() -> Self {
        Self {
            num_channels: 3,
            embedding_size: 64,
            hidden_sizes: vec![256, 512, 1024, 2048],
            depths: vec![3, 4, 6, 3],
            layer_type: "bottleneck".into(),
            hidden_act: "relu".into(),
            downsample_in_first_stage: false,
            downsample_in_bottleneck: false,
        }
    }
}

/// What holds where a key of a tower is absent.
struct Usual {
    width: usize,
    inner: usize,
    heads: usize,
    activation: &'static str,
    eps: f64,
    patch: usize,
    words: usize,
    positions: usize,
    pad: u32,
}

const SEEING: Usual = Usual {
    width: 768,
    inner: 3072,
    heads: 12,
    activation: "gelu",
    eps: 1e-12,
    patch: 16,
    words: 1,
    positions: 1,
    pad: 0,
};
const CLIP_SEEING: Usual = Usual { activation: "quick_gelu", eps: 1e-5, patch: 32, ..SEEING };
const CLIP_READING: Usual =
    Usual { width: 512, inner: 2048, heads: 8, words: 49_408, positions: 77, pad: 1, ..CLIP_SEEING };
const SIGLIP: Usual =
    Usual { activation: "gelu_pytorch_tanh", eps: 1e-6, words: 32_000, positions: 64, pad: 1, ..SEEING };
const DINO: Usual = Usual { eps: 1e-6, patch: 14, ..SEEING };
const BERT: Usual = Usual { words: 30_522, positions: 512, ..SEEING };

/// What is wrong with a file, by the place in it.
struct Wrong<'a> {
    path: &'a Path,
    place: &'static str,
}

impl Wrong<'_> {
    fn at(&self, key: &str, expected: impl Into<String>, found: impl ToString) -> Error {
        let place = if self.place.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place) };
        let next = "name a folder whose network is of a known form";
        Error::content(self.path, place, expected, found.to_string(), next)
    }

    fn number(&self, key: &str, value: Option<usize>, usual: usize) -> Result<usize> {
        match value.unwrap_or(usual) {
            number if (1..=MOST).contains(&number) => Ok(number),
            number => Err(self.at(key, format!("a number of 1 to {MOST}"), number)),
        }
    }

    fn activation(&self, name: &str) -> Result<Activation> {
        let known = Activation::NAMES;
        known.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            self.at("hidden_act", format!("one of {}", names.join(", ")), format!("`{name}`"))
        })
    }
}

impl Written {
    fn form(&self, wrong: &Wrong<'_>, usual: &Usual) -> Result<Form> {
        let width = wrong.number("hidden_size", self.hidden_size, usual.width)?;
        let heads = wrong.number("num_attention_heads", self.num_attention_heads, usual.heads)?;
        if !width.is_multiple_of(heads) {
            return Err(wrong.at("num_attention_heads", format!("a divisor of the width {width}"), heads));
        }
        let eps = self.layer_norm_eps.unwrap_or(usual.eps);
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(wrong.at("layer_norm_eps", "a number of at least 0", eps));
        }
        Ok(Form {
            width,
            inner: wrong.number("intermediate_size", self.intermediate_size, usual.inner)?,
            layers: wrong.number("num_hidden_layers", self.num_hidden_layers, 12)?,
            heads,
            activation: wrong.activation(self.hidden_act.as_deref().unwrap_or(usual.activation))?,
            eps,
            biased: self.qkv_bias.unwrap_or(true),
        })
    }

    fn seeing(&self, wrong: &Wrong<'_>, usual: &Usual) -> Result<Seeing> {
        let side = wrong.number("image_size", self.image_size.map(|side| side.0), 224)?;
        let patch = wrong.number("patch_size", self.patch_size.map(|side| side.0), usual.patch)?;
        if patch > side {
            return Err(wrong.at("patch_size", format!("at most the {side} pixels of image_size"), patch));
        }
        if let Some(channels) = self.num_channels.filter(|&channels| channels != 3) {
            return Err(wrong.at("num_channels", "3", channels));
        }
        Ok(Seeing { form: self.form(wrong, usual)?, side, patch })
    }

    fn reading(&self, wrong: &Wrong<'_>, usual: &Usual) -> Result<Reading> {
        Ok(Reading {
            form: self.form(wrong, usual)?,
            words: wrong.number("vocab_size", self.vocab_size, usual.words)?,
            positions: wrong.number("max_position_embeddings", self.max_position_embeddings, usual.positions)?,
            segments: wrong.number("type_vocab_size", self.type_vocab_size, 2)?,
            pad: self.pad_token_id.unwrap_or(usual.pad),
            end: self.eos_token_id.unwrap_or(49_407),
        })
    }
}

impl Config {
    /// What the file says.
    pub fn parse(path: &Path, value: &Value) -> Result<Self> {
        let top = Wrong { path, place: "" };
        let kind = value.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let part = |place: &'static str| -> Result<(Wrong<'_>, Written)> {
            let absent = Value::Object(serde_json::Map::new());
            // CLIP's files of 2022 say it twice; the reference takes the second, where it is there, with defaults for what it leaves out.
            let second = if kind == "clip" { value.get(format!("{place}_dict")) } else { None };
            let part = match second.filter(|second| second.is_object()) {
                Some(second) => second,
                None if place.is_empty() => value,
                None => value.get(place).unwrap_or(&absent),
            };
            Ok((Wrong { path, place }, typed(path, place, part)?))
        };
        match kind {
            "clip" => {
                let ((at, seen), (at_text, read)) = (part("vision_config")?, part("text_config")?);
                let width =
                    value.get("projection_dim").map_or(Ok(512), |width| typed(path, "projection_dim", width))?;
                let width = top.number("projection_dim", Some(width), 512)?;
                let (seeing, reading) = (seen.seeing(&at, &CLIP_SEEING)?, read.reading(&at_text, &CLIP_READING)?);
                Ok(Self::Clip(Joint { seeing, reading, width }))
            }
            "siglip" => {
                let ((at, seen), (at_text, read)) = (part("vision_config")?, part("text_config")?);
                let (seeing, reading) = (seen.seeing(&at, &SIGLIP)?, read.reading(&at_text, &SIGLIP)?);
                if seen.vision_use_head == Some(false) {
                    return Err(at.at("vision_use_head", "true", "false"));
                }
                let width = seeing.form.width;
                match read.projection_size.unwrap_or(reading.form.width) {
                    read if read == width => Ok(Self::Siglip(Joint { seeing, reading, width })),
                    read => Err(at_text.at("projection_size", format!("the pictures' width {width}"), read)),
                }
            }
            "vit" => part("").and_then(|(at, seen)| Ok(Self::Vit(seen.seeing(&at, &SEEING)?))),
            "dinov2" => {
                let (at, seen) = part("")?;
                if seen.use_swiglu_ffn == Some(true) {
                    return Err(at.at("use_swiglu_ffn", "false: the giant one's layers are not known here", "true"));
                }
                let mut seeing = seen.seeing(&at, &DINO)?;
                seeing.form.inner = seeing.form.width * at.number("mlp_ratio", seen.mlp_ratio, 4)?.min(MOST);
                Ok(Self::Dino(seeing))
            }
            "bert" => {
                let (at, read) = part("")?;
                match read.position_embedding_type.as_deref() {
                    None | Some("absolute") => {}
                    Some(other) => return Err(at.at("position_embedding_type", "`absolute`", format!("`{other}`"))),
                }
                if read.is_decoder == Some(true) {
                    return Err(at.at("is_decoder", "false", "true"));
                }
                Ok(Self::Bert(read.reading(&at, &BERT)?))
            }
            "resnet" => resnet(&top, typed(path, "", value)?),
            other => {
                let near = nearest(other, KINDS).map_or(String::new(), |near| format!(", near to `{near}`"));
                let found = if other.is_empty() { "none".to_owned() } else { format!("`{other}`{near}") };
                Err(top.at("model_type", format!("one of {}", KINDS.join(", ")), found))
            }
        }
    }
}

fn resnet(wrong: &Wrong<'_>, written: WrittenResnet) -> Result<Config> {
    if written.num_channels != 3 {
        return Err(wrong.at("num_channels", "3", written.num_channels));
    }
    let bottleneck = match written.layer_type.as_str() {
        "bottleneck" => true,
        "basic" => false,
        other => return Err(wrong.at("layer_type", "`basic` or `bottleneck`", format!("`{other}`"))),
    };
    let (widths, depths) = (written.hidden_sizes, written.depths);
    if widths.is_empty() || widths.len() > 16 || widths.len() != depths.len() {
        let found = format!("{} and {}", widths.len(), depths.len());
        return Err(wrong.at("depths", "1 to 16 stages, as many as hidden_sizes", found));
    }
    for (&width, &depth) in widths.iter().zip(&depths) {
        wrong.number("hidden_sizes", Some(width), 1)?;
        wrong.number("depths", Some(depth), 1)?;
        if bottleneck && width < 4 {
            return Err(wrong.at("hidden_sizes", "at least 4 channels of a bottleneck", width));
        }
    }
    Ok(Config::Resnet(Resnet {
        stem: wrong.number("embedding_size", Some(written.embedding_size), 64)?,
        widths,
        depths,
        bottleneck,
        reduce_first_stage: written.downsample_in_first_stage,
        reduce_first_layer: written.downsample_in_bottleneck,
        activation: wrong.activation(&written.hidden_act)?,
    }))
}
