//! What a recording keeps of single queries, and what is answered from it: in the terminal, and on the page in a browser.

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::common::{Place, floats, npy};
use xmbench::{
    protocol::{Direction, Found, Standing},
    record::{Trial, kept, store},
};

/// Pictures as vectors, a caption each; what is drawn is what is said, but for some noise.
const COLOURS: [&str; 6] = ["red", "green", "blue", "yellow", "white", "black"];
const THINGS: [&str; 5] = ["heart", "car", "tree", "dog", "house"];

const EXPERIMENT: &str = r#"
title = "Colours <b>and</b> things"
seeds = [3, 4]
columns = ["i2t R@1", "t2i R@1"]
protocol = { task = { kind = "pairs" } }
datasets = [{ name = "precomp", path = "things", min_count = 1 }]

[[methods]]
method = "cca"
shuffled = true

[[methods]]
method = "vse"
label = "VSE++, small"
embedding = 16
word = 8
epochs = 2
batch = 20

[[ensembles]]
label = "Both"
of = ["CCA", "VSE++, small"]
"#;

fn place() -> Place {
    let place = Place::new();
    place.write("a.toml", EXPERIMENT);
    for (split, rounds) in [("train", 4), ("dev", 1), ("test", 1)] {
        let (mut values, mut captions) = (Vec::new(), String::new());
        for round in 0..rounds {
            for (i, colour) in COLOURS.iter().enumerate() {
                for (j, thing) in THINGS.iter().enumerate() {
                    let noise = |k: usize| ((round * 31 + i * 17 + j * 7 + k * 13) % 11) as f32 / 30.0;
                    let one = |at: usize, k: usize| f32::from(u8::from(at == k));
                    values.extend((0..6).map(|k| one(i, k) + noise(k)));
                    values.extend((0..5).map(|k| one(j, k) + noise(k + 6)));
                    let extra = if round == 0 && split == "test" && (i, j) == (0, 0) { " <script>" } else { "" };
                    captions += &format!("a {colour} {thing}{extra}\n");
                }
            }
        }
        place.write(&format!("data/things/{split}_caps.txt"), &captions);
        std::fs::write(place.path(&format!("data/things/{split}_ims.npy")), floats([values.len() / 11, 11], values))
            .unwrap();
    }
    place
}

/// The same with two parts an image, the colour and the thing, and a row that compares words with parts.
fn place_of_parts() -> Place {
    let place = place();
    let scan = "[[methods]]\nmethod = \"scan\"\nlabel = \"SCAN\"\nembedding = 16\nword = 8\nepochs = 2\nbatch = 20\n";
    place.write("a.toml", &EXPERIMENT.replace("[[ensembles]]", &format!("{scan}\n[[ensembles]]")));
    for split in ["train", "dev", "test"] {
        let images = place.path(&format!("data/things/{split}_ims.npy"));
        let bytes = std::fs::read(&images).unwrap();
        std::fs::write(place.path(&format!("data/things/{split}_global.npy")), &bytes).unwrap();
        let values = bytes[128..].chunks_exact(4).map(|it| f32::from_le_bytes(it.try_into().unwrap()));
        let values: Vec<f32> = values.collect();
        let parts = values.chunks_exact(11).flat_map(|image| {
            let part =
                |kept: std::ops::Range<usize>| (0..11).map(move |at| if kept.contains(&at) { image[at] } else { 0.0 });
            part(0..6).chain(part(6..11)).collect::<Vec<f32>>()
        });
        let parts: Vec<u8> = parts.flat_map(f32::to_le_bytes).collect();
        std::fs::write(images, npy("<f4", [values.len() / 11, 2, 11], &parts)).unwrap();
    }
    place
}

const RUN: &str = "run a.toml --profile smoke --data-dir data --reports reports --out out";

fn of<'a>(trials: &'a [Trial], label: &str, seed: u64) -> &'a Trial {
    trials.iter().find(|trial| trial.label == label && trial.seed == seed && trial.control as u8 == 0).unwrap()
}

fn best(folder: &Path, trial: &Trial) -> Vec<Found> {
    kept::read(folder, trial).unwrap().unwrap()
}

