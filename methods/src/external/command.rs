//! A program in any language.
//!
//! ```toml
//! [[methods]]
//! method = "command"
//! label = "Ours"
//! source = "ours.py"                        # beside the experiment, or in the data folder
//! command = "python3 \"$XMBENCH_SOURCE\""
//! options = ["--width 64", "--width 256"]   # a row each
//! ```
//!
//! The contract:
//!
//! 1. `sh -c COMMAND` runs for each phase, which `$XMBENCH_PHASE` names: `fit` once, then `images` and `texts` for every split that is
//!    asked for, and again to be timed. Exit code 0 is success; otherwise the last lines of what was printed are the reason that
//!    is recorded.
//! 2. `fit`: `$XMBENCH_IN/train`, and `$XMBENCH_IN/val` where there is a validation split, hold `images.npy` `[n, d]`,
//!    `fragments.npy` `[n, r, d]`, `texts.npy` `[m, e]` (f32; each where the dataset has it), `texts.jsonl` (an object a text: `text` and
//!    `tokens`), and `pairs.csv` (`image,text`, row numbers from 0). What is learnt goes into the folder `$XMBENCH_MODEL`.
//! 3. `images`: `$XMBENCH_IN` holds `images.npy` and `fragments.npy` of what is to be encoded; a row for each, in this order, goes into
//!    `$XMBENCH_OUT`, a `.npy` file.
//! 4. `texts`: likewise with `texts.npy` and `texts.jsonl`.
//! 5. With `pairs = true` the program scores pairs in the place of steps 3 and 4: in phase `pairs`, `$XMBENCH_IN/images` and
//!    `$XMBENCH_IN/texts` hold both sides, and the scores, `[images, texts]` and higher for what belongs together, go into `$XMBENCH_OUT`.
//!    It runs once for all pairs of a split; no time of encoding or of a query has that call in it, which a remark says.
//! 6. `$XMBENCH_SEED` is the trial's seed, `$XMBENCH_OPTIONS` the parameter `options`.
//!
//! **What it never sees** is which image and text of an encoded split belong together: the two sides come without ids, each in a
//! random order of its own. A program that means to cheat can read the dataset's files where it finds them; this
//! contract keeps honest ones from doing so by accident.
//!
//! What is written is read as that of the method `given`: its similarities, codes and checks are those. The clock starts with the
//! writing of a program's input and stops when its output is read: times of "fit" and "encode" have its start in them, which a remark
//! says, and encoding runs again for each sample of the clock. A saved matcher is the model folder. Programs run only where the
//! command line allows it (`--allow-commands`), because an experiment may come from anybody. Ctrl-C ends a program that fits; one
//! that encodes is waited for, and goes on by itself where a second Ctrl-C ends xmbench at once.

mod pairs;
mod process;
mod view;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use candle_core::Device;
use serde::{Deserialize, Serialize};
use xmbench_datasets::{Features, Images, Matrix, Texts, arrays::Array, random::Seed};

use self::{pairs::Pairs, process::Call};
use super::given::{Compare, binary, real};
use crate::{
    Codes, Error, Matcher, Method, PairScorer, Result, Run, Similarity, Training, card::Card, codes::has_room, params,
};

/// The method.
pub struct Command;

/// Its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Params {
    /// What the shell runs.
    pub command: String,
    /// The program's file; empty for none.
    pub source: String,
    /// Seconds a phase.
    pub time_limit: f64,
    /// Whether the program scores pairs; else it encodes either side by itself.
    pub pairs: bool,
    /// How codes are compared.
    pub similarity: Compare,
    /// Bits of a packed code; 0 for all.
    pub code_bits: usize,
    /// What else the program is told.
    pub options: String,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            command: String::new(),
            source: String::new(),
            time_limit: 3600.0,
            pairs: false,
            similarity: Compare::Cosine,
            code_bits: 0,
            options: String::new(),
        }
    }
}

impl Params {
    /// Completed and checked parameters; an empty table gives the defaults, which name no command.
    ///
    /// # Errors
    /// As [`params::parse`], or a value out of range.
    pub fn read(table: &toml::Table) -> Result<Self> {
        params::stated(NAME, table, Self::check)
    }

    fn check(&self) -> Result<()> {
        if self.command.trim().is_empty() {
            return Err(params::out_of_range(NAME, "command", "a command line for `sh -c`", "none"));
        }
        if !(self.time_limit > 0.0 && Duration::try_from_secs_f64(self.time_limit).is_ok()) {
            return Err(params::out_of_range(NAME, "time_limit", "seconds above 0", self.time_limit));
        }
        if self.pairs && self.similarity != Compare::default() {
            return Err(params::out_of_range(NAME, "similarity", "the default beside `pairs`", "another"));
        }
        if self.code_bits != 0 && self.similarity != Compare::Hamming {
            return Err(params::out_of_range(NAME, "code_bits", "0 unless `similarity` is hamming", self.code_bits));
        }
        Ok(())
    }
}

const NAME: &str = "command";
const FILE: &str = "command.toml";
const MODEL: &str = "model";

