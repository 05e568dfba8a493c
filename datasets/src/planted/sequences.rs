//! Sequences of frames, as of a video or a sound, and captions that tell what happens in their order: every word has a known time.
//!
//! Each concept has a prototype of a frame, a standard normal vector, and a noun. A sequence of `frames` frames shows `shown` different
//! concepts one after another, `duration` frames each in a run, at random times that do not overlap: frames that show a concept are
//! its prototype plus noise, all others normal vectors of their own. Each caption names the concepts in the order of time, each
//! behind a filler word. No two sequences show the same concepts in the same order, but some show the same in another: what tells
//! these apart is the order alone. Frames stand in order of time and have no boxes; a sequence's global vector is their mean. The classes
//! of an item are its concepts. [`truth`] knows when each concept of a test item is shown.

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
    name: "planted-sequences",
    doc: "sequences of frames and captions that tell them in order, with a known time for every word",
    options: &[
        OptionSpec { name: "captions", doc: "captions a sequence, from 1 to 20", default: OptionValue::Integer(2) },
        OptionSpec { name: "concepts", doc: "concepts in all, from 2 to 48", default: OptionValue::Integer(24) },
        OptionSpec { name: "duration", doc: "frames that a concept lasts", default: OptionValue::Integer(2) },
        OptionSpec {
            name: "frames",
            doc: "frames a sequence, at least `shown` times `duration`",
            default: OptionValue::Integer(12),
        },
        OptionSpec { name: "image_width", doc: "length of a frame's vector", default: OptionValue::Integer(16) },
        OptionSpec {
            name: "noise",
            doc: "standard deviation of the noise beside prototypes of 1",
            default: OptionValue::Float(0.3),
        },
        super::SEED,
        OptionSpec { name: "shown", doc: "concepts a sequence", default: OptionValue::Integer(3) },
        super::TEST,
        super::TRAIN,
        super::VAL,
    ],
    representations: &[
        "image global",
        "image fragments",
        "image labels",
        "text raw",
        "text tokens",
        "text bow",
        "text labels",
    ],
    get: BUILT_IN,
    load,
};

/// Before a noun that nothing has happened before, and between others.
const FIRST: [&str; 3] = ["first", "here", "now"];
const NEXT: [&str; 4] = ["then", "next", "later", "afterwards"];

fn load(options: &Options, _root: Option<&Path>) -> Result<Dataset> {
    concepts::load::<Model>(options)
}

/// When the concepts of test sequences are shown, in order, in a dataset of these options.
///
/// # Errors
/// As [`crate::open`].
pub fn truth(options: &toml::Table) -> Result<Truth> {
    concepts::truth::<Model>(options)
}

struct Model {
    captions: usize,
    duration: usize,
    frames: usize,
    shown: usize,
    noise: f64,
    prototypes: Matrix,
    seed: Seed,
}

impl concepts::Model for Model {
    const SOURCE: Source = SOURCE;

    fn new(options: &Options) -> Result<Self> {
        let concepts = options.integer("concepts", 2..=super::NOUNS.len())?;
        let (shown, duration) = (options.integer("shown", 1..=concepts)?, options.integer("duration", 1..=64)?);
        let (seed, width) = (options.seed()?, options.integer("image_width", 1..=4096)?);
        let mut stream = seed.stream(&["planted-sequences", "prototypes"]);
        let data = (0..concepts * width).map(|_| stream.normal() as f32).collect();
        Ok(Self {
            captions: options.integer("captions", 1..=20)?,
            duration,
            frames: options.integer("frames", shown * duration..=4096)?,
            shown,
            noise: options.float("noise", 0.0..=100.0)?,
            prototypes: Matrix { rows: concepts, cols: width, data },
            seed,
        })
    }

    fn prototypes(&self) -> &Matrix {
        &self.prototypes
    }

    fn noise(&self) -> f64 {
        self.noise
    }

    /// Different orders of concepts.
    fn concepts(&self, items: usize) -> Result<Vec<Vec<usize>>> {
        let choice = Choice { shown: self.shown, of: self.prototypes.rows, ordered: true, items: "sequences" };
        choice.draw(items, &mut self.seed.stream(&["planted-sequences", "concepts"]))
    }

    fn places(&self, item: usize) -> Vec<Range<usize>> {
        self.starts(&mut self.item(item)).into_iter().map(|start| start..start + self.duration).collect()
    }

