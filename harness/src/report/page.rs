//! The page: everything in one file that needs no network.

use std::collections::{BTreeMap, BTreeSet};

use xmbench_methods::card::{Card, Evidence};

use super::claims;
use super::export::{self, code, escape};
use super::plot::Picture;
use super::rows;
use super::table::Table;
use crate::record::{Control, Manifest, Outcome, Recording, Trial, section::Section, words};
use crate::run::Profile;

/// A section with what was made of it.
pub struct Part<'a> {
    /// The section.
    pub section: &'a Section<'a>,
    /// Its tables.
    pub tables: Vec<Table>,
    /// What its rows were tuned over.
    pub tuned: Option<Table>,
    /// What papers claim of its rows.
    pub claims: Vec<Table>,
    /// Its plots.
    pub pictures: Vec<Picture>,
}

/// What was made of all sections together.
pub struct Whole<'a> {
    /// Methods by datasets.
    pub overall: Option<&'a Table>,
    /// One verdict a claim.
    pub claims: Option<&'a Table>,
    /// Whether there is a page of single queries.
    pub explored: bool,
}

/// The whole page.
pub fn page(recording: &Recording, parts: &[Part<'_>], whole: &Whole<'_>) -> String {
    let manifest = &recording.manifest;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>xmbench report, {}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        escape(&manifest.started),
        include_str!("page.css")
    );
    out += &head(recording);
    if whole.explored {
        out += &format!(
            "<p><a href=\"{}\">Query by query</a>: what two rows answer to one caption or one picture, side by side.</p>\n",
            super::EXPLORE
        );
    }
    out += &contents(parts, whole, manifest);
    if let Some(table) = whole.overall {
        out += &format!(
            "<section id=\"overall-table\">\n<h2>All methods</h2>\n<div class=\"filtered\">\n{}</div>\n</section>\n",
            numbers_table(table)
        );
    }
    for (i, part) in parts.iter().enumerate() {
        if i == 0 || parts[i - 1].section.experiment != part.section.experiment {
            out += &experiment(part.section);
        }
        out += &results(part);
    }
    if let Some(table) = whole.claims {
        out += &format!("<section>\n<h2>Claims</h2>\n{}</section>\n", words_table(table, "These verdicts"));
    }
    out += &failures(recording);
    out += &not_run(manifest);
    out += &datasets(manifest);
    out += &methods(recording);
    out += &format!("<script>\n{}</script>\n</body>\n</html>\n", include_str!("page.js"));
    out
}

fn head(recording: &Recording) -> String {
    let manifest = &recording.manifest;
    let done = recording.trials.iter().filter(|trial| trial.outcome == Outcome::Done).count();
    let failed = recording.trials.len() - done;
    let versions: Vec<String> = manifest.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let command = if manifest.command.is_empty() { String::new() } else { format!("`{}`", manifest.command) };
    let facts = [
        ("Command", command),
        ("Profile", manifest.profile.clone()),
        ("Begun", manifest.started.clone()),
        ("Program", words::program(manifest)),
        ("Machine", words::machine(manifest)),
        ("Versions", versions.join(", ")),
        ("Trials", format!("{done} done, {failed} failed")),
    ];
    let facts: String = facts
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(key, text)| format!("<dt>{key}</dt><dd>{}</dd>\n", code(text)))
        .collect();
    let warning = match manifest.profile.as_str() {
        profile if Profile::is_shortened(profile) => format!(
            "<p><strong>Profile {}.</strong> Shortened runs show that everything works; their numbers are not results to cite.</p>\n",
            escape(profile)
        ),
        _ => String::new(),
    };
    format!(
        "<header>\n<h1>xmbench report</h1>\n<p class=\"lead\">Image-text retrieval: the same data, the same protocol, the same \
         clock. Every number below was read from a recording.</p>\n<dl>\n{facts}</dl>\n{warning}</header>\n"
    )
}

fn contents(parts: &[Part<'_>], whole: &Whole<'_>, manifest: &Manifest) -> String {
    let entry = |part: &Part<'_>| {
        let section = part.section;
        format!(
            "<li><a href=\"#{}\">{} <small>({})</small></a></li>\n",
            anchor(section),
            escape(section.title()),
            escape(section.dataset)
        )
    };
    let entries: String = parts.iter().map(entry).collect();
    let rest = [
        ("claims", "Claims"),
        ("failures", "Failures"),
        ("not-run", "Not run"),
        ("datasets", "Datasets"),
        ("methods", "Methods"),
    ];
    let rest = rest.iter().filter(|(id, _)| match *id {
        "claims" => whole.claims.is_some(),
        "not-run" => !manifest.left_out.is_empty(),
        _ => true,
    });
    let rest: String = rest.map(|(id, title)| format!("<li><a href=\"#{id}\">{title}</a></li>\n")).collect();
    let all = whole.overall.map_or("", |_| "<li><a href=\"#overall-table\">All methods</a></li>\n");
    format!("<nav aria-label=\"Contents\">\n<ol>\n{all}{entries}{rest}</ol>\n</nav>\n")
}

