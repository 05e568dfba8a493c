//! What a path holds, and why it was taken for that.

use std::{io::Read, path::Path};

use serde::Serialize;

use crate::{Error, Result, files, halves, idx, labelled, mat::MatFile, mfeat, npy};

/// What a path was recognised as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// `precomp folder`, `wiki folder`, `mnist folder`, `mfeat folder`, `features folder`, `features file`, `npy`, `mat`, `idx`,
    /// `captions`, or `unknown`.
    pub kind: &'static str,
    /// Why: what was seen that tells.
    pub because: String,
    /// What is inside, a line each.
    pub content: Vec<String>,
    /// What the user can do with it.
    pub next: String,
}

/// Looks at a file or folder.
///
/// # Errors
/// A path that does not exist, cannot be read, or is neither a regular file nor a folder.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let meta = std::fs::metadata(path).map_err(Error::io(path))?;
    if meta.is_dir() { folder(path) } else { file(&files::named(path)?) }
}

fn folder(path: &Path) -> Result<Inspection> {
    let mut names = Vec::new();
    for entry in walkdir::WalkDir::new(path).min_depth(1).max_depth(1).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::Io { path: path.into(), source: error.into() })?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    let name = path.display();
    let content = names.iter().map(|name| line_of(&path.join(name), name)).collect();
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let splits: Vec<&str> = ["train", "dev", "test", "testall"]
        .into_iter()
        .filter(|split| has(&format!("{split}_ims.npy")) && has(&format!("{split}_caps.txt")))
        .collect();
    Ok(if splits.contains(&"train") {
        Inspection {
            kind: "precomp folder",
            because: format!("*_ims.npy and *_caps.txt for {}", splits.join(", ")),
            content,
            next: format!("xmbench data audit precomp path={name}"),
        }
    } else if has("raw_features.mat") && has("categories.list") {
        let because = "raw_features.mat and categories.list".into();
        Inspection { kind: "wiki folder", because, content, next: format!("xmbench data audit wiki path={name}") }
    } else if let [Some(images), Some(labels)] = halves::TRAIN.map(|names| idx::find(path, &names, "").ok()) {
        let because = [images, labels].map(|file| file.file_name().unwrap_or_default().to_string_lossy().into_owned());
        Inspection {
            kind: "mnist folder",
            because: because.join(" and "),
            content,
            next: format!("xmbench data audit mnist-halves path={name}"),
        }
    } else if let [image, text, ..] = views(&names)[..] {
        Inspection {
            kind: "mfeat folder",
            because: format!("views mfeat-{image} and mfeat-{text}"),
            content,
            next: format!("xmbench data audit mfeat path={name} image={image} text={text}"),
        }
    } else if let Some(content) = labelled::guesses(path).ok().and_then(|(lines, complete)| complete.then_some(lines)) {
        Inspection {
            kind: "features folder",
            because: "arrays of images, texts and labels by their names".into(),
            content,
            next: format!("xmbench data audit features path={name}"),
        }
    } else {
        Inspection {
            kind: "unknown",
            because: "no train_ims.npy with train_caps.txt, no raw_features.mat with categories.list, no MNIST, no two views mfeat-*, no arrays named as images, \
                      texts and labels"
                .into(),
            content,
            next: "see `xmbench data get` for the layouts".into(),
        }
    })
}

/// The views of the UCI multiple features among file names.
fn views(names: &[String]) -> Vec<&str> {
    let view = |name: &'static str| {
        names.iter().any(|file| *file == format!("mfeat-{name}") || *file == format!("mfeat-{name}.csv"))
    };
    mfeat::VIEWS.iter().map(|(name, _)| *name).filter(|name| view(name)).collect()
}

/// One line on a file of a folder.
fn line_of(path: &Path, name: &str) -> String {
    if let Some(kind) = std::fs::metadata(path).ok().and_then(|meta| files::odd(&meta)) {
        return format!("{name}: {kind}");
    }
    if files::leads_out(path) {
        return format!("{name}: a link that leads out of the folder");
    }
    match inspect_quietly(path) {
        Some(found) => format!("{name}: {}", found.content.join("; ")),
        None => name.to_string(),
    }
}

fn inspect_quietly(path: &Path) -> Option<Inspection> {
    let ending = ["npy", "mat", "txt", "gz"].iter().any(|e| path.extension().is_some_and(|extension| extension == *e));
    let known = ending || path.to_string_lossy().ends_with("-ubyte");
    if known && path.is_file() { file(path).ok() } else { None }
}

