//! One query with what rows answered, as a page with pictures.

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use xmbench_datasets::Collection;

use super::items;
use crate::{protocol::Direction, report::export::escape};

/// A query.
pub struct Query {
    /// Which kind of item asks.
    pub direction: Direction,
    /// Its position in its split; absent for words of one's own.
    pub at: Option<usize>,
    /// The text, or what the image is called.
    pub said: String,
    /// What it is.
    pub what: String,
}

/// An item that a row found.
pub struct Item {
    /// Its place in the list, from 1.
    pub place: usize,
    /// Its rank under the protocol's tie rule.
    pub rank: f64,
    /// Its position in its split.
    pub item: usize,
    /// What it is called, or what it says.
    pub name: String,
    /// Of an image, what its texts say.
    pub caption: String,
    /// Its score.
    pub score: f32,
    /// Whether it belongs to the query; unknown where nothing does.
    pub own: Option<bool>,
}

/// What a row answers.
pub struct Answered {
    /// The row.
    pub row: String,
    /// Items of the gallery.
    pub gallery: usize,
    /// The best items, or why there are none.
    pub outcome: Result<Vec<Item>, String>,
    /// The query's own items.
    pub own: Vec<Item>,
    /// Rank of the best of these.
    pub rank: Option<f64>,
}

/// A query with every answer.
pub struct Page {
    /// Dataset.
    pub dataset: String,
    /// The query.
    pub query: Query,
    /// What is to be said of it.
    pub notes: Vec<String>,
    /// The answers.
    pub rows: Vec<Answered>,
    /// What the terms of the pictures ask to be said.
    pub attribution: String,
}

impl Item {
    /// The rank, a half where items tie.
    pub fn ranked(&self) -> String {
        ranked(self.rank)
    }
}

/// A rank: whole, or with one digit where items tie.
pub fn ranked(rank: f64) -> String {
    if rank.fract() == 0.0 { format!("{rank:.0}") } else { format!("{rank:.1}") }
}

impl Answered {
    /// Where its own items stand, in words.
    pub fn summary(&self) -> String {
        match (&self.outcome, self.rank) {
            (Err(reason), _) => format!("no answer: {reason}"),
            (Ok(items), None) => format!("the best {} of {}", items.len(), self.gallery),
            (Ok(_), Some(rank)) => {
                let all: Vec<String> = self.own.iter().map(Item::ranked).collect();
                let all = if all.len() > 1 { format!(" (all: {})", all.join(", ")) } else { String::new() };
                format!("the true item has rank {} of {}{all}", ranked(rank), self.gallery)
            }
        }
    }
}

impl Page {
    /// The page: one file that needs no network.
    ///
    /// # Errors
    /// If a picture cannot be encoded.
    pub fn html(&self, searched: &Collection, asked: &Collection) -> Result<String> {
        let picture = |collection: &Collection, at: usize| -> Result<String> {
            let png = items::sprite(collection, &[at])?;
            Ok(png.map_or_else(String::new, |png| {
                format!(
                    "<img alt=\"\" width=\"{0}\" height=\"{0}\" src=\"data:image/png;base64,{1}\">",
                    items::SIDE,
                    STANDARD.encode(png)
                )
            }))
        };
        let asks = match (self.query.direction, self.query.at) {
            (Direction::I2t, Some(at)) => picture(asked, at)?,
            _ => String::new(),
        };
        let mut rows = String::new();
        for row in &self.rows {
            rows += &format!(
                "<section>\n<h2>{}</h2>\n<p>{}</p>\n<ol class=\"found\">\n",
                escape(&row.row),
                escape(&row.summary())
            );
            for item in row.outcome.iter().flatten() {
                let class = match item.own {
                    Some(true) => " class=\"own\"",
                    Some(false) => " class=\"other\"",
                    None => "",
                };
                let shown = match self.query.direction {
                    Direction::T2i => picture(searched, item.item)?,
                    Direction::I2t => String::new(),
                };
                let own = if item.own == Some(true) { ", belongs to the query" } else { "" };
                rows += &format!(
                    "<li{class}>{shown}<span><b>{}</b> {}<br><small>rank {}, score {:.4}{own}</small></span></li>\n",
                    escape(&item.name),
                    escape(&item.caption),
                    item.ranked(),
                    item.score
                );
            }
            rows += "</ol>\n</section>\n";
        }
        let notes: String = self.notes.iter().map(|note| format!("<p class=\"lead\">{}</p>\n", escape(note))).collect();
        Ok(format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, \
             initial-scale=1\">\n<title>xmbench query</title>\n<style>\n{}{}</style>\n</head>\n<body>\n<h1>“{}”</h1>\n\
             <p>{asks} {}, dataset {}</p>\n{notes}<div class=\"sides\">\n{rows}</div>\n<p class=\"notes\">{}</p>\n</body>\n</html>\n",
            include_str!("../page.css"),
            include_str!("explore.css"),
            escape(&self.query.said),
            escape(&self.query.what),
            escape(&self.dataset),
            escape(&self.attribution)
        ))
    }
}