fn anchor(section: &Section<'_>) -> String {
    escape(&format!("section-{}", section.stem))
}

fn experiment(section: &Section<'_>) -> String {
    let paragraphs = section.note.analysis.split("\n\n").map(str::trim).filter(|text| !text.is_empty());
    let paragraphs: String = paragraphs.map(|text| format!("<p>{}</p>\n", code(text))).collect();
    format!("<h2>{}</h2>\n{paragraphs}", escape(section.title()))
}

fn results(part: &Part<'_>) -> String {
    let section = part.section;
    let mut out = format!("<section id=\"{}\">\n<h3>On {}</h3>\n", anchor(section), escape(section.dataset));
    for table in &part.tables {
        out += &numbers_table(table);
    }
    out += &rows::html(section);
    if let Some(table) = &part.tuned {
        out += &words_table(table, "This table");
    }
    if !part.claims.is_empty() {
        out += "<h4>What is claimed of these rows</h4>\n";
        part.claims.iter().for_each(|table| out += &words_table(table, "These verdicts"));
    }
    for picture in &part.pictures {
        out += &format!("<figure class=\"plot\">\n{}</figure>\n", scales(picture));
        let links = Picture::ENDINGS.map(|ending| link(&picture.stem.file(ending), ending));
        out += &format!("<p class=\"files\">{} as {}</p>\n", escape(&picture.title), links.join(", "));
    }
    out + "</section>\n"
}

/// A plot, and where it has two, both, the second of which a button shows.
fn scales(picture: &Picture) -> String {
    match &picture.linear {
        None => picture.svg.clone(),
        Some(linear) => format!(
            "<div data-scale=\"logarithmic\">\n{}</div>\n<div data-scale=\"linear\" hidden>\n{linear}</div>\n",
            picture.svg
        ),
    }
}

/// A table of numbers with its files.
fn numbers_table(table: &Table) -> String {
    let links = export::ENDINGS.map(|ending| link(&table.name.file(ending), ending));
    format!("{}<p class=\"files\">This table as {}</p>\n", export::html(table), links.join(", "))
}

/// A table of words with its files, and what the line below calls it.
fn words_table(table: &Table, called: &str) -> String {
    let links = claims::ENDINGS.map(|ending| link(&table.name.file(ending), ending));
    format!(
        "<div class=\"prose\">\n{}</div>\n<p class=\"files\">{called} as {}</p>\n",
        export::html(table),
        links.join(", ")
    )
}

fn link(file: &str, text: &str) -> String {
    format!("<a href=\"{}\" download>{text}</a>", escape(file))
}

fn failures(recording: &Recording) -> String {
    let rows: String = recording
        .trials
        .iter()
        .filter_map(|trial| match &trial.outcome {
            Outcome::Done => None,
            Outcome::Failed { reason } => Some(format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"failure\">{}</td></tr>\n",
                escape(&trial.experiment),
                escape(&trial.dataset),
                escape(&words::row(trial)),
                trial.seed,
                code(reason)
            )),
        })
        .collect();
    let body = match rows.is_empty() {
        true => "<p>None: every trial ran through.</p>\n".to_string(),
        false => format!(
            "<div class=\"scroll\"><table class=\"prose\">\n<thead><tr><th>experiment</th><th>dataset</th><th>row</th><th>seed</th>\
             <th>reason</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
        ),
    };
    format!("<h2 id=\"failures\">Failures</h2>\n{body}")
}

/// What the run that made the recording left out, if it did.
fn not_run(manifest: &Manifest) -> String {
    if manifest.left_out.is_empty() {
        return String::new();
    }
    let rows = manifest.left_out.iter().map(|it| {
        let dataset = if it.dataset.is_empty() { "all" } else { &it.dataset };
        let cells = [escape(&it.experiment), escape(dataset), code(&it.reason)];
        format!("<tr>{}</tr>\n", cells.map(|cell| format!("<td>{cell}</td>")).concat())
    });
    format!(
        "<h2 id=\"not-run\">Not run</h2>\n<div class=\"scroll\"><table class=\"prose\">\n<thead><tr><th>experiment</th>\
         <th>dataset</th><th>reason</th></tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
        rows.collect::<String>()
    )
}

