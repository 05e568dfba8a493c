//! Gaussian clusters: an item is known by its class alone.
//!
//! A class has an image centre and a text centre, independent standard normal vectors, and four nouns. An item's vectors
//! are its class's centres plus noise of their own; its caption is three nouns of its class, each replaced by any noun
//! with probability `confusion`. Items of one class cannot be told apart: category retrieval is what it measures.

use std::{path::Path, sync::Arc};

use crate::{
    Dataset, Images, Labels, Matrix, OptionSpec, OptionValue, Result, Source, draft::Draft, options::Options,
    source::BUILT_IN,
};

pub(crate) const SOURCE: Source = Source {
    name: "planted-clusters",
    doc: "Gaussian clusters with a class each, for category retrieval",
    options: &[
        OptionSpec { name: "classes", doc: "number of classes, from 2 to 12", default: OptionValue::Integer(6) },
        OptionSpec {
            name: "confusion",
            doc: "probability that a word is of any class",
            default: OptionValue::Float(0.1),
        },
        OptionSpec { name: "image_width", doc: "length of an image vector", default: OptionValue::Integer(32) },
        OptionSpec {
            name: "noise",
            doc: "standard deviation of the noise beside centres of 1",
            default: OptionValue::Float(0.5),
        },
        super::SEED,
        super::TEST,
        OptionSpec { name: "text_width", doc: "length of a text vector", default: OptionValue::Integer(16) },
        super::TRAIN,
        super::VAL,
    ],
    representations: &[
        "image global",
        "image labels",
        "text raw",
        "text tokens",
        "text bow",
        "text global",
        "text labels",
    ],
    get: BUILT_IN,
    load,
};

const NOUNS_A_CLASS: usize = 4;

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    let classes = options.integer("classes", 2..=super::NOUNS.len() / NOUNS_A_CLASS)?;
    let confusion = options.float("confusion", 0.0..=1.0)?;
    let noise = options.float("noise", 0.0..=100.0)?;
    let seed = options.seed()?;
    let sizes = super::sizes(options)?;
    let items: usize = sizes.iter().sum();
    let table = |side: &str, width: usize| {
        let mut stream = seed.stream(&["planted-clusters", "centres", side]);
        let centres: Vec<f64> = (0..classes * width).map(|_| stream.normal()).collect();
        let mut table = Matrix::zeros(items, width);
        for item in 0..items {
            let mut stream = seed.stream(&["planted-clusters", "noise", side, &item.to_string()]);
            let centre = &centres[item % classes * width..];
            for (value, centre) in table.row_mut(item).iter_mut().zip(centre) {
                *value = (centre + noise * stream.normal()) as f32;
            }
        }
        table
    };
    let caption = |item: usize| {
        let mut stream = seed.stream(&["planted-clusters", "caption", &item.to_string()]);
        let words: Vec<&str> = (0..3)
            .map(|_| {
                let class = if stream.unit() < confusion { stream.below(classes) } else { item % classes };
                super::NOUNS[class * NOUNS_A_CLASS + stream.below(NOUNS_A_CLASS)]
            })
            .collect();
        vec![words.join(" ")]
    };
    let images = Images {
        ids: super::ids(&(0..items).collect::<Vec<_>>()),
        global: Some(Arc::new(table("image", options.integer("image_width", 1..=4096)?))),
        labels: Some(Labels { classes, of: (0..items).map(|item| vec![(item % classes) as u32]).collect() }),
        ..Images::default()
    };
    let text_global = Some(table("text", options.integer("text_width", 1..=4096)?));
    let draft = Draft { images, captions: (0..items).map(caption).collect(), text_global };
    let (words, splits) = super::cut(&draft, sizes);
    let names = (0..classes).map(|class| format!("cluster {class}")).collect();
    super::dataset(SOURCE.name, options, words, names, splits)
}

#[cfg(test)]
mod tests {
    /// With noise 0.1 against centres about 8 apart, the nearest training item is always of the same class.
    #[test]
    fn neighbours_share_the_class() {
        let dataset = crate::open("planted-clusters", &toml::toml! { noise = 0.1 confusion = 0.0 }, None).unwrap();
        let all = |collection: &crate::Collection| collection.images.global.as_ref().unwrap().all().unwrap();
        let (train, test) = (all(&dataset.train), all(&dataset.test));
        let class = |collection: &crate::Collection, i: usize| collection.images.labels.as_ref().unwrap().of[i].clone();
        for i in 0..test.rows {
            let distance =
                |j: usize| -> f32 { test.row(i).iter().zip(train.row(j)).map(|(a, b)| (a - b).powi(2)).sum() };
            let nearest = (0..train.rows).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap();
            assert_eq!(class(&dataset.test, i), class(&dataset.train, nearest));
        }
        // Without confusion a class has its own four nouns.
        assert_eq!(dataset.words.len(), 4 + 6 * 4);
    }
}
