//! The emoji that have a picture, with their captions and classes.

use std::collections::HashSet;

use twemoji_assets::png::PngTwemojiAsset;

use crate::text::words;

/// One emoji with its picture.
pub(super) struct Item {
    pub emoji: &'static emojis::Emoji,
    /// PNG of 72 x 72 pixels.
    pub png: &'static [u8],
    /// One of 98; absent from emoji younger than Unicode 13.1.
    pub subgroup: Option<&'static str>,
    keywords: &'static [&'static str],
}

/// Every base emoji that has a picture, in Unicode order.
pub(super) fn items() -> Vec<Item> {
    let item = |emoji: &'static emojis::Emoji| {
        let asset = spelled(emoji.as_str(), PngTwemojiAsset::from_emoji)?;
        let known = spelled(emoji.as_str(), emoji::lookup_by_glyph::lookup);
        let english = known.and_then(|known| known.annotations.iter().find(|annotation| annotation.lang == "en"));
        Some(Item {
            emoji,
            png: asset.data.0,
            subgroup: known.map(|known| known.subgroup),
            keywords: english.map_or(&[], |annotation| annotation.keywords),
        })
    };
    emojis::iter().filter_map(item).collect()
}

/// Looks a glyph up as it is, without its variation selectors, and with one behind the first character: the crates
/// disagree about which spelling is the key.
fn spelled<T>(glyph: &str, lookup: impl Fn(&str) -> Option<T>) -> Option<T> {
    let bare = glyph.replace('\u{fe0f}', "");
    let mut letters = bare.chars();
    let first = letters.next()?;
    let with = format!("{first}\u{fe0f}{}", letters.as_str());
    lookup(glyph).or_else(|| lookup(&bare)).or_else(|| lookup(&with)).or_else(|| lookup(&format!("{bare}\u{fe0f}")))
}

impl Item {
    /// The name, each shortcode and the list of keywords, as words; the distinct ones.
    pub fn captions(&self) -> Vec<String> {
        let name = self.emoji.name().to_owned();
        let shortcodes = self.emoji.shortcodes().map(|code| code.replace('_', " "));
        let keywords = self.keywords.join(" ");
        let mut seen = HashSet::new();
        std::iter::once(name)
            .chain(shortcodes)
            .chain([keywords])
            .map(|caption| plain(&caption))
            .filter(|caption| !caption.is_empty() && seen.insert(caption.clone()))
            .collect()
    }
}

/// The words of a caption without punctuation, except the signs that some emoji are named by.
fn plain(caption: &str) -> String {
    let mut words = words(caption);
    words.retain(|word| word.contains(char::is_alphanumeric) || ["#", "*", "+", "-"].contains(&word.as_str()));
    words.join(" ")
}
