//! Characters that do what they are told nowhere: control characters, overrides of the direction of writing, and what XML forbids.

use std::borrow::Cow;

/// What stands for a character that is not shown.
const HIDDEN: char = '\u{fffd}';

/// What a reader sees of a character: itself, a space, or [`HIDDEN`].
fn seen(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        c if is_hostile(c) => HIDDEN,
        c => c,
    }
}

fn is_hostile(c: char) -> bool {
    // Marks, embeddings, overrides and isolates of the direction of writing; a byte order mark; annotations.
    let format = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}');
    // The last two of each plane are no characters.
    c.is_control() || format || c as u32 & 0xfffe == 0xfffe
}

fn mapped(text: &str, map: impl Fn(char) -> char) -> Cow<'_, str> {
    match text.chars().any(|c| map(c) != c) {
        true => Cow::Owned(text.chars().map(map).collect()),
        false => Cow::Borrowed(text),
    }
}

/// Text in one line, without characters that do anything: what every format of a file begins with.
pub fn plain(text: &str) -> Cow<'_, str> {
    mapped(text, seen)
}

/// As [`plain`], but lines stay lines: text for a terminal, and for formats that break lines where they like.
pub fn lines(text: &str) -> Cow<'_, str> {
    mapped(text, |c| if c == '\n' || c == '\t' { c } else { seen(c) })
}

/// JSON for a terminal, which it may reach: what it says is the same.
pub fn json(value: &impl serde::Serialize) -> String {
    escaped(&serde_json::to_string(value).expect("a tree of plain values"))
}

/// Beyond ASCII whatever is hostile stands within a string, where it has another spelling.
pub(super) fn escaped(text: &str) -> String {
    let spelled = |c: char| (c as u32 >= 0x7f && is_hostile(c) || matches!(c, '\u{2028}' | '\u{2029}')).then_some(c);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match spelled(c) {
            Some(c) => {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out += &format!("\\u{unit:04x}"));
            }
            None => out.push(c),
        }
    }
    out
}

/// At most `longest` characters of a text; what is left out is counted.
pub fn short(text: &str, longest: usize) -> Cow<'_, str> {
    match text.char_indices().nth(longest) {
        None => Cow::Borrowed(text),
        Some((end, _)) => {
            let left = text[end..].chars().count();
            Cow::Owned(format!("{}... ({left} more characters)", &text[..end]))
        }
    }
}

/// A text, or as much of it as fits into so many columns, with dots behind.
pub fn clipped(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.into(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A text as messages quote it: in one line, not long.
pub fn quoted(text: &str) -> String {
    format!("`{}`", short(&plain(text), 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_is_hidden_and_everything_else_stays() {
        let text = "a\u{1b}[31m\u{7}\u{9b}2J\u{202e}b\u{0}\u{ffff}\u{feff}c\td\ne";
        assert_eq!(plain(text), "a\u{fffd}[31m\u{fffd}\u{fffd}2J\u{fffd}b\u{fffd}\u{fffd}\u{fffd}c d e");
        assert_eq!(lines("one\ntwo\u{1b}\r"), "one\ntwo\u{fffd} ");
        // A family of four, joined; a flag; Hebrew, which needs no override.
        for text in ["\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}", "\u{1f1e9}\u{1f1ea}", "שלום", "naïve <&|>"] {
            assert!(matches!(plain(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn json_says_the_same_without_the_characters() {
        let value = serde_json::json!({ "a\u{9b}": "\u{1b}\u{7f}\u{202e}\u{2028}\u{1fffe}é" });
        let text = json(&value);
        assert!(!text.chars().any(is_hostile), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn what_is_long_is_cut_and_counted() {
        assert_eq!((clipped("abc", 3), clipped("äbcd", 3)), ("abc".to_string(), "äb…".to_string()));
        assert_eq!(short("abc", 3), "abc");
        assert_eq!(short("äbcdef", 3), "äbc... (3 more characters)");
        assert_eq!(quoted("a\nb"), "`a b`");
    }
}