#[test]
fn a_recording_keeps_the_best_items_of_one_seed() {
    let place = place();
    let said = place.run(RUN).code(0).stdout;
    assert!(said.contains("kept in it for `xmbench query`: the best items of each query, "), "{said}");
    let recording = place.recording("out");
    let folder = place.path("out");
    let keeping: Vec<_> =
        recording.trials.iter().filter(|it| it.kept.is_some()).map(|it| (&*it.label, it.seed)).collect();
    assert_eq!(keeping, [("CCA", 3), ("VSE++, small", 3), ("Both", 3)]);
    for label in ["CCA", "VSE++, small", "Both"] {
        let trial = of(&recording.trials, label, 3);
        let found = best(&folder, trial);
        let mut lists: BTreeMap<_, Vec<Found>> = BTreeMap::new();
        found.iter().for_each(|it| lists.entry((it.direction, it.query)).or_default().push(*it));
        assert_eq!(lists.len(), 60);
        for query in &trial.queries {
            let list = &lists[&(query.direction, query.query)];
            // Twenty, and its own one where that is not among them.
            let own = list.iter().find(|it| it.own).unwrap();
            assert_eq!(own.item, query.query);
            assert_eq!(list.len(), if own.rank > 20.0 { 21 } else { 20 }, "no ties at the boundary here");
            assert!(list[..20].windows(2).all(|two| two[0].score >= two[1].score && two[0].rank <= two[1].rank));
            let [better, tied, own_items] = [query.better, query.tied, query.own].map(|it| it as usize);
            let standing = Standing { better, tied, own: own_items };
            assert_eq!(own.rank, standing.rank(trial.protocol.ties) + 1.0);
        }
    }
    // Of the fitted rows the matchers are there, and load.
    let matchers: Vec<bool> = ["CCA", "VSE++, small"]
        .map(|label| store::matcher(&folder, &of(&recording.trials, label, 3).id).is_dir())
        .into();
    assert_eq!(matchers, [true, true]);
    assert_eq!(std::fs::read_dir(place.path("out/matchers")).unwrap().count(), 2);
    place.run("check out").code(0);

    // The same again keeps what is there; a file of no trial is swept away, one that is damaged is found.
    place.write("out/best/0123456789abcdef.parquet", "of nobody").write("out/best/notes.txt", "somebody's");
    place.run(RUN).code(0);
    assert_eq!(std::fs::read_dir(place.path("out/best")).unwrap().count(), 4);
    let victim = kept::path(&folder, &of(&recording.trials, "CCA", 3).id);
    let mut bytes = std::fs::read(&victim).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    let said = place.run("check out").code(1).stdout;
    assert!(said.contains("WRONG  best items of each query"), "{said}");
    place
        .run("query heart --rows CCA --recording out --data-dir data")
        .code(2)
        .says(&["is damaged: expected the SHA-256 of the trial"]);
}

#[test]
fn a_lean_recording_keeps_numbers_alone() {
    let place = place();
    let said = place.run(&format!("{RUN} --lean")).code(0).stdout;
    assert!(!said.contains("kept in it"), "{said}");
    assert!(!place.path("out/best").exists() && !place.path("out/matchers").exists());
    assert!(!place.path("reports/explore.html").exists());
    place.run("query heart --recording out --data-dir data").code(2).says(&["no row of these keeps its best items"]);
    let full = place.run("run a.toml --profile smoke --data-dir data --no-report --out whole");
    full.code(0);
    assert_eq!(
        crate::common::all_numbers(&place.recording("out")),
        crate::common::all_numbers(&place.recording("whole"))
    );
}

