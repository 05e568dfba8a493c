//! Every command of `docs/course` runs, and prints what the page says: ` ```console ` blocks hold a command and what it prints, ` ```sh ` blocks
//! commands that must end well, whatever they print. Pictures of a page are those that its commands draw.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Set to `update`, the pages are written anew.
const UPDATE: &str = "XMBENCH_COURSE";

/// A folder with what the commands name, beside which they write.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    for name in ["results", "docs"] {
        fs::create_dir(place.path().join(name)).unwrap();
    }
    let root = root();
    link(&root.join("results/published-quick"), &place.path().join("results/published-quick"));
    link(&root.join("docs/course"), &place.path().join("docs/course"));
    place
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) {
    std::os::unix::fs::symlink(from, to).unwrap();
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// What a command of a page prints; it must end well.
fn run(line: &str, place: &Path) -> String {
    let words = shell_words(line);
    assert_eq!(words[0], "xmbench", "{line}");
    let output = Command::new(env!("CARGO_BIN_EXE_xmbench")).args(&words[1..]).current_dir(place).output().unwrap();
    let (code, printed) = (output.status.code(), String::from_utf8(output.stdout).unwrap());
    // A finding is what an audit is asked for; and bits are promised to machines of one kind alone.
    let found = match words[1].as_str() {
        "data" => true,
        "rerun" => printed.contains("recorded and now: instruction sets"),
        _ => false,
    };
    assert!(code == Some(0) || (code == Some(1) && found), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    printed.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_string()
}

/// The words of a line, of which some stand between quotation marks.
fn shell_words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    let mut words = Vec::new();
    for (at, part) in parts {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_string)),
            _ => words.push(part.to_string()),
        }
    }
    words
}

/// The page as its commands make it, with the pictures that it shows.
fn made(text: &str, place: &Path) -> (String, Vec<String>) {
    let (mut out, mut pictures) = (String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        out += &format!("{line}\n");
        if let Some((_, rest)) = line.split_once("](img/") {
            pictures.push(rest.trim_end_matches(')').to_string());
        }
        if line == "```console" || line == "```sh" {
            for inside in lines.by_ref() {
                if inside == "```" {
                    out += "```\n";
                    break;
                }
                match (line, inside.strip_prefix("$ ")) {
                    ("```console", Some(command)) => out += &format!("{inside}\n{}\n", run(command, place)),
                    ("```console", None) => {}
                    _ => {
                        run(inside, place);
                        out += &format!("{inside}\n");
                    }
                }
            }
        }
    }
    (out, pictures)
}

#[test]
fn every_page_is_what_its_commands_print() {
    let folder = root().join("docs/course");
    let update = std::env::var(UPDATE).is_ok_and(|value| value == "update");
    let mut pages: Vec<PathBuf> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    assert_eq!(pages.len(), 7, "six pages and what is before them");
    for path in pages {
        let place = place();
        let text = fs::read_to_string(&path).unwrap();
        let (now, pictures) = made(&text, place.path());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for picture in pictures {
            let drawn = fs::read(place.path().join("reports/course").join(&picture))
                .unwrap_or_else(|_| panic!("{name}: no command draws {picture}"));
            let kept = folder.join("img").join(&picture);
            if update {
                fs::write(&kept, &drawn).unwrap();
            }
            assert!(
                fs::read(&kept).is_ok_and(|kept| kept == drawn),
                "{name}: {picture} is drawn otherwise; {UPDATE}=update writes it anew"
            );
        }
        if update {
            fs::write(&path, &now).unwrap();
        } else {
            let differing = text.lines().zip(now.lines()).find(|(a, b)| a != b);
            assert_eq!(text, now, "{name}: first {differing:?}; {UPDATE}=update writes it anew");
        }
    }
}
