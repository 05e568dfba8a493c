use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::{
    claims::Stated,
    record::{Control, Outcome, Trial, synthetic},
};

/// Every file of a report on the made-up recording, by name.
fn files(recording: &Recording) -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = crate::claims::of_card(&card).collect();
    let rendered = render(recording, &stated, folder.path()).unwrap();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    rendered.files.iter().map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

/// The table of metrics of a section as Markdown, without the time that plots take.
fn markdown(recording: &Recording, stem: &str) -> String {
    let sections = section::sections(recording);
    let section = sections.iter().find(|section| section.stem.as_str() == stem).unwrap();
    export::markdown(&results::table(section, &mut Scores::new(section), &recording.manifest))
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

#[test]
fn tables_read_as_they_did() {
    let files = files(&synthetic::recording());
    for (name, bytes) in &files {
        if [".md", ".tex", ".csv"].iter().any(|ending| name.ends_with(ending)) {
            insta::assert_snapshot!(name.as_str(), String::from_utf8(bytes.clone()).unwrap());
        }
    }
}

#[test]
fn a_terminal_gets_one_table_of_a_hundred_columns_an_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = crate::claims::of_card(&card).collect();
    let rendered = render(&synthetic::recording(), &stated, folder.path()).unwrap();
    let shown = format!("{}\n{}", rendered.tables.join("\n"), rendered.claims);
    insta::assert_snapshot!("terminal", shown);
    let width = |line: &str| line.chars().count();
    assert!(shown.lines().all(|line| width(line) <= export::TERMINAL), "{shown}");
    // What does not fit goes: spreads first, then columns, and how many is said.
    let recording = synthetic::recording();
    let sections = section::sections(&recording);
    let mut table = results::table(&sections[0], &mut Scores::new(&sections[0]), &recording.manifest);
    assert!(shown.contains(" ± ") && !export::terminal(&table).contains('±'));
    table.columns = (0..3).flat_map(|_| table.columns.clone()).collect();
    for row in &mut table.rows {
        row.cells = (0..3).flat_map(|_| row.cells.clone()).collect();
    }
    let narrow = export::terminal(&table);
    assert!(narrow.lines().all(|line| width(line) <= export::TERMINAL) && narrow.contains(" more columns"), "{narrow}");
}

#[test]
fn controls_are_judged_and_deterministic_rows_say_so() {
    let mut recording = synthetic::recording();
    assert!(markdown(&recording, "01-recall-f8k").contains("PASS: no 95 % interval lies above chance"));
    // Shuffled pairs reach 4.2 where a random order now has 0.1.
    let chance = recording.trials.iter_mut().find(|trial| trial.control == Control::Chance).unwrap();
    chance.metrics.insert("t2i R@10".into(), 0.1);
    let told = markdown(&recording, "01-recall-f8k");
    assert!(told.contains("ABOVE CHANCE by its 95 % interval in t2i R@10:"), "{told}");
    // One row of three seeds whose every number is that of the first.
    let first = recording.trials.iter().find(|trial| trial.label == "CVH").unwrap().clone();
    for trial in recording.trials.iter_mut().filter(|trial| trial.label == "CVH" && trial.swept == first.swept) {
        let seed = trial.seed;
        *trial = Trial { seed, ..first.clone() };
    }
    let table = markdown(&recording, "02-hashing-wiki");
    let row = table.lines().find(|line| line.contains("CVH 16 bits")).unwrap();
    assert!(!row.contains('±') && table.contains("deterministic: the same under every seed"), "{table}");
}

#[test]
fn claims_stand_below_the_tables_of_their_rows() {
    let page = text(&files(&synthetic::recording()), "index.html");
    let (_, section) = page.split_once("<section id=\"section-01-recall-f8k\">").unwrap();
    let (before, fragment) = section.split_once("<h4>What is claimed of these rows</h4>").unwrap();
    assert!(before.contains("id=\"01-recall-f8k-cost\"") && !before.contains("</section>"));
    let (fragment, _) = fragment.split_once("<figure class=\"plot\">").unwrap();
    insta::assert_snapshot!("claims.html", fragment);
    let (_, overview) = page.split_once("<h2>Claims</h2>").unwrap();
    let (overview, _) = overview.split_once("</section>").unwrap();
    insta::assert_snapshot!("claims-overview.html", overview);
    // A claim of rows that this recording has nothing of stands nowhere.
    assert!(!page.contains("Depth helps"));
}

