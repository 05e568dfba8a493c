//! Arrays of files, found by name and held against each other.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::names::{self, Role, Slice};
use crate::{
    Error, FeatureTable, Features, Matrix, Result, files,
    mat::MatFile,
    npy::{self, Npy},
    options::Options,
};

/// Class numbers above this are no classes.
const MOST_CLASSES: f32 = 65_536.0;

/// An array that lies in a file.
#[derive(Clone)]
struct Entry {
    name: String,
    file: Arc<File>,
    /// Rows and columns; none for what is no matrix of numbers. A vector is a column.
    shape: Option<[usize; 2]>,
    /// Shape and type, as for people.
    said: String,
}

struct File {
    path: PathBuf,
    /// None for `.npy`.
    mat: Option<MatFile>,
}

/// The arrays of a file or folder, and what the options say of them.
pub struct Store {
    path: PathBuf,
    entries: Vec<Entry>,
    /// Names by role, as given; empty where arrays are known by their names.
    named: [String; 3],
    transposed: BTreeSet<Role>,
}

/// Some items of a file, all arrays with a row an item.
pub struct Part {
    pub slice: Slice,
    pub items: usize,
    pub images: FeatureTable,
    pub texts: FeatureTable,
    pub labels: Matrix,
    /// Where the arrays lie: file and name.
    places: [(PathBuf, String); 3],
}

