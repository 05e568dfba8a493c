//! JSON: an object a line, a list of them, and the two forms that whole data sets come in.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, de::DeserializeOwned};

use super::{Collector, Row};
use crate::{Error, Result};

/// A text, or a number that stands for one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Text(String),
    Number(i64),
}

impl Word {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// One or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(Word),
    Many(Vec<Word>),
}

impl Words {
    fn all(&self) -> Vec<String> {
        match self {
            Self::One(word) => vec![word.text()],
            Self::Many(words) => words.iter().map(Word::text).collect(),
        }
    }
}

/// An object that is a picture.
#[derive(Deserialize)]
struct Object {
    #[serde(
        alias = "image_name",
        alias = "file_name",
        alias = "filename",
        alias = "file",
        alias = "image_path",
        alias = "path"
    )]
    image: Option<String>,
    #[serde(
        alias = "caption",
        alias = "text",
        alias = "texts",
        alias = "sentence",
        alias = "sentences",
        alias = "comment"
    )]
    captions: Option<Words>,
    #[serde(alias = "label", alias = "class", alias = "classes", alias = "category", alias = "categories")]
    labels: Option<Words>,
    split: Option<String>,
}

impl Object {
    fn add(&self, row: Row<'_>, into: &mut Collector) -> Result<()> {
        let Some(image) = &self.image else { return Err(row.error("a key `image`", "none")) };
        let captions = self.captions.as_ref().map(Words::all).unwrap_or_default();
        if captions.is_empty() {
            return Err(row.error("a key `caption` or `captions`", "none"));
        }
        captions.iter().try_for_each(|caption| into.caption(row, image, caption))?;
        let labels = self.labels.as_ref().map(Words::all).unwrap_or_default();
        labels.iter().try_for_each(|label| into.label(row, image, label))?;
        self.split.iter().try_for_each(|split| into.split(row, image, split))
    }
}

fn read<T: DeserializeOwned>(row: Row<'_>, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| row.error("captions in JSON", error.to_string()))
}

/// An object a line.
pub(super) fn lines(path: &Path, text: &str, into: &mut Collector) -> Result<&'static str> {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("line {}", number + 1);
        let row = Row { path, place: &place };
        read::<Object>(row, line)?.add(row, into)?;
    }
    Ok("JSON lines")
}

/// A file that is one value: a list of objects, COCO's, or that of Karpathy and Fei-Fei.
pub(super) fn whole(path: &Path, text: &str, into: &mut Collector) -> Result<&'static str> {
    let file = Row { path, place: "" };
    if text.trim_start().starts_with('[') {
        for (number, object) in read::<Vec<Object>>(file, text)?.iter().enumerate() {
            let place = format!("entry {number}");
            object.add(Row { path, place: &place }, into)?;
        }
        return Ok("a JSON list");
    }
    let found: Whole = read(file, text)?;
    match (&found.images, &found.annotations) {
        (Some(images), Some(annotations)) => coco(path, images, annotations, &found.categories, into),
        (Some(images), None) => karpathy(path, images, into),
        (None, _) => {
            let expected = "a list, COCO's `images` and `annotations`, or `images` with `sentences`";
            let next = "name a file of captions";
            Err(Error::content(path, "", expected, "an object without `images`", next))
        }
    }
}

#[derive(Deserialize)]
struct Whole {
    images: Option<Vec<Image>>,
    annotations: Option<Vec<Annotation>>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Option<i64>,
    #[serde(alias = "filename")]
    file_name: Option<String>,
    filepath: Option<String>,
    sentences: Option<Vec<Sentence>>,
    split: Option<String>,
}

#[derive(Deserialize)]
struct Sentence {
    raw: Option<String>,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Option<i64>,
    caption: Option<String>,
    category_id: Option<i64>,
}

#[derive(Deserialize)]
struct Category {
    id: i64,
    name: String,
}

fn coco(
    path: &Path,
    images: &[Image],
    annotations: &[Annotation],
    categories: &[Category],
    into: &mut Collector,
) -> Result<&'static str> {
    let mut names = HashMap::new();
    for (number, image) in images.iter().enumerate() {
        let place = format!("images[{number}]");
        let row = Row { path, place: &place };
        let (Some(id), Some(name)) = (image.id, &image.file_name) else {
            return Err(row.error("`id` and `file_name`", "an image without one of them"));
        };
        into.image(row, name)?;
        if names.insert(id, name).is_some_and(|other| other != name) {
            return Err(row.error("an `id` of its own", format!("{id} again")));
        }
    }
    let classes: HashMap<i64, &str> = categories.iter().map(|category| (category.id, category.name.as_str())).collect();
    for (number, annotation) in annotations.iter().enumerate() {
        let place = format!("annotations[{number}]");
        let row = Row { path, place: &place };
        let Some(id) = annotation.image_id else { return Err(row.error("an `image_id`", "none")) };
        let Some(image) = names.get(&id) else {
            return Err(row.error("the `id` of one of `images`", id.to_string()));
        };
        if annotation.caption.is_none() && annotation.category_id.is_none() {
            return Err(row.error("a `caption` or a `category_id`", "none of both"));
        }
        if let Some(caption) = &annotation.caption {
            into.caption(row, image, caption)?;
        }
        if let Some(category) = annotation.category_id {
            let Some(class) = classes.get(&category) else {
                return Err(row.error("the `id` of one of `categories`", category.to_string()));
            };
            into.label(row, image, class)?;
        }
    }
    Ok("JSON of COCO")
}

fn karpathy(path: &Path, images: &[Image], into: &mut Collector) -> Result<&'static str> {
    for (number, image) in images.iter().enumerate() {
        let place = format!("images[{number}]");
        let row = Row { path, place: &place };
        let Some(name) = &image.file_name else { return Err(row.error("a `filename`", "none")) };
        let folder = image.filepath.as_deref().map(|folder| folder.trim_end_matches('/')).filter(|f| !f.is_empty());
        let name = folder.map_or_else(|| name.clone(), |folder| format!("{folder}/{name}"));
        let sentences = image.sentences.as_deref().unwrap_or_default();
        if sentences.is_empty() {
            return Err(row.error("`sentences`", "none"));
        }
        for (number, sentence) in sentences.iter().enumerate() {
            let place = format!("{place}, sentences[{number}]");
            let row = Row { path, place: &place };
            let Some(raw) = &sentence.raw else { return Err(row.error("a sentence `raw`", "none")) };
            into.caption(row, &name, raw)?;
        }
        image.split.iter().try_for_each(|split| into.split(row, &name, split))?;
    }
    Ok("JSON of Karpathy and Fei-Fei")
}
