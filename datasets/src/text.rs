//! Words, vocabularies, token numbers and tf-idf.
//!
//! Everything is learned from training captions only: a word that no training caption holds becomes `<unk>` in the
//! tokens and is left out of the bag of words.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use crate::{Dataset, SparseRows, Texts};

/// Token number before the first word.
pub const START: u32 = 1;
/// Token number after the last word.
pub const END: u32 = 2;
/// Token number of a word outside the vocabulary.
pub const UNKNOWN: u32 = 3;
/// The words of the special tokens, in the order of their numbers; that of the padding is 0.
pub const SPECIAL: [&str; 4] = ["<pad>", "<start>", "<end>", "<unk>"];

/// The words of a sentence, in lower case.
///
/// A word is a run of letters and digits; one hyphen, or a point or comma between digits, does not end it (`t-shirt`,
/// `3.5`). As in the Penn Treebank convention that the field's vocabularies are built with, `n't` and the endings `'s`,
/// `'m`, `'d`, `'ll`, `'re` and `'ve` are words of their own (`does n't`, `dog 's`), and so is every punctuation mark.
pub fn words(sentence: &str) -> Vec<String> {
    let letters: Vec<char> = sentence.to_lowercase().chars().map(|c| if c == '\u{2019}' { '\'' } else { c }).collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < letters.len() {
        if letters[i].is_whitespace() {
            i += 1;
            continue;
        }
        let start = i;
        i += 1;
        if letters[start].is_alphanumeric() {
            while i < letters.len() && (letters[i].is_alphanumeric() || joins(&letters, i)) {
                i += 1;
            }
            push_word(&letters[start..i], &mut out);
        } else {
            out.push(letters[start].to_string());
        }
    }
    out
}

fn joins(letters: &[char], i: usize) -> bool {
    let (Some(&before), Some(&after)) = (letters.get(i - 1), letters.get(i + 1)) else { return false };
    match letters[i] {
        '-' | '\'' => before.is_alphanumeric() && after.is_alphanumeric(),
        '.' | ',' => before.is_ascii_digit() && after.is_ascii_digit(),
        _ => false,
    }
}

fn push_word(letters: &[char], out: &mut Vec<String>) {
    let word: String = letters.iter().collect();
    let ending = ["n't", "'s", "'m", "'d", "'ll", "'re", "'ve"].iter().find(|ending| word.ends_with(*ending));
    match ending.and_then(|ending| word.strip_suffix(ending).map(|stem| (stem, ending))) {
        Some((stem, ending)) if !stem.is_empty() => out.extend([stem.to_owned(), (*ending).to_owned()]),
        _ => out.push(word),
    }
}

/// Words with their numbers and document frequencies.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    words: Arc<[String]>,
    numbers: HashMap<String, u32>,
    idf: Vec<f32>,
}

