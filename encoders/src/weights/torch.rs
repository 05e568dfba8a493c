//! PyTorch checkpoints as `torch.save` wrote them before 1.6: five pickles, one behind the other (a magic number, the form's version, sizes of
//! the writer's integers, the object that was saved, a list of storage keys), then for each key, in the list's order, the number of its elements as
//! an i64 and the elements, least significant byte first.
//!
//! A tensor is a call of `torch._utils._rebuild_tensor_v2` with a storage, the element at which it begins, its shape and its strides.

use std::collections::{BTreeMap, HashMap};

use super::{
    Entry, Flaw, Kind,
    pickle::{self, At, Object, Pickle},
};

/// The pickle of the magic number 0x1950a86a20f9469cfc6c.
const MAGIC: [u8; 15] = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e];

/// The version of the form.
const VERSION: usize = 1001;

type Step<T> = std::result::Result<T, Flaw>;

/// Whether a file is such a checkpoint.
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// A tensor before its storage is known.
struct Tensor<'a> {
    key: &'a str,
    kind: Kind,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

/// Every tensor of the saved dictionary, or of its entry `state_dict`.
pub(super) fn entries(bytes: &[u8]) -> Step<BTreeMap<String, Entry>> {
    let mut at = MAGIC.len();
    let mut next = || {
        let read = pickle::read(&bytes[at..], at)?;
        at += read.length;
        Ok(read)
    };
    let version = next()?;
    if version.size(version.root) != Some(VERSION) {
        return Err(Flaw::new("", format!("version {VERSION} of the form"), "another"));
    }
    next()?;
    let (saved, keys) = (next()?, next()?);
    let Object::List(keys_at) = keys.get(keys.root) else {
        return Err(Flaw::new("", "a list of storage keys", pickle::kind(keys.get(keys.root))));
    };
    let mut tensors = BTreeMap::new();
    for &(name, value) in dictionary(&saved)? {
        let Some(name) = saved.text(name) else { continue };
        if let Some(tensor) = tensor(&saved, name, value)? {
            tensors.insert(name.to_owned(), tensor);
        }
    }
    // All tensors of a storage tell its kind; the size of an element says where the next storage begins.
    let mut kinds: HashMap<&str, Kind> = HashMap::new();
    for (name, tensor) in &tensors {
        let known = *kinds.entry(tensor.key).or_insert(tensor.kind);
        if known != tensor.kind {
            let found = format!("{known:?} and {:?}", tensor.kind);
            return Err(Flaw::new(format!("tensor `{name}`"), "one type for a storage", found));
        }
    }
    let storages = storages(bytes, at, &saved, keys_at.iter().map(|&key| keys.text(key)))?;
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let entry = placed(&name, &tensor, &storages)?;
            Ok((name, entry))
        })
        .collect()
}

/// The entries of the dictionary that was saved, or of its entry `state_dict`.
fn dictionary(saved: &Pickle) -> Step<&[(At, At)]> {
    let of = |at: At| match saved.get(at) {
        Object::Dict(entries) => Some(&entries[..]),
        Object::Call(called, _, entries) if saved.global(*called) == Some("collections OrderedDict") => {
            Some(&entries[..])
        }
        _ => None,
    };
    let found =
        of(saved.root).ok_or_else(|| Flaw::new("", "a dictionary of tensors", pickle::kind(saved.get(saved.root))))?;
    let inner = found.iter().find(|(name, _)| saved.text(*name) == Some("state_dict"));
    Ok(inner.and_then(|&(_, value)| of(value)).unwrap_or(found))
}

/// What stands under a name, if that is a tensor.
fn tensor<'a>(saved: &'a Pickle, name: &str, at: At) -> Step<Option<Tensor<'a>>> {
    let Object::Call(called, arguments, _) = saved.get(at) else { return Ok(None) };
    let (mut called, mut arguments) = (*called, *arguments);
    if saved.global(called) == Some("torch._utils _rebuild_parameter") {
        let inner = saved.tuple(arguments).and_then(|items| items.first());
        let Some(Object::Call(of, with, _)) = inner.map(|&inner| saved.get(inner)) else { return Ok(None) };
        (called, arguments) = (*of, *with);
    }
    if saved.global(called) != Some("torch._utils _rebuild_tensor_v2") {
        return Ok(None);
    }
    let parts = || {
        let [storage, offset, shape, strides, ..] = saved.tuple(arguments)? else { return None };
        let Object::Persistent(storage) = saved.get(*storage) else { return None };
        let (kind, key) = storage_of(saved, *storage)?;
        Some(Tensor {
            key,
            kind,
            offset: saved.size(*offset)?,
            shape: saved.sizes(*shape)?,
            strides: saved.sizes(*strides)?,
        })
    };
    match parts() {
        Some(tensor) if tensor.shape.len() == tensor.strides.len() => Ok(Some(tensor)),
        _ => Err(Flaw::new(format!("tensor `{name}`"), "a storage, an offset, a shape and strides", "others")),
    }
}

