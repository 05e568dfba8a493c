use crate::{Collection, FeatureTable, Images, Labels, Matrix, Pairs, Texts, text::Vocabulary};
use std::sync::Arc;

/// Every item of a dataset before it is cut into splits.
#[derive(Default)]
pub(crate) struct Draft {
    pub images: Images,
    /// Captions of each image.
    pub captions: Vec<Vec<String>>,
    /// One vector a caption, in the order of `captions`.
    pub text_global: Option<Matrix>,
}

impl Draft {
    /// The vocabulary of the captions of the given images.
    pub fn vocabulary(&self, train: &[usize], min_count: usize) -> Vocabulary {
        Vocabulary::new(train.iter().flat_map(|&image| &self.captions[image]).map(String::as_str), min_count)
    }

    /// The split of the given images with all their captions; captions carry the labels of their image.
    pub fn cut(&self, items: &[usize], vocabulary: &Vocabulary) -> Collection {
        let images = self.images.subset(items);
        let (mut ids, mut raw, mut pairs, mut owners, mut rows) = (vec![], vec![], vec![], vec![], vec![]);
        let firsts: Vec<usize> = self
            .captions
            .iter()
            .scan(0, |next, captions| Some(std::mem::replace(next, *next + captions.len())))
            .collect();
        for (position, &image) in items.iter().enumerate() {
            for (number, caption) in self.captions[image].iter().enumerate() {
                pairs.push((position as u32, ids.len() as u32));
                ids.push(format!("{}#{number}", self.images.ids[image]));
                raw.push(caption.clone());
                owners.push(image);
                rows.push(firsts[image] + number);
            }
        }
        let mut texts = vocabulary.texts(ids, raw);
        texts.labels = self.images.labels.as_ref().map(|labels| labels.subset(&owners));
        texts.global = self.text_global.as_ref().map(|table| {
            let data = rows.iter().flat_map(|&row| table.row(row)).copied().collect();
            Arc::new(Matrix { rows: rows.len(), cols: table.cols, data }) as FeatureTable
        });
        let pairs = Pairs::new(images.len(), texts.len(), pairs);
        Collection { images, texts, pairs }
    }
}

/// A split of images and texts of one vector each, item `i` of one belonging to item `i` of the other.
pub(crate) fn twins(ids: Vec<String>, image: Matrix, text: Matrix, labels: Option<Labels>) -> Collection {
    let n = ids.len();
    Collection {
        images: Images { ids: ids.clone(), global: Some(Arc::new(image)), labels: labels.clone(), ..Images::default() },
        texts: Texts { ids, global: Some(Arc::new(text)), labels, ..Texts::default() },
        pairs: Pairs::new(n, n, (0..n as u32).map(|i| (i, i)).collect()),
    }
}
