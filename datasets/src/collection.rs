use std::{fmt, sync::Arc};

use crate::{Checksum, FeatureTable, Labels, Pairs, SparseRows, Subset, WordVectors};

/// A named part of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What methods are fitted on.
    Train,
    /// What settings are selected on.
    Val,
    /// What numbers are reported on.
    Test,
    /// What is searched where that is more than the training split: all items but the queries. Where a dataset has none, the
    /// training split.
    Database,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::Database => "database",
        })
    }
}

/// Where a dataset is from and what may be done with it; printed wherever its data or numbers are.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notice {
    /// Full name with citation.
    pub title: String,
    /// Licence or terms.
    pub licence: String,
    /// The attribution that the licence asks for; may be empty.
    pub attribution: String,
    /// What a reader of a table must know, such as "grid cells, not detector boxes"; may be empty.
    pub caveat: String,
}

/// A raw picture: `width * height` RGB pixels on white, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}

/// Draws the raw picture of an item.
pub type PictureSource = Arc<dyn Fn(usize) -> Picture + Send + Sync>;

/// The images of a collection in every representation that the dataset offers.
#[derive(Clone, Default)]
pub struct Images {
    /// One identifier an image.
    pub ids: Vec<String>,
    /// Which whole split of an opened dataset these are; absent of items that were put together otherwise.
    pub split: Option<Split>,
    /// One vector an image.
    pub global: Option<FeatureTable>,
    /// A fixed number of region or patch vectors an image.
    pub fragments: Option<FeatureTable>,
    /// Box of each fragment as `[x0, y0, x1, y1]` in fractions of the image, `ids.len() * fragments` of them.
    pub boxes: Option<Arc<[[f32; 4]]>>,
    /// Classes of each image.
    pub labels: Option<Labels>,
    /// The pictures themselves, for showing.
    pub pictures: Option<PictureSource>,
}

/// The texts of a collection in every representation that the dataset offers.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    /// One identifier a text.
    pub ids: Vec<String>,
    /// Which whole split of an opened dataset these are; absent of items that were put together otherwise.
    pub split: Option<Split>,
    /// The sentences, for showing.
    pub raw: Option<Vec<String>>,
    /// Token numbers of each text in the dataset's vocabulary, start and end tokens included.
    pub tokens: Option<Vec<Vec<u32>>>,
    /// Pretrained vectors of the vocabulary's words, by token number.
    pub word_vectors: Option<Arc<WordVectors>>,
    /// tf-idf weighted bag of words over the vocabulary, rows of unit L2 norm.
    pub bow: Option<SparseRows>,
    /// One vector a text.
    pub global: Option<FeatureTable>,
    /// Classes of each text.
    pub labels: Option<Labels>,
}

/// One split: images, texts and which belong together.
#[derive(Clone, Default, Debug)]
pub struct Collection {
    /// The images.
    pub images: Images,
    /// The texts.
    pub texts: Texts,
    /// Which image and text belong together, as positions in `images` and `texts`.
    pub pairs: Pairs,
}

/// A dataset ready to be used.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Name, such as `emoji`.
    pub name: String,
    /// The options that shaped it, such as `split=series`; empty when there are none.
    pub variant: String,
    /// SHA-256 over content and options; part of a trial's identity.
    pub checksum: Checksum,
    /// Origin and terms.
    pub notice: Notice,
    /// Words by token number, from training captions only; empty when the texts have no tokens.
    pub words: Arc<[String]>,
    /// Class names by number; empty when there are no labels.
    pub classes: Vec<String>,
    /// What methods are fitted on.
    pub train: Collection,
    /// What settings are selected on; absent when the dataset has no validation split.
    pub val: Option<Collection>,
    /// What numbers are reported on.
    pub test: Collection,
    /// What queries of the test split search in protocols that ask for it; absent where that is the training split.
    pub database: Option<Collection>,
}

impl Dataset {
    /// The splits that it has of its own, in the order of [`Split`].
    pub fn splits(&self) -> impl Iterator<Item = (Split, &Collection)> {
        let own = [
            (Split::Train, Some(&self.train)),
            (Split::Val, self.val.as_ref()),
            (Split::Test, Some(&self.test)),
            (Split::Database, self.database.as_ref()),
        ];
        own.into_iter().filter_map(|(split, collection)| Some((split, collection?)))
    }