impl Store {
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let named = Role::EACH.map(|role| options.text(role.word(), &[]).map(str::to_owned));
        let [images, texts, labels] = named;
        let mut transposed = BTreeSet::new();
        for word in options.text("transposed", &[])?.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Role::EACH.into_iter().find(|role| role.word() == word) {
                Some(role) => drop(transposed.insert(role)),
                None if ["all", "true"].contains(&word) => transposed.extend(Role::EACH),
                None if word == "false" => {}
                None => return Err(crate::options::unknown("transposed", word, &["images", "texts", "labels", "all"])),
            }
        }
        Ok(Self { path: path.to_owned(), entries: entries(path)?, named: [images?, texts?, labels?], transposed })
    }

    /// Whether there is an array of images of the slice.
    pub fn has(&self, slice: Slice) -> bool {
        !self.candidates(Role::Images, slice).is_empty()
    }

    /// The files that arrays were found in, by name.
    pub fn used(&self) -> Vec<PathBuf> {
        let found = Role::EACH.into_iter().flat_map(|role| {
            let slices = [Slice::All, Slice::Train, Slice::Test, Slice::Database];
            slices.into_iter().flat_map(move |slice| self.candidates(role, slice))
        });
        let files: BTreeSet<PathBuf> = found.map(|entry| entry.file.path.clone()).collect();
        files.into_iter().collect()
    }

    fn candidates(&self, role: Role, slice: Slice) -> Vec<&Entry> {
        let named = &self.named[role as usize];
        let fits = |entry: &&Entry| {
            if named.is_empty() {
                // Pictures and words do not compete with features.
                return entry.shape.is_some() && names::known(&entry.name) == Some((role, slice));
            }
            let whole = slice == Slice::All && entry.name == *named;
            whole || entry.name.strip_prefix(named.as_str()).and_then(names::ending) == Some(slice)
        };
        self.entries.iter().filter(fits).collect()
    }

    /// The array of a role. Labels that lie in the file of the images come before others, which must then be the same.
    fn find(&self, role: Role, slice: Slice, images: Option<&Entry>) -> Result<&Entry> {
        let found = self.candidates(role, slice);
        match (&found[..], images) {
            ([one], _) => Ok(one),
            ([], _) => Err(self.missing(role, slice)),
            (several, Some(images)) if role == Role::Labels => {
                let inside: Vec<&&Entry> = several.iter().filter(|e| Arc::ptr_eq(&e.file, &images.file)).collect();
                let &[own] = &inside[..] else { return Err(self.ambiguous(role, several)) };
                let like = own.matrix()?;
                for other in several.iter().filter(|entry| !Arc::ptr_eq(&entry.file, &own.file)) {
                    let matrix = other.matrix()?;
                    if matrix != like {
                        let expected = format!("the labels `{}` of {}", own.name, own.file.path.display());
                        let next = "remove the wrong ones, or name the right ones by the option `labels`";
                        return Err(Error::content(&other.file.path, &other.name, expected, "others", next));
                    }
                }
                Ok(own)
            }
            (several, _) => Err(self.ambiguous(role, several)),
        }
    }

    fn missing(&self, role: Role, slice: Slice) -> Error {
        let word = role.word();
        let of = match slice {
            Slice::All => "of all items",
            Slice::Train => "to train on",
            Slice::Test => "that ask",
            Slice::Database => "of the database",
        };
        let named = &self.named[role as usize];
        let example = match (named.is_empty(), slice) {
            (true, Slice::All) => format!("{}All", ["I", "T", "L"][role as usize]),
            (true, slice) => format!("{}{}", ["I", "T", "L"][role as usize], ending_of(slice)),
            (false, Slice::All) => named.clone(),
            (false, slice) => format!("{named}{}", ending_of(slice)),
        };
        let found: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let next = match slice {
            Slice::All => format!("name the array by the option `{word}`; a file with parts needs split = \"given\""),
            _ => format!("name the array by the option `{word}`; a file without parts needs another `split`"),
        };
        let expected = format!("{word} {of}, an array such as {example}");
        Error::content(&self.path, "", expected, format!("{found:?}"), next)
    }

    fn ambiguous(&self, role: Role, found: &[&Entry]) -> Error {
        let list: Vec<String> = found.iter().map(|e| format!("{} of {}", e.name, e.file.path.display())).collect();
        let next = format!("name one by the option `{}`", role.word());
        Error::content(&self.path, "", format!("one array of {}", role.word()), list.join(" and "), next)
    }

    /// Reads a part, every array with as many rows.
    pub fn part(&self, slice: Slice) -> Result<Part> {
        let images = self.find(Role::Images, slice, None)?;
        let texts = self.find(Role::Texts, slice, None)?;
        let labels = self.find(Role::Labels, slice, Some(images))?;
        let entries = [images, texts, labels];
        let mut shapes = [[0; 2]; 3];
        for (shape, entry) in shapes.iter_mut().zip(entries) {
            *shape = entry.shape.ok_or_else(|| {
                let next = "name an array of features, a vector an item";
                Error::content(&entry.file.path, &entry.name, "rows and columns of numbers", &entry.said, next)
            })?;
        }
        self.check_axes(entries, shapes)?;
        let table = |role: Role| entries[role as usize].table(self.transposed.contains(&role));
        let labels = {
            let matrix = entries[2].matrix()?;
            if self.transposed.contains(&Role::Labels) { turned(&matrix) } else { matrix }
        };
        let places = entries.map(|entry| (entry.file.path.clone(), entry.name.clone()));
        Ok(Part { slice, items: labels.rows, images: table(Role::Images)?, texts: table(Role::Texts)?, labels, places })
    }

    /// The number of items must be the same. Where it is so only with axes exchanged, the error says of which arrays.
    fn check_axes(&self, entries: [&Entry; 3], shapes: [[usize; 2]; 3]) -> Result<()> {
        let rows = |turn: usize| {
            let side = |role: usize| {
                let stored = self.transposed.contains(&Role::EACH[role]);
                shapes[role][usize::from(stored != (turn >> role & 1 == 1))]
            };
            [side(0), side(1), side(2)]
        };
        let agree = |[a, b, c]: [usize; 3]| a == b && b == c && a > 0;
        if agree(rows(0)) {
            return Ok(());
        }
        let said: Vec<String> = entries.iter().map(|entry| format!("{} {}", entry.name, entry.said)).collect();
        // Fewest exchanges first.
        let mut turns: Vec<usize> = (1..8).filter(|&turn| agree(rows(turn))).collect();
        turns.sort_by_key(|turn| turn.count_ones());
        let next = match turns.first() {
            Some(&turn) => {
                let listed = Role::EACH
                    .into_iter()
                    .filter(|&role| self.transposed.contains(&role) != (turn >> role as usize & 1 == 1))
                    .map(Role::word);
                let listed: Vec<&str> = listed.collect();
                let items = rows(turn)[0];
                format!("with other axes there are {items} items: set transposed = \"{}\"", listed.join(","))
            }
            None => "take the arrays from the same source, or name them by the options images, texts and labels".into(),
        };
        let expected = "a row an item, as many in images, texts and labels";
        Err(Error::content(&entries[0].file.path, "", expected, said.join(", "), next))
    }
}