#[test]
fn what_rows_were_trained_for_is_said_once_where_they_share_it() {
    let mut recording = synthetic::recording();
    let budget = |recording: &Recording| {
        let table = markdown(recording, "01-recall-f8k");
        table.lines().find(|line| line.starts_with("- Budget:")).map(str::to_string)
    };
    let said = budget(&recording).unwrap();
    assert_eq!(
        said,
        "- Budget: VSE++: 10 epochs of batches of 128 (6000 training pairs); \
         SCAN t2i: 10 of 12 epochs of batches of 64 (6000 training pairs)"
    );
    for trial in recording.trials.iter_mut().filter(|trial| !trial.history.is_empty()) {
        trial.params = serde_json::json!({ "epochs": 10, "batch": 64 });
        trial.history.iter_mut().for_each(|epoch| epoch.pairs = 64);
    }
    let said = budget(&recording).unwrap();
    assert_eq!(said, "- Budget: trained rows: 10 epochs of batches of 64 (6000 training pairs)");
    recording.trials.iter_mut().for_each(|trial| trial.history.clear());
    assert_eq!(budget(&recording), None);
}

#[test]
fn a_label_stands_for_the_rows_of_its_sweep_that_were_trained_alike() {
    let mut recording = synthetic::recording();
    let history = recording.trials.iter().find(|trial| !trial.history.is_empty()).unwrap().history.clone();
    for trial in recording.trials.iter_mut().filter(|trial| ["CVH", "DJSRH"].contains(&trial.label.as_str())) {
        trial.history.clone_from(&history);
        if trial.label == "CVH" && trial.swept["bits"] == "16" {
            trial.history.iter_mut().for_each(|epoch| epoch.pairs = 7);
        }
    }
    let table = markdown(&recording, "02-hashing-wiki");
    let said = table.lines().find(|line| line.starts_with("- Budget:")).unwrap();
    let (one, others) = said.split_once("; ").unwrap();
    assert!(one.starts_with("- Budget: CVH 16 bits: ") && one.contains("batches of 7 "), "{said}");
    assert!(others.starts_with("CVH 32 bits, CVH 64 bits, CVH 128 bits, DJSRH: "), "{said}");
}

#[test]
fn a_remark_and_a_selected_setting_stand_below_the_table() {
    let recording = synthetic::recording();
    let recall = markdown(&recording, "01-recall-f8k");
    let remark = recall.lines().find(|line| line.contains("negatives as the released code counts them")).unwrap();
    let mark = remark.strip_prefix("- ").unwrap().split(' ').next().unwrap();
    assert!(recall.lines().any(|line| line.starts_with(&format!("| VSE++§{mark}"))), "{mark} in {recall}");
    let hashing = markdown(&recording, "02-hashing-wiki");
    assert!(hashing.contains("selected on val: ridge 0.1 (seeds 0, 2); ridge 1.0 (seed 1)"), "{hashing}");
}

#[test]
fn a_selection_that_was_recorded_without_its_setting_is_told_by_number() {
    let mut recording = synthetic::recording();
    for trial in recording.trials.iter_mut().filter(|trial| !trial.selected.is_empty()) {
        trial.selected.clear();
        let scores = vec![[1.0, f64::NAN], [2.0, 0.5], [3.0, 0.7], [4.0, 0.7]];
        trial.curves.insert(crate::record::SELECTION.into(), scores);
    }
    let hashing = markdown(&recording, "02-hashing-wiki");
    assert!(hashing.contains("selected on val: setting 3 of 4 (seeds 0, 1, 2)"), "{hashing}");
}

#[test]
fn rendering_twice_gives_the_same_bytes() {
    let recording = synthetic::recording();
    let [one, other] = [files(&recording), files(&recording)];
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (name, bytes) in &one {
        match name.ends_with(".pdf") {
            // Their objects come in another order each time.
            true => assert!(bytes.starts_with(b"%PDF-") && bytes.len() == other[name].len(), "{name}"),
            false => assert!(*bytes == other[name], "{name}"),
        }
    }
}