#[test]
fn queries_are_answered_from_the_recording() {
    let place = place();
    place.run(RUN).code(0);
    let recording = place.recording("out");
    let folder = place.path("out");
    let ask = |arguments: &str| place.run(&format!("query {arguments} --recording out --data-dir data"));

    // A caption by a part of it: the first of six hearts, and how many there are.
    let json = ask("heart --rows CCA,Both --json").code(0).json();
    // The shortest comes first: that of red ones has a word more.
    assert_eq!(json["query"], "a blue heart");
    let position = json["position"].as_u64().unwrap() as u32;
    for (row, label) in json["rows"].as_array().unwrap().iter().zip(["CCA", "Both"]) {
        let found = best(&folder, of(&recording.trials, label, 3));
        let wanted: Vec<u64> = found
            .iter()
            .filter(|it| it.direction == Direction::T2i && it.query == position)
            .take(8)
            .map(|it| it.item.into())
            .collect();
        let items: Vec<u64> = row["items"].as_array().unwrap().iter().map(|it| it["item"].as_u64().unwrap()).collect();
        assert_eq!(items, wanted, "{label}");
        let own = found.iter().find(|it| it.direction == Direction::T2i && it.query == position && it.own).unwrap();
        assert_eq!(row["rank"].as_f64(), Some(own.rank));
        assert_eq!(row["own"][0]["rank"].as_f64(), Some(own.rank));
    }
    let text = ask("heart --rows CCA").code(0).stdout;
    assert!(
        text.contains("5 more test captions hold these words") && text.contains("the true item has rank"),
        "{text}"
    );
    // An image asks for texts.
    let json = ask("--image 7 --rows Both --top 3 --json").code(0).json();
    assert_eq!((json["direction"].as_str(), json["position"].as_u64()), (Some("i2t"), Some(7)));
    assert_eq!(json["rows"][0]["items"].as_array().unwrap().len(), 3);
    ask("--image nowhere --rows CCA").code(2).says(&["no image `nowhere`"]);
    ask("heart --rows CCB").code(2).says(&["no row `CCB`; did you mean `CCA`?"]);
    let gone = place.run("query heart --recording out");
    gone.code(2).says(&["the captions of dataset", "are not at hand"]);
    place.run("query heart --recording out --data-dir out").code(2).says(&["are not at hand"]);

    // Words of one's own: of no test caption, through the matchers.
    ask("blue-heart-dog --rows CCA").code(2).says(&["no training caption holds `blue-heart-dog`"]);
    // `Place::run` cuts at spaces.
    let output = Command::new(env!("CARGO_BIN_EXE_xmbench"))
        .args(["query", "dog blue purple", "--rows", "CCA,Both", "--recording", "out", "--data-dir", "data", "--json"])
        .args(["--html", "answer.html"])
        .current_dir(place.path("."))
        .output()
        .unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert!(json["notes"].to_string().contains("unknown, no training caption holds them: `purple`"), "{json}");
    assert!(json["rows"][1]["reason"].as_str().unwrap().contains("made of other rows"), "{json}");
    // A bag of words does not tell "dog blue" from "blue dog".
    let names: Vec<&str> =
        json["rows"][0]["items"].as_array().unwrap().iter().map(|it| it["captions"].as_str().unwrap()).collect();
    assert!(names[..2].contains(&"a blue dog"), "{names:?}");
    let page = std::fs::read_to_string(place.path("answer.html")).unwrap();
    assert!(page.contains("dog blue purple") && !page.contains("<script"), "{page}");
}

#[test]
fn words_of_some_captions_are_looked_into() {
    let place = place_of_parts();
    place.run(RUN).code(0);
    let page = std::fs::read_to_string(place.path("reports/explore.html")).unwrap();
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let data: serde_json::Value = serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap();
    let set = &data["sets"][0];
    let sample = set["sample"].as_array().unwrap();
    assert_eq!(sample.len(), 12);
    let recording = place.recording("out");
    for (row, label) in set["rows"].as_array().unwrap().iter().zip(["CCA", "VSE++, small", "SCAN", "Both"]) {
        let looks = &row["looks"];
        if label == "Both" {
            assert!(looks.is_null(), "it has no matcher of its own");
            continue;
        }
        let found = best(&place.path("out"), of(&recording.trials, label, 3));
        let mut differ = 0;
        for (caption, look) in sample.iter().zip(looks["captions"].as_array().unwrap()) {
            // The score is that of the search.
            let text = caption["text"].as_u64().unwrap() as u32;
            let own = found.iter().find(|it| it.direction == Direction::T2i && it.query == text && it.own).unwrap();
            let score = look["score"].as_f64().unwrap();
            assert!((score - f64::from(own.score)).abs() < 1e-5, "{label} {text}: {score} for {}", own.score);
            let words = caption["words"].as_array().unwrap().len();
            let without = look["without"].as_array().unwrap();
            assert_eq!(without.len(), words);
            differ += without.iter().filter(|it| (it.as_f64().unwrap() - score).abs() > 1e-4).count();
            let maps = look["maps"].as_array().unwrap();
            assert_eq!(maps.len(), usize::from(label == "SCAN"));
            for map in maps {
                // Start and end are words as well; there are two parts.
                assert_eq!(map["words"].as_array().unwrap().len(), words + 2);
                assert_eq!(map["regions"], 2);
            }
        }
        assert!(differ >= 24, "{label}: words that no score feels");
    }
    // A matcher that is not what it was: its row does without, and says so.
    let folder = store::matcher(&place.path("out"), &of(&recording.trials, "SCAN", 3).id);
    for file in std::fs::read_dir(folder).unwrap() {
        std::fs::write(file.unwrap().path(), "{").unwrap();
    }
    place.run("report --recording out --data-dir data --out again").code(0);
    let page = std::fs::read_to_string(place.path("again/explore.html")).unwrap();
    assert!(page.contains("\"looks\":{\"absent\":"));
}