fn ending_of(slice: Slice) -> &'static str {
    names::SLICES.iter().find(|(other, _)| *other == slice).map_or("", |(_, endings)| endings[0])
}

impl Entry {
    fn matrix(&self) -> Result<Matrix> {
        match &self.file.mat {
            Some(mat) => mat.matrix(&self.name),
            None => npy::matrix(&self.file.path),
        }
    }

    /// A row an item. Plain `.npy` files stay where they are and are read a row at a time.
    fn table(&self, transposed: bool) -> Result<FeatureTable> {
        if self.file.mat.is_none()
            && !transposed
            && let Ok(npy) = Npy::open(&self.file.path)
            && npy.shape.len() == 2
        {
            return Ok(Arc::new(Rows(npy)));
        }
        let matrix = self.matrix()?;
        Ok(Arc::new(if transposed { turned(&matrix) } else { matrix }))
    }
}

/// Rows of a mapped file.
#[derive(Debug)]
struct Rows(Npy);

impl Features for Rows {
    fn items(&self) -> usize {
        self.0.shape[0]
    }
    fn fragments(&self) -> usize {
        1
    }
    fn width(&self) -> usize {
        self.0.shape[1]
    }
    fn read(&self, item: usize, out: &mut [f32]) -> Result<()> {
        self.0.read(item, out)
    }
}

fn turned(matrix: &Matrix) -> Matrix {
    let mut out = Matrix::zeros(matrix.cols, matrix.rows);
    for i in 0..matrix.rows {
        for (j, &value) in matrix.row(i).iter().enumerate() {
            out.row_mut(j)[i] = value;
        }
    }
    out
}