impl Vocabulary {
    /// The words that occur at least `min_count` times in the training captions, the most frequent first, equally
    /// frequent ones in alphabetical order, behind the four special tokens.
    pub fn new<'a>(train: impl IntoIterator<Item = &'a str>, min_count: usize) -> Self {
        let (mut counts, mut documents, mut captions) = (BTreeMap::<String, (usize, usize)>::new(), HashSet::new(), 0);
        for caption in train {
            captions += 1;
            documents.clear();
            for word in words(caption) {
                let first = documents.insert(word.clone());
                let count = counts.entry(word).or_default();
                count.0 += 1;
                count.1 += usize::from(first);
            }
        }
        let mut kept: Vec<(String, (usize, usize))> =
            counts.into_iter().filter(|(_, (count, _))| *count >= min_count).collect();
        kept.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
        let frequencies = [0; SPECIAL.len()].into_iter().chain(kept.iter().map(|(_, (_, documents))| *documents));
        let idf = frequencies.map(|frequency| idf(captions, frequency)).collect();
        let words = SPECIAL.iter().map(|&word| word.to_owned()).chain(kept.into_iter().map(|(word, _)| word));
        Self::with_idf(words.collect(), idf)
    }

    /// The vocabulary of a loaded dataset, to encode a new sentence as its texts are encoded; `None` when its texts have
    /// no tokens.
    pub fn of(dataset: &Dataset) -> Option<Self> {
        let tokens = dataset.train.texts.tokens.as_ref()?;
        let mut frequencies = vec![0; dataset.words.len()];
        for text in tokens {
            for token in text.iter().collect::<HashSet<_>>() {
                frequencies[*token as usize] += 1;
            }
        }
        let idf = frequencies.into_iter().map(|frequency| idf(tokens.len(), frequency)).collect();
        Some(Self::with_idf(dataset.words.clone(), idf))
    }

    fn with_idf(words: Arc<[String]>, idf: Vec<f32>) -> Self {
        let numbers = words.iter().enumerate().map(|(number, word)| (word.clone(), number as u32)).collect();
        Self { words, numbers, idf }
    }

    /// Words by token number.
    pub fn words(&self) -> &Arc<[String]> {
        &self.words
    }

    /// Token numbers of a sentence, with the start and end tokens, which count in its length.
    pub fn tokens(&self, sentence: &str) -> Vec<u32> {
        let inner = words(sentence).into_iter().map(|word| self.numbers.get(&word).copied().unwrap_or(UNKNOWN));
        std::iter::once(START).chain(inner).chain(std::iter::once(END)).collect()
    }

    /// tf-idf rows of tokenised sentences, one column a word: count times `ln((1 + n) / (1 + df)) + 1` with `n`
    /// training captions of which `df` hold the word, then scaled to unit L2 norm. Special tokens and punctuation are
    /// left out; a sentence of nothing else has an empty row.
    pub fn bow(&self, tokens: &[Vec<u32>]) -> SparseRows {
        let counted =
            |token: u32| token as usize >= SPECIAL.len() && self.words[token as usize].contains(char::is_alphanumeric);
        let row = |tokens: &Vec<u32>| {
            let mut counts = BTreeMap::<u32, f64>::new();
            for &token in tokens.iter().filter(|&&token| counted(token)) {
                *counts.entry(token).or_default() += f64::from(self.idf[token as usize]);
            }
            let norm = counts.values().map(|value| value * value).sum::<f64>().sqrt();
            counts.into_iter().map(|(column, value)| (column, (value / norm) as f32)).collect()
        };
        SparseRows { cols: self.words.len(), rows: tokens.iter().map(row).collect() }
    }

    /// Sentences as texts with identifiers, raw sentences, tokens and bag of words.
    pub fn texts(&self, ids: Vec<String>, raw: Vec<String>) -> Texts {
        let tokens: Vec<Vec<u32>> = raw.iter().map(|sentence| self.tokens(sentence)).collect();
        let bow = self.bow(&tokens);
        Texts { ids, raw: Some(raw), tokens: Some(tokens), bow: Some(bow), ..Texts::default() }
    }
}

fn idf(captions: usize, frequency: usize) -> f32 {
    (((1 + captions) as f64 / (1 + frequency) as f64).ln() + 1.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_cut_as_the_treebank_does() {
        let cut = |sentence| words(sentence).join(" ");
        assert_eq!(
            cut("A dog's T-shirt doesn't cost $3.50, does it?"),
            "a dog 's t-shirt does n't cost $ 3.50 , does it ?"
        );
        assert_eq!(cut("one o\u{2019}clock - end."), "one o'clock - end .");
        assert_eq!(cut(" \t"), "");
        assert_eq!(cut("'t"), "' t");
        assert_eq!(cut("naïve  Straße"), "naïve straße");
    }

    #[test]
    fn vocabulary_is_that_of_the_training_captions() {
        let vocabulary = Vocabulary::new(["a red apple .", "a green apple", "a pear"], 2);
        assert_eq!(vocabulary.words()[4..], ["a", "apple"]);
        assert_eq!(vocabulary.tokens("an apple"), [START, UNKNOWN, 5, END]);
    }

    #[test]
    fn weights_are_the_closed_form() {
        let vocabulary = Vocabulary::new(["a apple .", "a pear .", "a", "a"], 1);
        // 4 captions: df(a) = 4, df(.) = 2, df(apple) = df(pear) = 1.
        assert_eq!(vocabulary.words()[4..], ["a", ".", "apple", "pear"]);
        let row = &vocabulary.bow(&[vocabulary.tokens("apple apple a . plum")]).rows[0];
        let (a, apple) = (1.0, 2.0 * ((5.0f64 / 2.0).ln() + 1.0));
        let norm = (a * a + apple * apple).sqrt();
        assert_eq!(row.iter().map(|entry| entry.0).collect::<Vec<_>>(), [4, 6]);
        assert!((f64::from(row[0].1) - a / norm).abs() < 1e-6 && (f64::from(row[1].1) - apple / norm).abs() < 1e-6);
        assert!(vocabulary.bow(&[vocabulary.tokens(". plum")]).rows[0].is_empty());
    }
}