impl Method for Command {
    fn card(&self) -> &Card {
        crate::card!("command.toml")
    }

    fn resolve(&self, table: &toml::Table) -> Result<toml::Table> {
        Params::read(table).map(|params| params::to_table(&params))
    }

    fn fit(&self, training: &Training<'_>, table: &toml::Table, run: &mut Run<'_>) -> Result<Box<dyn Matcher>> {
        let params = Params::read(table)?;
        params.check()?;
        let place = Place::new(run.checkpoints.as_deref())?;
        // What an interrupted fit has left is not gone on with: the program was ended where it stood.
        place.clear(MODEL)?;
        let input = place.clear("in")?;
        for (name, split) in [("train", Some(training.train)), ("val", training.val)] {
            let Some(split) = split else { continue };
            let folder = make(&input.join(name))?;
            view::images(&folder, &split.images, None)?;
            view::texts(&folder, &split.texts, None)?;
            view::pairs(&folder, &split.pairs)?;
        }
        let fitted = Fitted { params, seed: run.seed, place, asked: Mutex::default() };
        fitted.call("fit", None, Some(run.stop))?;
        run.check_stop()?;
        Ok(Box::new(fitted))
    }

    fn load(&self, from: &Path, _device: &Device) -> Result<Box<dyn Matcher>> {
        let path = from.join(FILE);
        let wrong = |found: String| Error::Format {
            file: path.display().to_string(),
            expected: "the command of a matcher".into(),
            found,
        };
        let saved: Saved =
            toml::from_slice(&xmbench_datasets::files::read(&path)?).map_err(|error| wrong(error.to_string()))?;
        saved.params.check()?;
        let place = Place { root: absolute(from)?, own: false };
        Ok(Box::new(Fitted { params: saved.params, seed: Seed(saved.seed), place, asked: Mutex::default() }))
    }

    fn remark(&self, params: &toml::Table) -> Option<String> {
        let command = params.get("command")?.as_str()?;
        Some(match params.get("pairs").and_then(toml::Value::as_bool) {
            Some(true) => format!(
                "by the program `{command}`, whose start is in the time of fitting; it scores all pairs in one call, which no time here has in it"
            ),
            _ => format!("by the program `{command}`, whose start is in the times of fitting and encoding"),
        })
    }
}

/// What is kept of a matcher beside the model.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    seed: u64,
    params: Params,
}

/// The folder of a trial: `model`, and what a call reads and writes.
struct Place {
    root: PathBuf,
    /// Whether it goes when the matcher does.
    own: bool,
}

impl Place {
    fn new(checkpoints: Option<&Path>) -> Result<Self> {
        let (root, own) = match checkpoints {
            Some(folder) => (folder.join(NAME), false),
            None => {
                static MADE: AtomicUsize = AtomicUsize::new(0);
                let number = MADE.fetch_add(1, Ordering::Relaxed);
                let folder = std::env::temp_dir().join(format!("xmbench-{}-{number}", std::process::id()));
                (folder, true)
            }
        };
        Ok(Self { root: absolute(&make(&root)?)?, own })
    }

    /// An empty folder in it.
    fn clear(&self, name: &str) -> Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        make(&folder)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.own {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

fn make(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    Ok(folder.to_owned())
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).map_err(Error::io(folder))
}

struct Fitted {
    params: Params,
    seed: Seed,
    place: Place,
    /// What was asked in pairs; held while the program runs, as calls share a folder.
    asked: Mutex<Pairs>,
}

impl Fitted {
    fn call(&self, phase: &str, out: Option<&Path>, stop: Option<&AtomicBool>) -> Result<()> {
        let root = &self.place.root;
        let source = Path::new(&self.params.source);
        let source = if self.params.source.is_empty() { None } else { Some(absolute(source)?) };
        let mut variables = vec![
            ("XMBENCH_PHASE", phase.into()),
            ("XMBENCH_IN", root.join("in").into_os_string()),
            ("XMBENCH_MODEL", root.join(MODEL).into_os_string()),
            ("XMBENCH_SEED", self.seed.0.to_string().into()),
            ("XMBENCH_OPTIONS", self.params.options.clone().into()),
        ];
        variables.extend(out.map(|out| ("XMBENCH_OUT", out.as_os_str().to_owned())));
        variables.extend(source.iter().map(|source| ("XMBENCH_SOURCE", source.as_os_str().to_owned())));
        let call = Call {
            command: &self.params.command,
            phase,
            folder: source.as_deref().and_then(Path::parent),
            variables,
            limit: Duration::from_secs_f64(self.params.time_limit),
            printed: &root.join("printed.txt"),
            stop,
        };
        call.run()
    }

    /// Codes of some items of a side, of which `write` writes a view in the given order.
    fn encode(
        &self,
        side: &'static str,
        items: usize,
        write: impl FnOnce(&Path, &[usize]) -> Result<()>,
    ) -> Result<Codes> {
        let mut asked = self.alone();
        let order = self.seed.stream(&[NAME, side, &items.to_string()]).permutation(items);
        if self.params.pairs {
            let folder = self.place.clear(&asked.next(side))?;
            write(&folder, &order)?;
            return asked.number(side, folder, &order);
        }
        let input = self.place.clear("in")?;
        write(&input, &order)?;
        let array = self.answer(side, side, order.len(), &format!("{side}.npy"))?;
        self.codes(array, &order)
    }