/// Every array of a file, or of the MAT and `.npy` files of a folder.
fn entries(path: &Path) -> Result<Vec<Entry>> {
    let mut paths = Vec::new();
    if path.is_dir() {
        for entry in walkdir::WalkDir::new(path).min_depth(1).max_depth(1).sort_by_file_name() {
            let entry = entry.map_err(|error| Error::Io { path: path.into(), source: error.into() })?;
            // A folder of such a name is no array; what is neither file nor folder is refused when it is opened.
            if !entry.path().is_dir() && matches!(extension(entry.path()).as_str(), "mat" | "npy" | "h5" | "hdf5") {
                paths.push(entry.into_path());
            }
        }
    } else {
        paths.push(files::named(path)?);
    }
    let mut out = Vec::new();
    for path in paths {
        if extension(&path) == "npy" {
            let info = npy::info(&path)?;
            let shape: Vec<usize> = info.shape.iter().map(|&length| length as usize).collect();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let said = format!("{shape:?} {}", info.dtype);
            let shape = match shape[..] {
                [rows, cols] => Some([rows, cols]),
                [rows] => Some([rows, 1]),
                _ => None,
            };
            out.push(Entry { name, file: Arc::new(File { path, mat: None }), shape, said });
        } else {
            let mat = MatFile::open(&path)?;
            let infos = mat.infos().to_vec();
            let file = Arc::new(File { path, mat: Some(mat) });
            out.extend(infos.into_iter().map(|info| {
                let shape = match info.shape[..] {
                    [rows, cols] if info.numeric => Some([rows as usize, cols as usize]),
                    _ => None,
                };
                let said = if info.shape.is_empty() { info.kind } else { format!("{:?} {}", info.shape, info.kind) };
                Entry { name: info.name, file: file.clone(), shape, said }
            }));
        }
    }
    Ok(out)
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

impl Part {
    /// Widths must be those of the first part.
    pub fn check_like(&self, like: &Self) -> Result<()> {
        let widths = |part: &Self| [part.images.width(), part.texts.width(), part.labels.cols];
        for ((own, other), (file, name)) in widths(self).into_iter().zip(widths(like)).zip(&self.places) {
            if own != other {
                let expected = format!("{other} columns, as in training");
                let next = "take every part from the same source";
                return Err(Error::content(file, name, expected, format!("{own} columns"), next));
            }
        }
        Ok(())
    }
}

/// Number of classes, and those of each item of each part.
///
/// Several columns are classes, 0 or 1. One column is the number of the class, counted from 0 or from 1.
pub fn classes(parts: &[Part]) -> Result<(usize, Vec<Vec<Vec<u32>>>)> {
    let wrong = |part: &Part, row: usize, expected: &str, found: f32| {
        let (file, name) = &part.places[2];
        let next = "give a column a class with 0 or 1, or one number of a class an item";
        Err(Error::content(file, format!("{name}, row {row}"), expected, found.to_string(), next))
    };
    if let Some(part) = parts.iter().find(|part| part.labels.cols == 0) {
        return wrong(part, 0, "at least one column", 0.0);
    }
    let numbers = parts.first().is_some_and(|part| part.labels.cols == 1);
    let values = || parts.iter().flat_map(|part| part.labels.data.iter().copied());
    for part in parts {
        for row in 0..part.labels.rows {
            let bad = |value: &&f32| match numbers {
                true => value.fract() != 0.0 || !(0.0..MOST_CLASSES).contains(*value),
                false => ![0.0, 1.0].contains(*value),
            };
            if let Some(&found) = part.labels.row(row).iter().find(bad) {
                let expected = if numbers { "the number of a class, from 0 to 65535" } else { "0 or 1" };
                return wrong(part, row, expected, found);
            }
        }
    }
    if !numbers {
        let of = |row: &[f32]| (0u32..).zip(row).filter(|(_, value)| **value == 1.0).map(|(class, _)| class).collect();
        let lists = |part: &Part| (0..part.labels.rows).map(|i| of(part.labels.row(i))).collect();
        return Ok((parts.first().map_or(0, |part| part.labels.cols), parts.iter().map(lists).collect()));
    }
    let first = if values().any(|value| value == 0.0) { 0 } else { 1 };
    let lists = |part: &Part| part.labels.data.iter().map(|&value| vec![value as u32 - first]).collect();
    let most = values().fold(0.0, f32::max) as u32;
    Ok(((most + 1 - first) as usize, parts.iter().map(lists).collect()))
}

/// What a look at a file or folder tells: a line an array with the role that its name stands for, and whether images, texts and labels
/// are all there.
pub fn guesses(path: &Path) -> Result<(Vec<String>, bool)> {
    let entries = entries(path)?;
    let mut seen = BTreeSet::new();
    let lines = entries.iter().map(|entry| {
        let known = names::known(&entry.name).filter(|_| entry.shape.is_some());
        seen.extend(known);
        let role = known.map_or(String::new(), |(role, slice)| {
            let of = match slice {
                Slice::All => "all items",
                Slice::Train => "training items",
                Slice::Test => "queries",
                Slice::Database => "the database",
            };
            format!(": by its name {} of {of}", role.word())
        });
        format!("{} {}{role}", entry.name, entry.said)
    });
    let lines = lines.collect();
    let whole = |slice: Slice| Role::EACH.into_iter().all(|role| seen.contains(&(role, slice)));
    let complete = whole(Slice::All) || (whole(Slice::Train) && whole(Slice::Test));
    Ok((lines, complete))
}
