/// Which image and which text belong together: a many-to-many relation, readable from both sides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    all: Vec<(u32, u32)>,
    texts_of: Lists,
    images_of: Lists,
}

/// Lists of numbers, one behind the other: collections have millions of them, most with one number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lists {
    values: Vec<u32>,
    /// Where each list begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Lists {
    /// `count` lists, from pairs of a list and a number; the numbers of a list keep their order.
    fn new(count: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0; count + 1];
        pairs.clone().for_each(|(list, _)| starts[list as usize + 1] += 1);
        (0..count).for_each(|list| starts[list + 1] += starts[list]);
        let mut next = starts.clone();
        let mut values = vec![0; starts[count]];
        for (list, value) in pairs {
            let next = &mut next[list as usize];
            values[*next] = value;
            *next += 1;
        }
        Self { values, starts }
    }

    fn get(&self, list: usize) -> &[u32] {
        &self.values[self.starts[list]..self.starts[list + 1]]
    }
}

impl Pairs {
    /// The relation of `images` images and `texts` texts with the given `(image, text)` pairs; repetitions are dropped.
    ///
    /// # Panics
    /// If a pair names an item out of range.
    pub fn new(images: usize, texts: usize, mut pairs: Vec<(u32, u32)>) -> Self {
        pairs.sort_unstable();
        pairs.dedup();
        let all = pairs.iter().copied();
        let texts_of = Lists::new(images, all.clone());
        // In the order of images, so that the images of a text ascend.
        let images_of = Lists::new(texts, all.map(|(image, text)| (text, image)));
        Self { all: pairs, texts_of, images_of }
    }

    /// Every pair, sorted by image, then text.
    pub fn all(&self) -> &[(u32, u32)] {
        &self.all
    }

    /// The texts of an image, ascending.
    pub fn texts_of(&self, image: usize) -> &[u32] {
        self.texts_of.get(image)
    }

    /// The images of a text, ascending.
    pub fn images_of(&self, text: usize) -> &[u32] {
        self.images_of.get(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Both directions say what a search through the list says.
        #[test]
        fn both_sides_agree_with_the_list(list in prop::collection::vec((0u32..7, 0u32..9), 0..40)) {
            let pairs = Pairs::new(7, 9, list.clone());
            for image in 0..7 {
                for text in 0..9 {
                    let together = list.contains(&(image, text));
                    prop_assert_eq!(pairs.texts_of(image as usize).contains(&text), together);
                    prop_assert_eq!(pairs.images_of(text as usize).contains(&image), together);
                    prop_assert_eq!(pairs.all().binary_search(&(image, text)).is_ok(), together);
                }
            }
            let count: usize = (0..7).map(|image| pairs.texts_of(image).len()).sum();
            prop_assert_eq!(count, pairs.all().len());
            prop_assert!((0..9).all(|text| pairs.images_of(text).is_sorted()));
        }
    }
}