    fn draw(&self, told: &[Vec<usize>]) -> Draft {
        let width = self.prototypes.cols;
        let mut fragments = Matrix::zeros(told.len(), self.frames * width);
        let mut global = Matrix::zeros(told.len(), width);
        let mut captions = Vec::new();
        for (item, concepts) in told.iter().enumerate() {
            let mut stream = self.item(item);
            let starts = self.starts(&mut stream);
            for (frame, vector) in fragments.row_mut(item).chunks_exact_mut(width).enumerate() {
                vector.iter_mut().for_each(|value| *value = stream.normal() as f32);
                let shown = starts.iter().position(|start| (*start..start + self.duration).contains(&frame));
                if let Some(i) = shown {
                    let prototype = self.prototypes.row(concepts[i]);
                    vector.iter_mut().zip(prototype).for_each(|(value, p)| *value = p + self.noise as f32 * *value);
                }
            }
            super::mean_rows(fragments.row(item), global.row_mut(item));
            captions.push((0..self.captions).map(|_| caption(concepts, &mut stream)).collect());
        }
        let labels = told.iter().map(|order| {
            let mut labels: Vec<u32> = order.iter().map(|&c| c as u32).collect();
            labels.sort_unstable();
            labels
        });
        let images = Images {
            ids: super::ids(&(0..told.len()).collect::<Vec<_>>()),
            split: None,
            global: Some(Arc::new(global)),
            labels: Some(Labels { classes: self.prototypes.rows, of: labels.collect() }),
            fragments: Some(Arc::new(Subset::fragments_of(fragments, self.frames))),
            boxes: None,
            pictures: None,
        };
        Draft { images, captions, text_global: None }
    }
}

impl Model {
    /// Random numbers of an item; its times come first.
    fn item(&self, item: usize) -> Stream {
        self.seed.stream(&["planted-sequences", "item", &item.to_string()])
    }

    /// First frames of the concepts, ascending: the runs and the free frames between them, in a random order.
    fn starts(&self, stream: &mut Stream) -> Vec<usize> {
        let free = self.frames - self.shown * self.duration;
        let mut places = stream.permutation(free + self.shown);
        places.truncate(self.shown);
        places.sort_unstable();
        places.into_iter().enumerate().map(|(i, place)| place + i * (self.duration - 1)).collect()
    }
}

/// The concepts' nouns in order, each behind a random word that says when.
fn caption(concepts: &[usize], stream: &mut Stream) -> String {
    let phrase = |(i, &concept): (usize, &usize)| {
        let fillers: &[&str] = if i == 0 { &FIRST } else { &NEXT };
        format!("{} {}", fillers[stream.below(fillers.len())], super::NOUNS[concept])
    };
    concepts.iter().enumerate().map(phrase).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{concepts::Model as _, *};

    #[test]
    fn without_noise_frames_show_what_the_caption_tells_in_its_order() {
        let options = toml::toml! { noise = 0.0 train = 60 test = 40 };
        let dataset = crate::open("planted-sequences", &options, None).unwrap();
        let truth = truth(&options).unwrap();
        let table = dataset.test.images.fragments.as_ref().unwrap();
        assert_eq!((table.items(), table.fragments(), table.width(), truth.items.len()), (40, 12, 16, 40));
        assert!(dataset.test.images.boxes.is_none() && (truth.chance(12) - 2.0 / 12.0).abs() < 1e-12);
        let mut frames = vec![0.0; 12 * 16];
        for (item, shown) in truth.items.iter().enumerate() {
            table.read(item, &mut frames).unwrap();
            // What each frame shows, from the frames alone.
            let seen: Vec<Option<usize>> = frames
                .chunks_exact(16)
                .map(|frame| (0..24).find(|&concept| frame == truth.prototypes.row(concept)))
                .collect();
            for shown in shown {
                assert_eq!(shown.fragments.len(), 2);
                assert!((0..12).all(|t| (seen[t] == Some(shown.concept)) == shown.fragments.contains(&t)), "{seen:?}");
            }
            let order: Vec<&str> = seen.iter().step_by(1).flatten().map(|&concept| &truth.words[concept][..]).collect();
            let order: Vec<&str> = order.chunks(2).map(|run| run[0]).collect();
            for &text in dataset.test.pairs.texts_of(item) {
                let words = &dataset.test.texts.raw.as_ref().unwrap()[text as usize];
                assert_eq!(words.split(' ').skip(1).step_by(2).collect::<Vec<_>>(), order);
            }
            let global = dataset.test.images.global.as_ref().unwrap().gather(&[item]).unwrap();
            let mean: f32 = frames.iter().skip(5).step_by(16).sum::<f32>() / 12.0;
            assert!((global.row(0)[5] - mean).abs() < 1e-5);
        }
        assert_eq!(truth.optimum(&dataset.test.images).unwrap(), 1.0);
    }

    #[test]
    fn orders_are_all_different_and_runs_lie_everywhere() {
        let options = Options::new(SOURCE.options, &toml::toml! { concepts = 4 }).unwrap();
        let model = Model::new(&options).unwrap();
        // 4 x 3 x 2 orders, so that sets of three come in six orders each.
        let orders: HashSet<Vec<usize>> = model.concepts(24).unwrap().into_iter().collect();
        assert_eq!(orders.len(), 24);
        let starts: Vec<Vec<usize>> = (0..400).map(|item| model.starts(&mut model.item(item))).collect();
        assert!(starts.iter().all(|s| s.windows(2).all(|pair| pair[1] >= pair[0] + 2) && s[2] <= 10), "{starts:?}");
        assert!((0..=10).all(|t| starts.iter().any(|s| s.contains(&t))));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |options: toml::Table| crate::open("planted-sequences", &options, None).unwrap_err().to_string();
        let few = error(toml::toml! { concepts = 3 train = 5 });
        assert!(few.contains("at most 6 sequences, one for each order of 3 out of 3 concepts"), "{few}");
        assert!(error(toml::toml! { frames = 5 }).contains("frames"));
    }
}
