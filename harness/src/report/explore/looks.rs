//! What rows do with the words of a sample of captions: where each word looked in the caption's image, and what the score is without it.
//!
//! It is computed from the matchers that the recording keeps. A word's worth is a difference of two scores of the same row,
//! `s(image, caption) - s(image, caption without the word)`, so that rows that compare one vector an item have it too.

use std::path::Path;

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use candle_core::Device;
use serde_json::{Value, json};
use xmbench_datasets::{
    Collection, Dataset, Images, Texts,
    text::{UNKNOWN, Vocabulary, words as words_of},
};
use xmbench_methods::{Codes, Similarity};

use crate::{
    output::plain,
    record::{Trial, files, store},
    report::plot::attention::Grid,
    retrieval::{Direction, index, looked},
};

/// Captions that are looked into.
const CAPTIONS: usize = 12;
/// Words of the shortest and of the longest.
const WORDS: std::ops::RangeInclusive<usize> = 2..=24;

/// Captions with their images, and every caption without each of its words.
pub struct Sample {
    captions: Vec<Caption>,
    images: Images,
    /// A caption, then the same without its first word, its second, and so on; then the next caption.
    texts: Texts,
}

struct Caption {
    /// Its position among the texts that ask.
    at: usize,
    /// The position of the image that it belongs to.
    image: usize,
    words: Vec<String>,
    /// Whether a training caption holds the word.
    known: Vec<bool>,
    /// The place of the whole caption in [`Sample::texts`].
    start: usize,
}

impl Sample {
    /// Captions evenly spaced over those that ask; nothing where the data have no words.
    pub fn of(dataset: &Dataset, asked: &Collection) -> Option<Self> {
        let (vocabulary, raw) = (Vocabulary::of(dataset)?, asked.texts.raw.as_ref()?);
        let tokens = asked.texts.tokens.as_ref()?;
        let fits = |&at: &usize| {
            let words = words_of(&raw[at]).len();
            // The vocabulary reads a caption as the dataset did: its words between a start and an end.
            WORDS.contains(&words) && tokens[at].len() == words + 2 && vocabulary.tokens(&raw[at]) == tokens[at]
        };
        let of = |at: usize| Some((at, *asked.pairs.images_of(at).first()? as usize));
        let all: Vec<(usize, usize)> = (0..raw.len()).filter(fits).filter_map(of).collect();
        let taken = CAPTIONS.min(all.len());
        let (mut captions, mut sentences) = (Vec::new(), Vec::new());
        for (at, image) in (0..taken).map(|k| all[k * all.len() / taken]) {
            let words = words_of(&raw[at]);
            let start = sentences.len();
            sentences.push(raw[at].clone());
            sentences.extend((0..words.len()).map(|left_out| {
                let kept = words.iter().enumerate().filter(|(place, _)| *place != left_out);
                kept.map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" ")
            }));
            let known = tokens[at][1..=words.len()].iter().map(|token| *token != UNKNOWN).collect();
            captions.push(Caption { at, image, words, known, start });
        }
        let images = asked.images.subset(&captions.iter().map(|it| it.image).collect::<Vec<_>>());
        let ids = (0..sentences.len()).map(|at| format!("text {at}")).collect();
        let mut texts = vocabulary.texts(ids, sentences);
        texts.word_vectors.clone_from(&asked.texts.word_vectors);
        (!captions.is_empty()).then_some(Self { captions, images, texts })
    }

    /// The captions, for the page.
    pub fn value(&self) -> Value {
        let one = |(place, caption): (usize, &Caption)| {
            json!({
                "text": caption.at, "image": caption.image,
                "words": caption.words.iter().map(|word| plain(word)).collect::<Vec<_>>(),
                "known": caption.known, "boxes": self.images.boxes_of(place),
            })
        };
        Value::Array(self.captions.iter().enumerate().map(one).collect())
    }

    /// What a row does with them; nothing where the recording has no matcher of it that reads words.
    ///
    /// # Errors
    /// If the matcher is damaged, or cannot encode the captions.
    pub fn row(&self, trial: &Trial, recording: &Path) -> Result<Option<Value>> {
        let folder = store::matcher(recording, &trial.id);
        files::no_link(folder.parent().unwrap_or(recording))?;
        files::no_link(&folder)?;
        let method = xmbench_methods::registry::find(&trial.method).filter(|method| !method.card().runs_programs);
        let Some(method) = method.filter(|_| folder.is_dir()) else { return Ok(None) };
        let matcher = method.load(&folder, &Device::Cpu)?;
        let (images, texts) = (matcher.encode_images(&self.images)?, matcher.encode_texts(&self.texts)?);
        let one = |(place, caption): (usize, &Caption)| -> Result<Value> {
            let range = caption.start..caption.start + caption.words.len() + 1;
            let scores = scores(matcher.similarity(), (&images, place), &texts, range)?;
            ensure!(scores.iter().all(|score| score.is_finite()), "a score is not a number");
            let maps = looked(&*matcher, (&self.images, &images, place), (&self.texts, &texts, caption.start))?;
            // Start and end are words to the methods.
            let names = std::iter::once("‹start›").chain(caption.words.iter().map(String::as_str)).chain(["‹end›"]);
            let names: Vec<String> = names.map(|name| plain(name).into_owned()).collect();
            let maps = maps.iter().map(|map| grid(&Grid::of(map, &names))).collect::<Vec<_>>();
            Ok(json!({ "score": scores[0], "without": scores[1..], "maps": maps }))
        };
        let looks = self.captions.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Some(json!({ "pairwise": matches!(matcher.similarity(), Similarity::Pairwise(_)), "captions": looks })))
    }
}

/// Scores of one image with a run of texts.
fn scores(
    similarity: Similarity<'_>,
    (images, image): (&Codes, usize),
    texts: &Codes,
    range: std::ops::Range<usize>,
) -> Result<Vec<f32>> {
    if let Similarity::Pairwise(scorer) = similarity {
        let mut out = vec![0.0; range.len()];
        scorer.score(images, image..image + 1, texts, range, &mut out)?;
        return Ok(out);
    }
    let found = index(images, similarity, Direction::T2i)?.search(texts, range, images.len())?;
    let of = |(items, scores): (&[u32], &[f32])| {
        items.iter().position(|&item| item as usize == image).map_or(f32::NAN, |place| scores[place])
    };
    Ok(found.items.chunks(found.k).zip(found.scores.chunks(found.k)).map(of).collect())
}

/// Weights as bytes, 255 for the largest.
fn grid(grid: &Grid) -> Value {
    let most = grid.most();
    let byte = |&weight: &f32| if most > 0.0 { (255.0 * weight / most).round().clamp(0.0, 255.0) as u8 } else { 0 };
    json!({
        "title": plain(&grid.heading), "words": grid.words, "regions": grid.regions, "most": most,
        "weights": STANDARD.encode(grid.weights.iter().map(byte).collect::<Vec<u8>>()),
    })
}
