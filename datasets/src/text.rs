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
    let mut out = Vec::new();
    each_word(sentence, |word| out.push(word.to_owned()));
    out
}

/// Whether a sentence has a word.
pub fn has_word(sentence: &str) -> bool {
    !sentence.trim().is_empty()
}

/// Hands on [`words`] one by one.
pub(crate) fn each_word(sentence: &str, mut take: impl FnMut(&str)) {
    let letters = sentence.to_lowercase().replace('\u{2019}', "'");
    let mut rest = letters.as_str();
    while let Some(first) = rest.chars().next() {
        let mut end = first.len_utf8();
        if first.is_alphanumeric() {
            let mut before = first;
            let mut after = rest[end..].chars();
            while let Some(letter) = after.next() {
                if !letter.is_alphanumeric() && !joins(before, letter, after.clone().next()) {
                    break;
                }
                (end, before) = (end + letter.len_utf8(), letter);
            }
            let [stem, ending] = cut(&rest[..end]);
            take(stem);
            if !ending.is_empty() {
                take(ending);
            }
        } else if !first.is_whitespace() {
            take(&rest[..end]);
        }
        rest = &rest[end..];
    }
}

/// Whether a letter between two others does not end a word.
fn joins(before: char, letter: char, after: Option<char>) -> bool {
    let Some(after) = after else { return false };
    match letter {
        '-' | '\'' => before.is_alphanumeric() && after.is_alphanumeric(),
        '.' | ',' => before.is_ascii_digit() && after.is_ascii_digit(),
        _ => false,
    }
}

/// A word and the ending that is a word of its own, empty where there is none.
fn cut(word: &str) -> [&str; 2] {
    let ending = ["n't", "'s", "'m", "'d", "'ll", "'re", "'ve"].into_iter().find(|ending| word.ends_with(ending));
    let at = word.len() - ending.map_or(0, str::len);
    if at == 0 { [word, ""] } else { [&word[..at], &word[at..]] }
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
        /// Of a word: how often it occurs, in how many captions, and the last of these.
        type Counts = (usize, usize, usize);
        let (mut counts, mut captions) = (HashMap::<String, Counts>::new(), 0);
        for caption in train {
            captions += 1;
            each_word(caption, |word| {
                let count = match counts.get_mut(word) {
                    Some(count) => count,
                    None => counts.entry(word.to_owned()).or_default(),
                };
                count.0 += 1;
                count.1 += usize::from(count.2 != captions);
                count.2 = captions;
            });
        }
        let mut kept: Vec<(String, Counts)> =
            counts.into_iter().filter(|(_, (count, ..))| *count >= min_count).collect();
        kept.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
        let frequencies = [0; SPECIAL.len()].into_iter().chain(kept.iter().map(|(_, (_, documents, _))| *documents));
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
        let mut out = vec![START];
        each_word(sentence, |word| out.push(self.numbers.get(word).copied().unwrap_or(UNKNOWN)));
        out.push(END);
        out.shrink_to_fit();
        out
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
        assert_eq!(cut("'t 's n't can't-s o'"), "' t ' s n't can't-s o '");
        assert_eq!(cut("1,2 1,a 3. ,4 \u{130}x's"), "1,2 1 , a 3 . , 4 i \u{307} x 's");
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
