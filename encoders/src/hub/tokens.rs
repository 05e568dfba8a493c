//! From a text to the numbers of its tokens, by the `tokenizer.json` of a folder.
//!
//! The file says how a text is normalised, cut and numbered, and which tokens stand before and behind it; the crate `tokenizers`, which the reference
//! is built on, does so. How long a text may be and whether it is filled up to that length is the network's matter: what the file says of it is
//! replaced. A text that is too long loses tokens at its end and keeps those that stand behind it.

use tokenizers::{PaddingParams, PaddingStrategy, Tokenizer, TruncationParams};
use xmbench_datasets::{Error, Result};

use super::folder::Folder;

/// A tokenizer with the length of a network's texts.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    /// The most tokens of a text.
    length: usize,
    /// Numbers that the network knows.
    words: usize,
}

impl Tokens {
    /// That of a folder; texts have at most `length` tokens, or exactly as many if there is a token to fill up with.
    pub fn read(folder: &mut Folder, length: usize, fill: Option<u32>, words: usize) -> Result<Self> {
        const NAME: &str = "tokenizer.json";
        let path = folder.file(NAME);
        let wrong = |found: String| {
            let next = "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes one";
            Err(Error::content(&path, "", "a tokenizer of the hub", found, next))
        };
        let Some(bytes) = folder.bytes(NAME)? else { return wrong("nothing".into()) };
        let mut tokenizer = match Tokenizer::from_bytes(&bytes) {
            Ok(tokenizer) => tokenizer,
            Err(error) => return wrong(error.to_string()),
        };
        let cut = TruncationParams { max_length: length, ..TruncationParams::default() };
        if let Err(error) = tokenizer.with_truncation(Some(cut)) {
            return wrong(error.to_string());
        }
        tokenizer.with_padding(fill.map(|pad_id| PaddingParams {
            strategy: PaddingStrategy::Fixed(length),
            pad_id,
            ..PaddingParams::default()
        }));
        Ok(Self { tokenizer, length, words })
    }

    /// The number of a token.
    pub fn number(folder: &mut Folder, token: &str) -> Result<Option<u32>> {
        Ok(Self::read(folder, 512, None, usize::MAX)?.tokenizer.token_to_id(token))
    }

    /// The numbers of a text's tokens, at least one.
    pub fn of(&self, text: &str) -> Result<Vec<u32>> {
        let wrong = |found: String| {
            let next = "let tokenizer.json be that of the network";
            Err(Error::option(
                "tokenizer.json",
                format!("1 to {} tokens below {}", self.length, self.words),
                found,
                next,
            ))
        };
        let ids = match self.tokenizer.encode_fast(text, true) {
            Ok(encoded) => encoded.get_ids().to_vec(),
            Err(error) => return wrong(format!("`{text}` and {error}")),
        };
        match ids.iter().find(|&&id| id as usize >= self.words) {
            Some(id) => wrong(format!("{id} in `{text}`")),
            None if ids.is_empty() || ids.len() > self.length => wrong(format!("{} of them in `{text}`", ids.len())),
            None => Ok(ids),
        }
    }
}
