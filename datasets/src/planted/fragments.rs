//! Pictures made of concepts and captions that name them: every representation, with a known alignment.
//!
//! Each concept has an image prototype and a text prototype, two independent standard normal vectors, and a noun. An
//! image shows a set of concepts that no other image shows: one region a concept, its prototype plus noise, among regions
//! of background (normal vectors of their own), in random order on a grid. Each caption names the concepts in an
//! order of its own, with filler words between them. The image's global vector is the mean of its regions, the text's the
//! mean of its concepts' text prototypes plus noise. The classes of an item are its concepts.

use std::{ops::Range, path::Path, sync::Arc};

use crate::{
    Dataset, Images, Labels, Matrix, OptionSpec, OptionValue, Result, Source, Subset,
    draft::Draft,
    options::Options,
    planted::{
        Truth,
        concepts::{self, Choice},
    },
    random::{Seed, Stream},
    source::BUILT_IN,
};

pub(crate) const SOURCE: Source = Source {
    name: "planted-fragments",
    doc: "regions that carry concepts and captions that name them, in every representation",
    options: &[
        OptionSpec { name: "captions", doc: "captions an image, from 1 to 20", default: OptionValue::Integer(2) },
        OptionSpec { name: "concepts", doc: "concepts in all, from 2 to 48", default: OptionValue::Integer(24) },
        OptionSpec { name: "fragments", doc: "regions an image, at least `shown`", default: OptionValue::Integer(6) },
        OptionSpec { name: "image_width", doc: "length of a region vector", default: OptionValue::Integer(16) },
        OptionSpec {
            name: "noise",
            doc: "standard deviation of the noise beside prototypes of 1",
            default: OptionValue::Float(0.2),
        },
        super::SEED,
        OptionSpec { name: "shown", doc: "concepts an image", default: OptionValue::Integer(3) },
        super::TEST,
        OptionSpec { name: "text_width", doc: "length of a text vector", default: OptionValue::Integer(12) },
        super::TRAIN,
        super::VAL,
    ],
    representations: &[
        "image global",
        "image fragments",
        "image boxes",
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

const FILLERS: [&str; 4] = ["a", "the", "one", "some"];

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    concepts::load::<Model>(options)
}

/// Where the concepts of test images are, in a dataset of these options.
///
/// # Errors
/// As [`crate::open`].
pub fn truth(options: &toml::Table) -> Result<Truth> {
    concepts::truth::<Model>(options)
}

struct Model {
    captions: usize,
    fragments: usize,
    shown: usize,
    noise: f64,
    image: Matrix,
    text: Matrix,
    seed: Seed,
}

impl concepts::Model for Model {
    const SOURCE: Source = SOURCE;

    fn new(options: &Options) -> Result<Self> {
        let concepts = options.integer("concepts", 2..=super::NOUNS.len())?;
        let shown = options.integer("shown", 1..=concepts)?;
        let seed = options.seed()?;
        let prototypes = |side: &str, width| {
            let mut stream = seed.stream(&["planted-fragments", "prototypes", side]);
            Matrix { rows: concepts, cols: width, data: normals(&mut stream, concepts * width) }
        };
        Ok(Self {
            captions: options.integer("captions", 1..=20)?,
            fragments: options.integer("fragments", shown..=1024)?,
            shown,
            noise: options.float("noise", 0.0..=100.0)?,
            image: prototypes("image", options.integer("image_width", 1..=4096)?),
            text: prototypes("text", options.integer("text_width", 1..=4096)?),
            seed,
        })
    }

    fn prototypes(&self) -> &Matrix {
        &self.image
    }

    fn noise(&self) -> f64 {
        self.noise
    }

    /// Distinct sorted sets of concepts.
    fn concepts(&self, items: usize) -> Result<Vec<Vec<usize>>> {
        let choice = Choice { shown: self.shown, of: self.image.rows, ordered: false, items: "images" };
        choice.draw(items, &mut self.seed.stream(&["planted-fragments", "concepts"]))
    }

    fn places(&self, item: usize) -> Vec<Range<usize>> {
        let places = self.item(item).permutation(self.fragments).into_iter();
        places.take(self.shown).map(|place| place..place + 1).collect()
    }

    fn draw(&self, shown: &[Vec<usize>]) -> Draft {
        let (width, regions) = (self.image.cols, self.fragments);
        let mut fragments = Matrix::zeros(shown.len(), regions * width);
        let mut global = Matrix::zeros(shown.len(), width);
        let mut text_global = Matrix::zeros(shown.len() * self.captions, self.text.cols);
        let mut captions = Vec::new();
        for (item, concepts) in shown.iter().enumerate() {
            let mut stream = self.item(item);
            self.draw_regions(concepts, &mut stream, fragments.row_mut(item));
            super::mean_rows(fragments.row(item), global.row_mut(item));
            captions.push((0..self.captions).map(|_| caption(concepts, &mut stream)).collect());
            for number in 0..self.captions {
                let row = text_global.row_mut(item * self.captions + number);
                let concepts: Vec<f32> = concepts.iter().flat_map(|&c| self.text.row(c)).copied().collect();
                super::mean_rows(&concepts, row);
                row.iter_mut().for_each(|value| *value += (self.noise * stream.normal()) as f32);
            }
        }
        let labels = shown.iter().map(|set| set.iter().map(|&c| c as u32).collect()).collect();
        let images = Images {
            ids: super::ids(&(0..shown.len()).collect::<Vec<_>>()),
            split: None,
            global: Some(Arc::new(global)),
            fragments: Some(Arc::new(Subset::fragments_of(fragments, regions))),
            boxes: Some((0..shown.len()).flat_map(|_| grid(regions)).collect()),
            labels: Some(Labels { classes: self.image.rows, of: labels }),
            pictures: None,
        };
        Draft { images, captions, text_global: Some(text_global) }
    }
}

impl Model {
    /// Random numbers of an item; the order of its regions comes first.
    fn item(&self, item: usize) -> Stream {
        self.seed.stream(&["planted-fragments", "item", &item.to_string()])
    }

    fn draw_regions(&self, concepts: &[usize], stream: &mut Stream, out: &mut [f32]) {
        let width = self.image.cols;
        let places = stream.permutation(self.fragments);
        for (i, place) in places.into_iter().enumerate() {
            let region = &mut out[place * width..(place + 1) * width];
            region.copy_from_slice(&normals(stream, width));
            if let Some(&concept) = concepts.get(i) {
                let prototype = self.image.row(concept);
                region.iter_mut().zip(prototype).for_each(|(value, p)| *value = p + self.noise as f32 * *value);
            }
        }
    }
}

/// The concepts' nouns in random order, each behind a random filler word.
fn caption(concepts: &[usize], stream: &mut Stream) -> String {
    let mut order = concepts.to_vec();
    stream.shuffle(&mut order);
    let phrases: Vec<String> =
        order.iter().map(|&c| format!("{} {}", FILLERS[stream.below(FILLERS.len())], super::NOUNS[c])).collect();
    phrases.join(" and ")
}

/// Cells of the squarest grid with at least `count` cells, row after row.
fn grid(count: usize) -> impl Iterator<Item = [f32; 4]> {
    let columns = (count as f64).sqrt().ceil() as usize;
    let (w, h) = (1.0 / columns as f32, 1.0 / count.div_ceil(columns) as f32);
    (0..count).map(move |i| {
        let (x, y) = ((i % columns) as f32, (i / columns) as f32);
        [x * w, y * h, (x + 1.0) * w, (y + 1.0) * h]
    })
}

fn normals(stream: &mut Stream, count: usize) -> Vec<f32> {
    (0..count).map(|_| stream.normal() as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::{concepts::Model as _, *};

    #[test]
    fn without_noise_every_concept_is_found_in_one_region() {
        let dataset = crate::open("planted-fragments", &toml::toml! { noise = 0.0 }, None).unwrap();
        let model = Model::new(&Options::new(SOURCE.options, &toml::toml! { noise = 0.0 }).unwrap()).unwrap();
        let test = &dataset.test;
        let table = test.images.fragments.as_ref().unwrap();
        assert_eq!((table.items(), table.fragments(), table.width()), (100, 6, 16));
        let mut item = vec![0.0; 6 * 16];
        for image in 0..test.images.len() {
            table.read(image, &mut item).unwrap();
            for &text in test.pairs.texts_of(image) {
                let words = &test.texts.raw.as_ref().unwrap()[text as usize];
                for (concept, noun) in super::super::NOUNS[..24].iter().enumerate() {
                    let named = words.split(' ').any(|word| word == *noun);
                    let regions = item.chunks(16).filter(|region| *region == model.image.row(concept)).count();
                    assert_eq!(regions, usize::from(named));
                    assert_eq!(test.images.labels.as_ref().unwrap().of[image].contains(&(concept as u32)), named);
                }
            }
            let global = test.images.global.as_ref().unwrap().gather(&[image]).unwrap();
            let sum: f32 = item.chunks(16).map(|region| region[3]).sum();
            assert!((global.row(0)[3] - sum / 6.0).abs() < 1e-5);
        }
    }

    #[test]
    fn the_truth_names_the_region_of_every_concept() {
        let options = toml::toml! { noise = 0.0 train = 40 test = 30 };
        let (dataset, truth) = (crate::open("planted-fragments", &options, None).unwrap(), truth(&options).unwrap());
        let table = dataset.test.images.fragments.as_ref().unwrap();
        assert!(truth.items.len() == 30 && (truth.chance(6) - 1.0 / 6.0).abs() < 1e-12);
        let mut item = vec![0.0; 6 * 16];
        for (image, shown) in truth.items.iter().enumerate() {
            table.read(image, &mut item).unwrap();
            let of: Vec<u32> = shown.iter().map(|shown| shown.concept as u32).collect();
            assert_eq!(dataset.test.images.labels.as_ref().unwrap().of[image], of);
            for shown in shown {
                let place = shown.fragments.start;
                assert_eq!(item[place * 16..(place + 1) * 16], *truth.prototypes.row(shown.concept));
            }
        }
        assert_eq!(truth.optimum(&dataset.test.images).unwrap(), 1.0);
        // With noise, some concepts look more like another region than like themselves.
        let noisy = toml::toml! { noise = 3.0 train = 40 test = 30 };
        let dataset = crate::open("planted-fragments", &noisy, None).unwrap();
        let optimum = super::truth(&noisy).unwrap().optimum(&dataset.test.images).unwrap();
        assert!(optimum > 0.3 && optimum < 0.95, "{optimum}");
    }

    #[test]
    fn too_many_images_are_refused() {
        let error = crate::open("planted-fragments", &toml::toml! { train = 2000 }, None).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"train + val + test: expected at most 2024 images, one for each set of 3 out of 24 concepts, found 2160; ask for fewer images, or raise `concepts` or `shown`");
    }

    #[test]
    fn a_new_sentence_is_encoded_as_the_texts_are() {
        let dataset = crate::open("planted-fragments", &toml::Table::new(), None).unwrap();
        let vocabulary = crate::text::Vocabulary::of(&dataset).unwrap();
        let texts = &dataset.test.texts;
        let again = vocabulary.texts(texts.ids.clone(), texts.raw.clone().unwrap());
        assert_eq!((again.tokens.as_ref(), again.bow.as_ref()), (texts.tokens.as_ref(), texts.bow.as_ref()));
    }
}
