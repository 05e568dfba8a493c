//! Names that a file may give and a path is made of: parsed before anything uses them.

use serde::{Deserialize, Serialize};

use super::digest;

/// Digits of an [`Id`].
const DIGITS: usize = 16;

/// The identity of a trial: 16 lower-case hexadecimal digits. Folders are named after it, so that a recording from a stranger must
/// not be able to say anything else: `../victim` is no identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(String);

impl Id {
    /// The identity of what `text` says: the first digits of its SHA-256.
    pub fn of(text: &str) -> Self {
        Self(digest(text)[..DIGITS].to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == DIGITS && text.bytes().all(digit) {
            return Ok(Self(text.into()));
        }
        Err(format!("expected an identity of {DIGITS} hexadecimal digits, found {}", crate::output::quoted(text)))
    }
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

/// A name of files without folder and ending: letters, digits, `-`, `_` and `.`, not empty, not hidden, of at most
/// [`Stem::LONGEST`] characters. There is no other way to one than through [`Stem::of`], and no way from it out of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stem(String);

impl Stem {
    /// Characters of the longest one: with a number, a part and an ending it is still a file name everywhere.
    pub const LONGEST: usize = 120;

    /// The name that is most like `text`: everything else becomes `-`, one for several. What is too long is cut and ends in digits of its SHA-256,
    /// so that two long texts keep two names.
    pub fn of(text: &str) -> Self {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
        let mut name: Vec<char> = text.chars().map(safe).collect();
        name.dedup_by(|after, before| *after == '-' && *before == '-');
        let name: String = name.into_iter().collect();
        let name = name.trim_matches(['-', '.']);
        match name.len() {
            0 => Self("unnamed".into()),
            length if length <= Self::LONGEST => Self(name.into()),
            _ => Self(format!("{}-{}", &name[..Self::LONGEST - DIGITS - 1], Id::of(text))),
        }
    }

    /// The name with a part behind a hyphen: `01-recall-f8k-cost`.
    #[must_use]
    pub fn with(&self, part: &str) -> Self {
        Self::of(&format!("{}-{part}", self.0))
    }

    /// The file of this name and an ending.
    pub fn file(&self, ending: &'static str) -> String {
        format!("{}.{ending}", self.0)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Stem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_sixteen_digits_and_nothing_else() {
        assert!("0123456789abcdef".parse::<Id>().is_ok());
        let wrong = [
            "",
            "../../victim",
            "/etc",
            "0123456789abcde",
            "0123456789abcdef0",
            "0123456789ABCDEF",
            "0123456789abcde/",
            "..",
            "0123456789abcd\u{e9}",
            "0123456789abcde\0",
        ];
        for text in wrong {
            assert!(text.parse::<Id>().is_err(), "{text}");
            assert!(serde_json::from_value::<Id>(text.into()).is_err(), "{text}");
        }
        let long = "x".repeat(5_000_000).parse::<Id>().unwrap_err();
        assert!(long.len() < 300, "{} bytes of message", long.len());
        assert_eq!(Id::of("a").as_str(), &digest("a")[..16]);
    }

    #[test]
    fn a_stem_leads_nowhere() {
        assert_eq!(Stem::of("02 hash/wiki: 10").as_str(), "02-hash-wiki-10");
        assert_eq!(Stem::of("../../etc/passwd").as_str(), "etc-passwd");
        assert_eq!(Stem::of("..").as_str(), "unnamed");
        assert_eq!(Stem::of("a").with("b/c").file("svg"), "a-b-c.svg");
        let long = [Stem::of(&"a".repeat(5_000_000)), Stem::of(&"a".repeat(5_000_001))];
        assert_ne!(long[0], long[1]);
        assert!(long.iter().all(|stem| stem.as_str().len() == Stem::LONGEST));
    }
}