#[test]
fn means_are_over_the_seeds_that_every_row_ran() {
    // SCAN failed for seed 2, so that nobody's seed 2 counts.
    let recording = synthetic::recording();
    let value = |seed| {
        let mut trials = recording.trials.iter();
        let one = trials.find(|trial| trial.experiment == "01-recall" && trial.label == "CCA" && trial.seed == seed);
        one.unwrap().metrics["i2t R@1"]
    };
    let files = files(&recording);
    let mut reader = csv::Reader::from_reader(&files["01-recall-f8k.csv"][..]);
    let head = reader.headers().unwrap().clone();
    let at = |name: &str| head.iter().position(|column| column == name).unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let row = |name: &str| rows.iter().find(|row| &row[at("row")] == name && &row[at("kind")] != "stated").unwrap();
    let number = |row: &csv::StringRecord, column: &str| row[at(column)].parse::<f64>().unwrap();
    assert_eq!(number(row("CCA"), "i2t R@1 mean"), (value(0) + value(1)) / 2.0);
    assert_eq!(&row("CCA")[at("i2t R@1 n")], "2");
    assert!(number(row("CCA"), "i2t R@1 low") < number(row("CCA"), "i2t R@1 mean"));
    assert_eq!(&row("IMRAM_2 & co")[at("kind")], "failed");
    assert!(row("IMRAM_2 & co")[at("note")].contains("loss is NaN at epoch 3"));
}

#[test]
fn a_missing_cell_is_a_dash_and_never_a_zero() {
    let mut recording = synthetic::recording();
    for trial in recording.trials.iter_mut().filter(|trial| trial.label == "CCA" && trial.seed == 1) {
        trial.metrics.remove("i2t R@5");
    }
    let files = files(&recording);
    let line = text(&files, "01-recall-f8k.md").lines().find(|line| line.starts_with("| CCA")).unwrap().to_string();
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert_eq!(cells[3], "–");
    assert!(cells[2].contains('±') && !cells[4].is_empty());
}