/// Kind and key of a storage: `("storage", torch.FloatStorage, key, device, elements, view)`.
fn storage_of(saved: &Pickle, at: At) -> Option<(Kind, &str)> {
    let [word, class, key, ..] = saved.tuple(at)? else { return None };
    (saved.text(*word) == Some("storage")).then_some(())?;
    Some((element(saved.global(*class)?)?.0, saved.text(*key)?))
}

/// What a class of storages holds, and the bytes of an element.
fn element(class: &str) -> Option<(Kind, usize)> {
    Some(match class.strip_prefix("torch ")? {
        "HalfStorage" => (Kind::F16, 2),
        "BFloat16Storage" => (Kind::Bf16, 2),
        "FloatStorage" => (Kind::F32, 4),
        "DoubleStorage" => (Kind::F64, 8),
        "LongStorage" => (Kind::Other, 8),
        "IntStorage" => (Kind::Other, 4),
        "ShortStorage" => (Kind::Other, 2),
        "CharStorage" | "ByteStorage" | "BoolStorage" => (Kind::Other, 1),
        _ => return None,
    })
}

/// Where each storage lies: its first byte and its length in bytes.
fn storages<'a>(
    bytes: &[u8],
    mut at: usize,
    saved: &'a Pickle,
    keys: impl Iterator<Item = Option<&'a str>>,
) -> Step<HashMap<String, (usize, usize)>> {
    let mut each = HashMap::new();
    for object in &saved.objects {
        let Object::Persistent(of) = object else { continue };
        let Some([_, class, key, ..]) = saved.tuple(*of) else { continue };
        if let (Some(class), Some(key)) = (saved.global(*class), saved.text(*key)) {
            let Some((_, size)) = element(class) else {
                return Err(Flaw::new(format!("storage {key}"), "a storage of numbers", class));
            };
            each.insert(key, size);
        }
    }
    let mut found = HashMap::new();
    for key in keys {
        let key = key.ok_or_else(|| Flaw::new("", "texts as storage keys", "something else"))?;
        let place = || format!("byte {at}, storage {key}");
        let size = *each.get(key).ok_or_else(|| Flaw::new(place(), "a storage of a tensor", "one of none"))?;
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|count| i64::from_le_bytes(*count));
        let count = count.ok_or_else(|| Flaw::new(place(), "the number of its elements", "the end of the file"))?;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let length = length.filter(|&length| length <= bytes.len() - at - 8);
        let length = length.ok_or_else(|| {
            let found = format!("{} bytes", bytes.len() - at - 8);
            Flaw::new(place(), format!("{count} elements of {size} bytes"), found)
        })?;
        found.insert(key.to_owned(), (at + 8, length));
        at += 8 + length;
    }
    Ok(found)
}

/// The array in its storage, which must hold all of it.
fn placed(name: &str, tensor: &Tensor<'_>, storages: &HashMap<String, (usize, usize)>) -> Step<Entry> {
    let place = || format!("tensor `{name}`");
    let Some(&(start, length)) = storages.get(tensor.key) else {
        return Err(Flaw::new(place(), "a storage that is in the file", format!("storage {}", tensor.key)));
    };
    let last = || {
        let mut last = tensor.offset;
        for (&length, &stride) in tensor.shape.iter().zip(&tensor.strides) {
            last = last.checked_add(length.checked_sub(1)?.checked_mul(stride)?)?;
        }
        Some(last)
    };
    let empty = tensor.shape.contains(&0);
    let elements = length / tensor.kind.bytes();
    if !empty && tensor.kind != Kind::Other && last().is_none_or(|last| last >= elements) {
        let found = format!("one of {elements} elements");
        let expected = format!("a storage for shape {:?} with strides {:?}", tensor.shape, tensor.strides);
        return Err(Flaw::new(place(), expected, found));
    }
    let (shape, strides) = (tensor.shape.clone(), tensor.strides.clone());
    Ok(Entry { kind: tensor.kind, shape, strides, part: 0, start, length, offset: tensor.offset })
}