/// A browser without a window, if the machine has one.
fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
}

/// What stands around what a reader does in a page; every line that is said tells what was expected and what was there.
const DRIVER: [&str; 2] = [
    r#"
(() => {
  const said = [];
  const problem = (event) => said.push(`PROBLEM ${event.message ?? event.violatedDirective ?? event.reason}`);
  for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"]) addEventListener(kind, problem);
  const by = (id) => document.getElementById(id);
  const is = (what, found, wanted) => said.push(`${found === wanted ? "ok" : "WRONG"} ${what}: ${found}${found === wanted ? "" : ` for ${wanted}`}`);
  const change = (id, value, kind = "change") => { by(id).value = value; by(id).dispatchEvent(new Event(kind)); };
  const press = (key) => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  addEventListener("load", () => {
    try {
"#,
    r#"
    } catch (error) {
      said.push(`PROBLEM ${error.stack}`);
    }
    setTimeout(() => {
      is("requests", performance.getEntriesByType("resource").filter((it) => !it.name.startsWith("data:")).length, 0);
      const out = document.createElement("pre");
      out.id = "said";
      out.textContent = `${said.join("\n")}\nTHE END`;
      document.body.append(out);
    }, 50);
  });
})();
"#,
];

/// A reader looks for queries and reads answers.
const ASK: &str = r#"
      const lines = () => [...by("list").children];
      const data = JSON.parse(by("data").textContent);
      is("queries listed", lines().length, 30);
      is("points", by("plot").querySelectorAll("circle").length, 30);
      is("answers side by side", by("answer").querySelectorAll(".found").length, 2);
      is("equations of both", document.querySelectorAll(".equations").length, 2);
      is("eight each", by("answer").querySelectorAll(".found li").length, 16);
      is("at most one own item a side", by("answer").querySelectorAll(".found li.own").length <= 2, true);
      change("search", "red HEART", "input");
      is("found", lines().length, 1);
      is("markup of a caption is text", by("answer").querySelector("h3").textContent.includes("a red heart <script>"), true);
      change("search", "no such words", "input");
      is("nothing found", lines().length, 0);
      change("search", "heart", "input");
      is("hearts", lines().length, 6);
      // Enter goes to the list, arrows through it.
      by("search").focus();
      press("Enter");
      is("focus", document.activeElement.id, "list");
      press("ArrowDown");
      is("second chosen", lines().findIndex((line) => line.getAttribute("aria-selected") === "true"), 1);
      press("Enter");
      is("answers", document.activeElement.id, "answer");
      press("/");
      is("search", document.activeElement.id, "search");
      change("search", "", "input");
      let sum = 0;
      for (const filter of ["first", "second", "ties"]) {
        change("filter", filter);
        sum += lines().length;
        for (const line of lines()) {
          const [a, b] = line.querySelector("small").textContent.split(" | ").map(Number);
          if (!(filter === "first" ? a < b : filter === "second" ? b < a : a === b)) said.push(`WRONG ${filter}: ${a} ${b}`);
        }
      }
      is("every query wins, loses or ties", sum, 30);
      change("filter", "all");
      const before = by("answer").textContent;
      change("first", "2");
      change("second", "2");
      is("another row", by("answer").textContent !== before, true);
      change("filter", "ties");
      is("a row ties with itself", lines().length, 30);
      change("first", "0");
      change("filter", "words");
      is("captions whose words are looked into", lines().length, 12);
      is("what words do, in both", by("answer").querySelectorAll(".looks").length, 2);
      is("weights, in one", by("answer").querySelectorAll(".painted").length, 1);
      by("answer").querySelector(".looks .words").children[1].dispatchEvent(new MouseEvent("mouseenter"));
      const pressed = [...by("answer").querySelectorAll(".words")].map((it) => [...it.children].findIndex((word) => word.getAttribute("aria-pressed") === "true"));
      is("pointed at in both", pressed.join(), "1,1");
      is("painted", Math.max(...[...by("answer").querySelectorAll(".region")].map((it) => Number(it.style.opacity))) > 0, true);
      change("direction", "0");
      change("filter", "all");
      is("images have no words", by("answer").querySelectorAll(".looks").length, 0);
      is("images ask", lines().length, 30);
      by("plot").querySelectorAll("circle")[3].dispatchEvent(new MouseEvent("click", { bubbles: true }));
      is("a point is a query", lines().filter((line) => line.getAttribute("aria-selected") === "true").length, 1);
      is("no address but links", document.querySelectorAll("img[src], link, iframe, script[src]").length, 0);
      is("rows", by("first").options.length, data.sets[0].rows.length);