#[test]
fn names_and_reasons_stay_text() {
    let mut recording = synthetic::recording();
    for trial in &mut recording.trials {
        if trial.label == "CCA" {
            trial.label = "<script>alert(1)</script> 50% a_b | c".to_string();
        }
        if let crate::record::Outcome::Failed { reason } = &mut trial.outcome {
            *reason = "</table><img src=x> #1 {x} \\input ~^$&".to_string();
        }
    }
    let files = files(&recording);
    for (name, bytes) in &files {
        let text = String::from_utf8_lossy(bytes);
        if name.ends_with(".html") || name.ends_with(".svg") {
            assert!(!text.contains("<script>alert") && !text.contains("<img"), "{name}");
        }
    }
    assert!(text(&files, "01-recall-f8k.md").contains("50% a\\_b \\| c"));
    let latex = text(&files, "01-recall-f8k.tex");
    assert!(latex.contains("50\\% a\\_b \\textbar{} c"));
    assert!(latex.contains("\\#1 \\{x\\} \\textbackslash{}input \\textasciitilde{}\\textasciicircum{}\\$\\&"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = text(&files(&synthetic::recording()), "index.html");
    let foreign = ["src=", "<link", "@import", "url("];
    assert!(foreign.iter().all(|part| !page.contains(part)));
    // The files it offers are there.
    let files = files(&synthetic::recording());
    for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let outside = ["https://doi.org/", "https://github.com/"];
        let known = link.starts_with('#') || outside.iter().any(|at| link.starts_with(at)) || files.contains_key(link);
        assert!(known, "{link}");
    }
}

#[test]
fn an_unknown_plot_is_an_error_that_names_the_known_ones() {
    let mut recording = synthetic::recording();
    recording.manifest.experiments.get_mut("01-recall").unwrap().plots.push("recal".to_string());
    let folder = tempfile::tempdir().unwrap();
    let error = render(&recording, &[], folder.path()).unwrap_err().to_string();
    assert_eq!(
        error,
        "experiment 01-recall: no plot is called 'recal'; choose from recall, pr, topn, radius, bits, unified, ties, sweep, pareto, years, \
         training, rerank"
    );
    assert!(!folder.path().join("index.html").exists());
}

#[test]
fn a_recording_without_notes_still_makes_a_report() {
    let mut recording = synthetic::recording();
    recording.manifest = crate::record::Manifest::default();
    let files = files(&recording);
    assert!(text(&files, "01-recall-f8k.md").contains("i2t R@1 |"));
    assert!(text(&files, "index.html").contains("01-recall"));
}

/// For a look: `XMBENCH_LOOK=/tmp/look cargo test -p xmbench -- --ignored look`.
#[test]
#[ignore = "writes a report for a person to look at"]
fn look() {
    let folder = std::env::var("XMBENCH_LOOK").expect("XMBENCH_LOOK names the folder");
    let card = synthetic::claims();
    let stated: Vec<Stated<'_>> = crate::claims::of_card(&card).collect();
    render(&synthetic::recording(), &stated, Path::new(&folder)).unwrap();
    render(&crowd(), &[], &Path::new(&folder).join("crowd")).unwrap();
}

/// Ten trained rows with long names and five seeds each: as much as a legend must hold.
fn crowd() -> Recording {
    let mut recording = synthetic::recording();
    let model = recording.trials.iter().find(|trial| trial.label == "VSE++").unwrap().clone();
    recording.trials.clear();
    for position in 0..10 {
        for seed in 0..5 {
            let mut trial = crate::record::Trial { position, seed, ..model.clone() };
            trial.label = format!("VSE++ with loss number {position}");
            for epoch in &mut trial.history {
                let shift = (seed as f64 - 2.0) * 4.0 + position as f64 * 9.0;
                epoch.validation = epoch.validation.map(|score| score - shift);
                epoch.loss += 0.02 * position as f64 + 0.01 * seed as f64;
            }
            recording.trials.push(trial);
        }
    }
    recording
}

/// What a label, a caption or a title can do: escape sequences, bell, C1 controls, NUL, an override of the direction of writing, what
/// XML forbids, markup of every format, a formula, the end of a line.
const HOSTILE: &str = "=cmd|' /C calc'!A0 \u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{0}\u{202e}gnp.\u{2066}\u{ffff}\u{feff}</td><script>&|`*_$\\write18\"\r\nnext";

fn does_something(c: char) -> bool {
    c.is_control() && c != '\n' || "\u{202e}\u{2066}\u{ffff}\u{feff}".contains(c)
}

/// Whether every element is closed in its order, attributes are quoted, and only the five entities of XML are named.
fn is_well_formed(svg: &str) -> Result<(), String> {
    let (mut open, mut rest) = (Vec::new(), svg);
    while let Some(at) = rest.find(['<', '&']) {
        rest = &rest[at..];
        if rest.starts_with('&') {
            let end = rest.find(';').ok_or("an entity that does not end")?;
            if !["&amp;", "&lt;", "&gt;", "&quot;", "&apos;", "&#39;"].contains(&&rest[..=end]) {
                return Err(format!("entity {}", &rest[..=end]));
            }
            rest = &rest[end + 1..];
            continue;
        }
        let (mut end, mut quoted) = (None, false);
        for (at, c) in rest.char_indices().skip(1) {
            match c {
                '"' => quoted = !quoted,
                '<' => return Err(format!("`<` within {}", &rest[..at])),
                '>' if !quoted => {
                    end = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let tag = &rest[1..end.ok_or("a tag that does not end")?];
        rest = &rest[tag.len() + 2..];
        let name = tag.split_whitespace().next().unwrap_or_default().trim_end_matches('/');
        match tag.strip_prefix('/') {
            Some(closed) if open.pop() != Some(closed.trim()) => return Err(format!("</{closed}> closes another")),
            None if !tag.ends_with('/') => open.push(name),
            _ => {}
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} stay open")) }
}

/// The parts of a line of Markdown that are no code.
fn outside_of_code(line: &str) -> Vec<String> {
    let escaped = line.replace("\\`", "");
    assert!(!escaped.contains("``") && escaped.matches('`').count().is_multiple_of(2), "{line}");
    escaped.split('`').step_by(2).map(str::to_string).collect()
}

#[test]
fn a_hostile_text_does_nothing_in_any_format() {
    let mut recording = synthetic::recording();
    let note = recording.manifest.experiments.get_mut("01-recall").unwrap();
    (note.title, note.analysis) = (HOSTILE.into(), HOSTILE.into());
    let data = recording.manifest.datasets.get_mut("f8k").unwrap();
    (data.title, data.caveat, data.licence) = (HOSTILE.into(), HOSTILE.into(), HOSTILE.into());
    for trial in recording.trials.iter_mut().filter(|trial| trial.experiment == "01-recall") {
        trial.remark = HOSTILE.into();
        if trial.label == "VSE++" {
            trial.label = HOSTILE.into();
        }
        if let Outcome::Failed { reason } = &mut trial.outcome {
            *reason = HOSTILE.into();
        }
    }
    let files = files(&recording);
    let mut seen = std::collections::BTreeSet::new();
    for (name, bytes) in files.iter().filter(|(name, _)| ![".png", ".pdf"].iter().any(|it| name.ends_with(it))) {
        let text = std::str::from_utf8(bytes).unwrap();
        if let Some(c) = text.chars().find(|c| does_something(*c)) {
            panic!("{name} holds U+{:04X}", c as u32);
        }
        // It stands there nevertheless, for whoever wants to know what the row is called.
        if text.contains("red") && text.contains("gnp.") {
            seen.insert(name.rsplit('.').next().unwrap().to_string());
        }
        match name.rsplit('.').next().unwrap() {
            "svg" => assert_eq!(is_well_formed(text), Ok(()), "{name}"),
            "html" => assert!(!text.contains("</td><script>"), "{name}"),
            "md" => {
                // Between backticks everything is shown as it is; a bar would still end the cell.
                let outside = text.lines().flat_map(outside_of_code);
                assert!(!outside.collect::<String>().contains("<script>") && !text.contains("cmd|"), "{name}");
            }
            "tex" => assert!(!text.contains("\\write18") && !text.contains("<script"), "{name}"),
            "csv" => {
                for field in csv::Reader::from_reader(text.as_bytes())
                    .into_records()
                    .flat_map(|line| line.unwrap().iter().map(str::to_string).collect::<Vec<_>>())
                {
                    let formula = field.trim_start().starts_with(['=', '+', '-', '@']);
                    assert!(!formula || field.parse::<f64>().is_ok(), "{name}: {field}");
                }
            }
            // Cards are the program's own: nothing of a recording gets here.
            "bib" => assert!(!text.contains("gnp.") && text.starts_with("@misc{"), "{name}"),
            other => panic!("a format without a check: {other}"),
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["csv", "html", "md", "svg", "tex"]);
    // The terminal sees the Markdown and what the command line makes of names, through one function.
    assert!(!crate::output::lines(HOSTILE).chars().any(does_something));
    // Of two runs of unlike length none closes the other.
    assert!(export::markdown_cell("`x``<script>```").contains("\\<script\\>"));
    assert_eq!(export::markdown_cell("a|b\u{1b}"), "a\\|b\u{fffd}");
}

#[test]
fn fields_of_csv_are_numbers_or_text_and_never_formulas() {
    use export::csv_cell;
    for number in ["-1.5", "+2", "0", "-inf", "1e-7", "", "CCA", "a=b"] {
        assert_eq!(csv_cell(number), number);
    }
    for (formula, text) in
        [("=1+1", "'=1+1"), ("@SUM(A1)", "'@SUM(A1)"), ("-1+2", "'-1+2"), ("\t=x", "' =x"), ("+x", "'+x")]
    {
        assert_eq!(csv_cell(formula), text);
    }
}

#[test]
fn a_broken_svg_is_told_from_a_sound_one() {
    assert_eq!(is_well_formed("<a x=\"1 > 0\"><b/>&lt;</a>"), Ok(()));
    for broken in ["<a>", "<a></b>", "<a>&bad;</a>", "<a><b></a></b>", "<a x=\"<\"/>"] {
        assert!(is_well_formed(broken).is_err(), "{broken}");
    }
}

#[test]
fn a_file_of_a_report_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut recording = synthetic::recording();
    render(&recording, &[], folder.path()).unwrap();
    let (page, kept) = (folder.path().join("index.html"), folder.path().join("kept"));
    // Whoever has the old page open keeps it: it is not written into.
    std::fs::hard_link(&page, &kept).unwrap();
    let before = std::fs::read(&kept).unwrap();
    recording.manifest.started = "2027-01-01T00:00:00Z".into();
    render(&recording, &[], folder.path()).unwrap();
    assert_eq!(std::fs::read(&kept).unwrap(), before);
    assert_ne!(std::fs::read(&page).unwrap(), before);
    let partial = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    assert!(!std::fs::read_dir(folder.path()).unwrap().flatten().any(partial));
}