    /// Nobody else runs the program meanwhile.
    fn alone(&self) -> MutexGuard<'_, Pairs> {
        self.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the program writes into this file in a phase: a row for each of so many images or texts.
    fn answer(&self, phase: &str, side: &str, rows: usize, file: &str) -> Result<Array> {
        let out = self.place.root.join(file);
        if out.exists() {
            fs::remove_file(&out).map_err(Error::io(&out))?;
        }
        self.call(phase, Some(&out), None)?;
        if !out.exists() {
            let next = format!("write a row for each of the {side} to $XMBENCH_OUT in phase `{phase}`");
            return Err(xmbench_datasets::Error::content(&out, "", "what the program wrote", "nothing", next).into());
        }
        let array = Array::open(&out.to_string_lossy())?;
        if array.rows() != rows {
            let (expected, found) = (format!("{rows} rows, one for each of the {side}"), array.rows());
            let next = "write one for each row of the input, in its order";
            return Err(xmbench_datasets::Error::content(&out, "", expected, format!("{found} rows"), next).into());
        }
        Ok(array)
    }

    /// The scores of all pairs of those who were asked for at these places; the program makes them if it has not before.
    fn scored(&self, asked: &mut Pairs, places: (usize, usize)) -> Result<Arc<Array>> {
        if let Some(array) = asked.scored.get(&places) {
            return Ok(array.clone());
        }
        let (images, texts) = (asked.at("images", places.0), asked.at("texts", places.1));
        let input = self.place.clear("in")?;
        for (side, from) in [("images", images), ("texts", texts)] {
            copy(&from.folder, &input.join(side))?;
        }
        let file = format!("pairs-{}-{}.npy", places.0, places.1);
        let array = real(self.answer("pairs", "images", images.rows.len(), &file)?, "scores")?;
        if array.cols() != texts.rows.len() {
            let (expected, found) = (format!("{} columns, one for each of the texts", texts.rows.len()), array.cols());
            let next = "write one for each row of texts, in their order";
            return Err(xmbench_datasets::Error::content(array.path(), "", expected, found.to_string(), next).into());
        }
        let array = Arc::new(array);
        asked.scored.insert(places, array.clone());
        Ok(array)
    }

    /// What the program wrote, with item `order[k]` in row `k`, in the order of the items.
    fn codes(&self, array: Array, order: &[usize]) -> Result<Codes> {
        let rows = view::rows(order);
        if self.params.similarity == Compare::Hamming {
            return Ok(Codes::Binary(binary(&array, &rows, self.params.code_bits)?));
        }
        let array = real(array, "embeddings")?;
        let table: &dyn Features = &array;
        let matrix: Matrix = table.gather(&rows)?;
        Ok(Codes::Dense(matrix))
    }
}

impl Matcher for Fitted {
    fn encode_images(&self, images: &Images) -> Result<Codes> {
        self.encode("images", images.len(), |folder, order| view::images(folder, images, Some(order)))
    }

    fn encode_texts(&self, texts: &Texts) -> Result<Codes> {
        self.encode("texts", texts.len(), |folder, order| view::texts(folder, texts, Some(order)))
    }

    fn similarity(&self) -> Similarity<'_> {
        match self.params.pairs {
            true => Similarity::Pairwise(self),
            false => self.params.similarity.of_codes(),
        }
    }

    fn save(&self, to: &Path) -> Result<()> {
        let saved = Saved { seed: self.seed.0, params: self.params.clone() };
        let path = to.join(FILE);
        let text = toml::to_string(&saved).expect("parameters are plain values");
        fs::write(&path, text).map_err(Error::io(path))?;
        copy(&self.place.root.join(MODEL), &to.join(MODEL))
    }
}

impl PairScorer for Fitted {
    fn score(
        &self,
        images: &Codes,
        rows: Range<usize>,
        texts: &Codes,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        has_room(out, rows.len(), columns.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let (array, rows, columns) = {
            let mut asked = self.alone();
            let ((image, rows), (text, columns)) =
                (asked.rows("images", images, rows)?, asked.rows("texts", texts, columns)?);
            (self.scored(&mut asked, (image, text))?, rows, columns)
        };
        for (row, out) in rows.into_iter().zip(out.chunks_exact_mut(columns.len())) {
            for (column, out) in columns.iter().zip(out) {
                array.values(row, *column, std::slice::from_mut(out))?;
            }
        }
        Ok(())
    }
}

/// Copies a folder with everything in it that is a file or a folder.
fn copy(from: &Path, to: &Path) -> Result<()> {
    make(to)?;
    for entry in fs::read_dir(from).map_err(Error::io(from))? {
        let entry = entry.map_err(Error::io(from))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(Error::io(from))?);
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&path, &target)?;
        } else if kind.is_file() {
            fs::copy(&path, &target).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests;
