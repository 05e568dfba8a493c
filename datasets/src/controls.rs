//! What stands beside learned results to show that they were learned.

use crate::{Collection, Dataset, Pairs, random::Seed};

/// The dataset with the texts of its training and validation pairs exchanged at random: a method that is fitted on it can
/// learn what images and texts look like, but not which belong together. Items, labels and the test split stay.
pub fn shuffled(dataset: &Dataset, seed: Seed) -> Dataset {
    let shuffle = |collection: &Collection, split: &str| {
        let order = seed.stream(&["shuffled pairs", split]).permutation(collection.texts.len());
        let pairs = collection.pairs.all().iter().map(|&(image, text)| (image, order[text as usize] as u32)).collect();
        let pairs = Pairs::new(collection.images.len(), collection.texts.len(), pairs);
        Collection { pairs, ..collection.clone() }
    };
    Dataset {
        train: shuffle(&dataset.train, "train"),
        val: dataset.val.as_ref().map(|val| shuffle(val, "val")),
        ..dataset.clone()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Checksum, Images, Notice, Texts};

    use super::*;

    fn collection(n: usize) -> Collection {
        let ids = |prefix: &str, n: usize| (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
        let pairs = (0..2 * n as u32).map(|text| (text / 2, text)).collect();
        Collection {
            images: Images { ids: ids("i", n), ..Images::default() },
            texts: Texts { ids: ids("t", 2 * n), ..Texts::default() },
            pairs: Pairs::new(n, 2 * n, pairs),
        }
    }

    #[test]
    fn pairs_are_exchanged_and_nothing_else_is() {
        let dataset = Dataset {
            name: "planted".into(),
            variant: String::new(),
            checksum: Checksum("abc".into()),
            notice: Notice::default(),
            words: [].into(),
            classes: vec![],
            train: collection(100),
            val: Some(collection(50)),
            test: collection(50),
            database: None,
        };
        let mixed = shuffled(&dataset, Seed(1));
        assert_eq!(mixed.test.pairs, dataset.test.pairs);
        assert_eq!(mixed.train.texts.ids, dataset.train.texts.ids);
        // Every image keeps two texts, every text one image; by chance one pair in a hundred stays.
        assert!((0..100).all(|image| mixed.train.pairs.texts_of(image).len() == 2));
        assert!((0..200).all(|text| mixed.train.pairs.images_of(text).len() == 1));
        let kept = mixed.train.pairs.all().iter().filter(|&&(image, text)| image == text / 2).count();
        assert!(kept < 12, "{kept} of 200 pairs stayed");
        assert_ne!(mixed.val.as_ref().unwrap().pairs, dataset.val.as_ref().unwrap().pairs);
        assert_eq!(shuffled(&dataset, Seed(1)).train.pairs, mixed.train.pairs);
        assert_ne!(shuffled(&dataset, Seed(2)).train.pairs, mixed.train.pairs);
    }
}