    /// Writes into each split which one it is.
    pub(crate) fn marked(mut self) -> Self {
        let Self { train, val, test, database, .. } = &mut self;
        let own = [
            (Split::Train, Some(train)),
            (Split::Val, val.as_mut()),
            (Split::Test, Some(test)),
            (Split::Database, database.as_mut()),
        ];
        for (split, collection) in own {
            if let Some(Collection { images, texts, .. }) = collection {
                (images.split, texts.split) = (Some(split), Some(split));
            }
        }
        self
    }

    /// A split, if the dataset has it.
    pub fn split(&self, split: Split) -> Option<&Collection> {
        match split {
            Split::Train => Some(&self.train),
            Split::Val => self.val.as_ref(),
            Split::Test => Some(&self.test),
            Split::Database => Some(self.database.as_ref().unwrap_or(&self.train)),
        }
    }
}

impl Images {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The box of each fragment of an image, where the dataset says where fragments lie.
    pub fn boxes_of(&self, image: usize) -> Option<&[[f32; 4]]> {
        let boxes = self.boxes.as_ref()?;
        let each = boxes.len() / self.len().max(1);
        boxes.get(image * each..(image + 1) * each)
    }

    /// The given images in all their representations, in the order of `items`.
    pub fn subset(&self, items: &[usize]) -> Self {
        let boxes = self
            .boxes
            .as_ref()
            .map(|_| items.iter().flat_map(|&item| self.boxes_of(item).unwrap_or_default()).copied().collect());
        let pictures = self.pictures.clone().map(|draw| {
            let items = items.to_vec();
            Arc::new(move |position: usize| draw(items[position])) as PictureSource
        });
        Self {
            ids: items.iter().map(|&item| self.ids[item].clone()).collect(),
            split: None,
            global: self.global.as_ref().map(|table| rows_of(table, items)),
            fragments: self.fragments.as_ref().map(|table| rows_of(table, items)),
            boxes,
            labels: self.labels.as_ref().map(|labels| labels.subset(items)),
            pictures,
        }
    }
}

impl Texts {
    /// Number of texts.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The given texts in all their representations, in the order of `items`; the vocabulary stays what it is.
    pub fn subset(&self, items: &[usize]) -> Self {
        Self {
            ids: items.iter().map(|&item| self.ids[item].clone()).collect(),
            split: None,
            raw: self.raw.as_ref().map(|raw| items.iter().map(|&item| raw[item].clone()).collect()),
            tokens: self.tokens.as_ref().map(|tokens| items.iter().map(|&item| tokens[item].clone()).collect()),
            word_vectors: self.word_vectors.clone(),
            bow: self.bow.as_ref().map(|bow| bow.subset(items)),
            global: self.global.as_ref().map(|table| rows_of(table, items)),
            labels: self.labels.as_ref().map(|labels| labels.subset(items)),
        }
    }
}

impl Collection {
    /// The given images, the texts that belong to any of them, and the pairs of the two; texts keep their order.
    pub fn of_images(&self, images: &[usize]) -> Self {
        let mut texts: Vec<usize> =
            images.iter().flat_map(|&image| self.pairs.texts_of(image)).map(|&text| text as usize).collect();
        texts.sort_unstable();
        texts.dedup();
        let place =
            |text: u32| texts.binary_search(&(text as usize)).expect("a text of an image that was taken") as u32;
        let of_image = |(to, &from): (usize, &usize)| {
            self.pairs.texts_of(from).iter().map(move |&text| (to as u32, text)).collect::<Vec<_>>()
        };
        let pairs = images.iter().enumerate().flat_map(of_image).map(|(image, text)| (image, place(text))).collect();
        Self {
            images: self.images.subset(images),
            texts: self.texts.subset(&texts),
            pairs: Pairs::new(images.len(), texts.len(), pairs),
        }
    }
}

fn rows_of(table: &FeatureTable, items: &[usize]) -> FeatureTable {
    Arc::new(Subset::new(table.clone(), items))
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images")
            .field("len", &self.len())
            .field("global", &self.global)
            .field("fragments", &self.fragments)
            .field("labels", &self.labels.is_some())
            .field("pictures", &self.pictures.is_some())
            .finish()
    }
}
