//! Training data that was changed on purpose: pairs exchanged, to show that what is learned comes from them, or fewer of them, to show what
//! more would bring.

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

/// The dataset with no more than `images` training images and the texts that belong to them; the seed says which, and a smaller number
/// takes some of those that a larger one takes. The other splits and the vocabulary, of every training caption, stay; a gallery that was the
/// training split stays the whole of it.
pub fn fewer(dataset: &Dataset, images: usize, seed: Seed) -> Dataset {
    let mut taken = seed.stream(&["fewer images"]).permutation(dataset.train.images.len());
    taken.truncate(images);
    taken.sort_unstable();
    let mut train = dataset.train.of_images(&taken);
    (train.images.split, train.texts.split) = (dataset.train.images.split, dataset.train.texts.split);
    let database = dataset.database.clone().or_else(|| Some(dataset.train.clone()));
    Dataset { train, database, ..dataset.clone() }
}

#[cfg(test)]
mod tests {
    use crate::{Checksum, Images, Notice, Split, Texts};

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

    fn dataset() -> Dataset {
        Dataset {
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
        }
    }

    #[test]
    fn pairs_are_exchanged_and_nothing_else_is() {
        let dataset = dataset();
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
    #[test]
    fn fewer_images_bring_their_texts_and_are_part_of_more() {
        let dataset = dataset();
        let small = fewer(&dataset, 10, Seed(1));
        let large = fewer(&dataset, 30, Seed(1));
        assert_eq!([&small, &large].map(|it| it.train.images.len()), [10, 30]);
        assert!(small.train.images.ids.iter().all(|id| large.train.images.ids.contains(id)));
        for (image, id) in small.train.images.ids.iter().enumerate() {
            let number: usize = id[1..].parse().unwrap();
            let texts: Vec<&str> = small
                .train
                .pairs
                .texts_of(image)
                .iter()
                .map(|&text| small.train.texts.ids[text as usize].as_str())
                .collect();
            assert_eq!(texts, [format!("t{}", 2 * number), format!("t{}", 2 * number + 1)]);
        }
        assert_eq!(small.train.texts.len(), 20);
        assert_eq!(small.test.pairs, dataset.test.pairs);
        assert_eq!(small.split(Split::Database).unwrap().images.len(), 100);
        assert_eq!(fewer(&dataset, 1000, Seed(1)).train.images.ids, dataset.train.images.ids);
        assert_ne!(fewer(&dataset, 10, Seed(2)).train.images.ids, small.train.images.ids);
    }
}