fn datasets(manifest: &Manifest) -> String {
    let mut out = "<h2 id=\"datasets\">Datasets</h2>\n".to_string();
    for (name, note) in &manifest.datasets {
        let sizes: Vec<String> =
            note.sizes.iter().map(|(split, [i, t])| format!("{split}: {i} images, {t} texts")).collect();
        let facts = [
            ("Options", note.variant.clone()),
            ("Sizes", sizes.join("; ")),
            ("SHA-256", format!("`{}`", note.checksum)),
            ("Terms", note.licence.clone()),
            ("Attribution", note.attribution.clone()),
            ("Caveat", note.caveat.clone()),
        ];
        let facts: String = facts
            .iter()
            .filter(|(_, text)| !text.is_empty() && text != "``")
            .map(|(key, text)| format!("<dt>{key}</dt><dd>{}</dd>\n", code(text)))
            .collect();
        let title = if note.title.is_empty() { String::new() } else { format!(": {}", note.title) };
        out += &format!("<h4>{}{}</h4>\n<dl>\n{facts}</dl>\n", escape(name), escape(&title));
    }
    out
}

/// The methods that a recording fits, with the labels of their rows.
pub fn fitted(recording: &Recording) -> BTreeMap<&str, BTreeSet<&str>> {
    let fitted = |trial: &&Trial| trial.control != Control::Chance && !trial.is_made_of_others();
    recording.trials.iter().filter(fitted).fold(BTreeMap::new(), |mut used, trial| {
        used.entry(trial.method.as_str()).or_default().insert(trial.label.as_str());
        used
    })
}

fn methods(recording: &Recording) -> String {
    let mut out = "<h2 id=\"methods\">Methods</h2>\n<p>Numbers that papers report stand here and not beside ours, because papers \
                   use other features: they give the scale and are no target. ° marks a number given from memory, ^ one from a \
                   small independent re-run. Their references: <a href=\"methods.bib\">methods.bib</a>.</p>\n"
        .to_string();
    for (name, labels) in fitted(recording) {
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        match xmbench_methods::registry::find(name) {
            Some(method) => out += &self::method(method.card(), &labels),
            None => {
                out += &format!(
                    "<h4 id=\"method-{0}\">{0}</h4>\n<p>Rows: {1}. Registered by another program; no card here.</p>\n",
                    escape(name),
                    escape(&labels)
                );
            }
        }
    }
    out
}

fn method(card: &Card, labels: &str) -> String {
    let identifier = match card.identifier.trim_start_matches("doi:") {
        doi if doi.starts_with("10.") => format!("<a href=\"https://doi.org/{0}\">doi:{0}</a>", escape(doi)),
        other => escape(other),
    };
    let code: Vec<String> = card
        .code
        .iter()
        .map(|code| {
            let (short, taken) = (escape(&code.short()), escape(&code.taken));
            match code.address() {
                Some(address) => format!("<a href=\"{}\">{short}</a> ({taken})", escape(&address)),
                None => format!("{short} ({taken})"),
            }
        })
        .collect();
    let code = if code.is_empty() { String::new() } else { format!(" Code read: {}.", code.join("; ")) };
    let mut out = format!(
        "<h4 id=\"method-{}\">{}</h4>\n<p>{}. <em>{}</em>. {}, {}. {identifier}.{code} Rows: {}.</p>\n",
        escape(&card.name),
        escape(&card.label),
        escape(&card.authors),
        escape(&card.title),
        escape(&card.venue),
        card.year,
        escape(labels)
    );
    if card.reported.is_empty() {
        return out;
    }
    let rows = card.reported.iter().map(|row| {
        let sign = match row.evidence {
            Evidence::Verified => "",
            Evidence::Recalled => "°",
            Evidence::Measured => "^",
        };
        let values: Vec<String> = row.metrics.iter().map(|(metric, value)| format!("{metric} {value}{sign}")).collect();
        let notes: String = row.notes.iter().map(|(metric, note)| format!("; {metric}: {note}")).collect();
        format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&row.variant),
            escape(&row.dataset),
            escape(&values.join(", ")),
            escape(&format!("{}{notes}", row.source))
        )
    });
    out += &format!(
        "<details><summary>What papers report</summary>\n<div class=\"scroll\"><table class=\"prose\">\n<thead><tr><th>variant</th>\
         <th>data</th><th>values</th><th>source</th></tr></thead>\n<tbody>\n{}</tbody>\n</table></div></details>\n",
        rows.collect::<String>()
    );
    out
}