"#;

/// A reader leaves rows out of a plot.
const CHOOSE: &str = r#"
      const figure = document.querySelector("figure.plot");
      const boxes = [...figure.querySelectorAll("input")];
      const hidden = () => [...figure.querySelectorAll("[data-row]")].filter((it) => it.style.display === "none");
      is("a box a row", boxes.map((it) => it.value).join(), "CCA,VSE++, small,SCAN,Both,CCA, shuffled pairs,chance");
      is("all shown", hidden().length, 0);
      boxes[0].click();
      is("one hidden", [...new Set(hidden().map((it) => it.getAttribute("data-row")))].join(), "CCA");
      const of = [...figure.querySelectorAll("[data-row=CCA]")];
      is("all of it", of.length > 2 && of.every((it) => it.style.display === "none"), true);
      is("counted", figure.querySelector("summary").textContent, "Rows of this plot (5 of 6)");
      const [all, none] = figure.querySelectorAll("button");
      none.click();
      is("none", hidden().length, figure.querySelectorAll("[data-row]").length);
      all.click();
      is("all again", hidden().length, 0);
      const scaled = [...document.querySelectorAll("figure.plot")].find((it) => it.querySelector("[data-scale]"));
      const shown = () => [...scaled.querySelectorAll("[data-scale]")].filter((it) => !it.hidden).map((it) => it.dataset.scale).join();
      is("logarithmic", shown(), "logarithmic");
      is("the other", scaled.querySelector("button.scale").textContent, "linear axis");
      scaled.querySelector("button.scale").click();
      is("linear", shown(), "linear");
      is("and back", scaled.querySelector("button.scale").textContent, "logarithmic axis");
      is("axes stay", figure.querySelectorAll("svg > text").length > 4, true);
"#;

/// What a reader who does this in a page finds; nothing where there is no browser.
fn driven(place: &Place, page: &str, does: &str) -> Option<Vec<String>> {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: no chromium on this machine; {page} was not opened");
        return None;
    };
    let script = format!("{}{does}{}", DRIVER[0], DRIVER[1]);
    let page = std::fs::read_to_string(place.path(page)).unwrap();
    // The policy lets no script in but the page's own: the driver's is added to it.
    let hash = format!("&#39;sha256-{}&#39;", {
        use base64::{Engine, engine::general_purpose::STANDARD};
        use sha2::{Digest, Sha256};
        STANDARD.encode(Sha256::digest(script.as_bytes()))
    });
    let driven = page.replacen("script-src ", &format!("script-src {hash} "), 1).replacen(
        "<body",
        &format!("<script>{script}</script><body"),
        1,
    );
    assert!(driven.contains(&hash) || !page.contains("script-src"));
    place.write("driven.html", &driven);
    let profile = place.path("profile");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=10000"])
        .args(["--dump-dom", "--enable-logging=stderr", "--log-level=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}", place.path("driven.html").display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said =
        dom.split_once("<pre id=\"said\">").map(|(_, rest)| rest.split_once("</pre>").map_or(rest, |(said, _)| said));
    let said = said.unwrap_or_else(|| panic!("the page did not run:\n{stderr}"));
    assert!(said.ends_with("THE END") && !said.contains("WRONG") && !said.contains("PROBLEM"), "{said}");
    assert!(!stderr.contains("CONSOLE"), "{stderr}");
    Some(said.lines().filter(|line| line.starts_with("ok ")).map(String::from).collect())
}

#[test]
fn the_page_answers_in_a_browser() {
    let place = place_of_parts();
    place.run(RUN).code(0);
    let index = std::fs::read_to_string(place.path("reports/index.html")).unwrap();
    assert!(index.contains("href=\"explore.html\""));
    if let Some(found) = driven(&place, "reports/explore.html", ASK) {
        assert!(found.len() >= 26, "{found:?}");
    }
}

#[test]
fn rows_can_be_left_out_of_a_plot() {
    let place = place_of_parts();
    let experiment = std::fs::read_to_string(place.path("a.toml")).unwrap();
    place.write("a.toml", &experiment.replace("seeds =", "plots = [\"recall\", \"pareto\"]\nseeds ="));
    place.run(RUN).code(0);
    if let Some(found) = driven(&place, "reports/index.html", CHOOSE) {
        assert!(found.len() >= 13, "{found:?}");
    }
}
