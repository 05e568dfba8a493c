//! What a parser of TOML says, with the place and what was meant.

use anyhow::anyhow;

use super::nearest;
use crate::output::{plain, short};

/// A parser's message with file, line and the nearest known key.
pub fn explain(file: &str, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let message = error.message().trim();
    let said = short(message, 1_000);
    let Some(span) = error.span() else { return anyhow!("{file}: {said}") };
    let at = (0..=span.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let line = text[..at].matches('\n').count() + 1;
    let shown = excerpt(text, at);
    let hint = unknown_key(message).map(|(key, known)| nearest(key, known)).unwrap_or_default();
    anyhow!("{file}, line {line}: {}{hint}\n  | {shown}", said.replace('\n', "; "))
}

/// Characters of a line that are shown on either side of what is wrong in it.
const AROUND: usize = 60;

/// The line around a place in a text, or so much of it as fits on a screen.
fn excerpt(text: &str, at: usize) -> String {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    let whole = text[start..end].trim();
    if whole.chars().nth(2 * AROUND).is_none() {
        return plain(whole).into_owned();
    }
    let before = text[start..at].char_indices().rev().nth(AROUND - 1).map(|(from, _)| start + from);
    let after = text[at..end].char_indices().nth(AROUND).map(|(to, _)| at + to);
    let dots = |cut: bool| if cut { "..." } else { "" };
    let part = plain(&text[before.unwrap_or(start)..after.unwrap_or(end)]).into_owned();
    format!("{}{part}{}", dots(before.is_some()), dots(after.is_some()))
}

/// The key and the known ones in serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let (key, rest) = message.strip_prefix("unknown field `")?.split_once('`')?;
    Some((key, rest.split('`').skip(1).step_by(2).collect()))
}
