//! By which names arrays are known. Case does not count.

/// What an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Images,
    Texts,
    Labels,
}

/// Which items an array holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slice {
    All,
    Train,
    Test,
    Database,
}

/// The table: a name is one of the words or letters of a role and one of the endings of a slice. Words stand alone, too, for all
/// items; letters do not, and X and Y are images and texts only as XAll and YAll, since Y is a label elsewhere.
pub const ROLES: [(Role, &[&str], &[&str]); 3] = [
    (Role::Images, &["images", "image", "imgs", "img"], &["i"]),
    (Role::Texts, &["texts", "text", "txts", "txt", "tags", "tag", "bow"], &["t"]),
    (Role::Labels, &["labels", "label", "labs", "lab"], &["l"]),
];

pub const SLICES: [(Slice, &[&str]); 4] = [
    (Slice::Train, &["_tr", "_train", "_trn", "train"]),
    (Slice::Test, &["_te", "_test", "_query", "_que", "_qu", "test"]),
    (Slice::Database, &["_db", "_database", "_retrieval", "_gallery", "_re"]),
    (Slice::All, &["_all", "all"]),
];

const WHOLE_NAMES: [(&str, Role); 2] = [("xall", Role::Images), ("yall", Role::Texts)];

impl Role {
    pub const EACH: [Self; 3] = [Self::Images, Self::Texts, Self::Labels];

    /// The option that names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Texts => "texts",
            Self::Labels => "labels",
        }
    }
}

impl Slice {
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "item",
            Self::Train => "train",
            Self::Test => "test",
            Self::Database => "database",
        }
    }
}

/// What an array of this name holds.
pub fn known(name: &str) -> Option<(Role, Slice)> {
    let name = name.to_lowercase();
    if let Some((_, role)) = WHOLE_NAMES.iter().find(|(whole, _)| *whole == name) {
        return Some((*role, Slice::All));
    }
    for (role, words, letters) in ROLES {
        if words.contains(&name.as_str()) {
            return Some((role, Slice::All));
        }
        for stem in words.iter().chain(letters) {
            if let Some(slice) = name.strip_prefix(stem).and_then(ending) {
                return Some((role, slice));
            }
        }
    }
    None
}

/// The slice of an ending.
pub fn ending(text: &str) -> Option<Slice> {
    let text = text.to_lowercase();
    SLICES.iter().find(|(_, endings)| endings.contains(&text.as_str())).map(|(slice, _)| *slice)
}