fn file(path: &Path) -> Result<Inspection> {
    let mut head = Vec::new();
    files::open(path)?.0.take(8).read_to_end(&mut head).map_err(Error::io(path))?;
    if head.starts_with(b"\x93NUMPY") {
        let info = npy::info(path)?;
        let order = if info.fortran_order { "Fortran order" } else { "C order" };
        let shape = info.shape.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        return Ok(Inspection {
            kind: "npy",
            because: "it begins with \\x93NUMPY".into(),
            content: vec![format!("[{shape}] {} in {order}", info.dtype)],
            next: "name it train_ims.npy beside train_caps.txt to use it as a precomp folder".into(),
        });
    }
    if head.starts_with(b"MATLAB ") || head.starts_with(b"\x89HDF") {
        let version = MatFile::open(path)?.version();
        let (content, complete) = labelled::guesses(path)?;
        let because = format!("it begins as a MAT-file of version {version}");
        return Ok(if complete {
            Inspection {
                kind: "features file",
                because: format!("{because}, and has images, texts and labels by their names"),
                content,
                next: format!("xmbench data audit features path={}", path.display()),
            }
        } else {
            let next = "raw_features.mat of a wiki folder has I_tr, T_tr, I_te and T_te; a features file has labels as well, or \
                        names them by options";
            Inspection { kind: "mat", because, content, next: next.into() }
        });
    }
    if head.starts_with(&idx::GZIP) || head.starts_with(&[0, 0, 8]) {
        let lengths = idx::shape(path)?.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let zipped = if head.starts_with(&idx::GZIP) { ", gzipped" } else { "" };
        return Ok(Inspection {
            kind: "idx",
            because: "it begins with 00 00 08, the magic number of bytes in IDX".into(),
            content: vec![format!("[{lengths}] u8{zipped}")],
            next: "the four files of MNIST in a folder make a dataset mnist-halves".into(),
        });
    }
    let text = files::map(path)?;
    Ok(match std::str::from_utf8(&text) {
        Ok(text) => Inspection {
            kind: "captions",
            because: "it is text in UTF-8".into(),
            content: vec![format!(
                "{} lines, {} of them empty",
                text.lines().count(),
                text.lines().filter(|l| l.trim().is_empty()).count()
            )],
            next: "name it train_caps.txt beside train_ims.npy to use it as a precomp folder".into(),
        },
        Err(_) => Inspection {
            kind: "unknown",
            because: "neither the beginning of a .npy nor of a MAT-file, and no text in UTF-8".into(),
            content: vec![format!("{} bytes", text.len())],
            next: "convert it with numpy.save".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::idx::tests::{gzip, idx};

    #[test]
    fn what_is_seen_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("train_caps.txt"), "a cat\n\na dog\n").unwrap();
        assert_eq!(inspect(&at("train_caps.txt")).unwrap().content, ["3 lines, 1 of them empty"]);
        std::fs::write(at("junk.bin"), [0xff, 0xfe, 0x00]).unwrap();
        assert_eq!(inspect(&at("junk.bin")).unwrap().kind, "unknown");
        assert_eq!(inspect(folder.path()).unwrap().kind, "unknown");
        let mut npy = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }".to_vec();
        npy.resize(127, b' ');
        npy.push(b'\n');
        npy.extend([0u8; 8]);
        std::fs::write(at("train_ims.npy"), &npy).unwrap();
        let found = inspect(folder.path()).unwrap();
        assert_eq!(found.kind, "precomp folder");
        assert!(found.content.contains(&"train_ims.npy: [1, 2] <f4 in C order".to_string()), "{:?}", found.content);
        std::fs::create_dir(at("mnist")).unwrap();
        let (images, labels) = (idx(&[2, 4, 6], &[7; 48]), idx(&[2], &[1, 2]));
        std::fs::write(at("mnist/train-images-idx3-ubyte.gz"), gzip(&images)).unwrap();
        std::fs::write(at("mnist/train-labels-idx1-ubyte"), labels).unwrap();
        let found = inspect(&at("mnist")).unwrap();
        assert_eq!(found.kind, "mnist folder");
        assert_eq!(
            found.content,
            ["train-images-idx3-ubyte.gz: [2, 4, 6] u8, gzipped", "train-labels-idx1-ubyte: [2] u8"]
        );
        std::fs::write(at("junk.gz"), [0x1f, 0x8b, 0]).unwrap();
        assert!(inspect(&at("junk.gz")).unwrap_err().to_string().contains("junk.gz"));
        std::fs::create_dir(at("mfeat")).unwrap();
        std::fs::write(at("mfeat/mfeat-zer"), "").unwrap();
        assert_eq!(inspect(&at("mfeat")).unwrap().kind, "unknown");
        std::fs::write(at("mfeat/mfeat-fou.csv"), "").unwrap();
        assert!(inspect(&at("mfeat")).unwrap().next.contains("image=fou text=zer"));
        assert!(inspect(&at("absent")).unwrap_err().to_string().contains("absent"));
    }
}
