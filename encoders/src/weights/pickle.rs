//! The part of Python's pickle that a checkpoint of tensors is written in, read without running anything.
//!
//! Objects lie in one list and name each other by their place in it, so that an object that is used twice is there once: what a file of `n`
//! bytes makes takes memory in proportion to `n`. A call (`REDUCE`) is kept as what it calls and with what; it is never made.

use super::Flaw;

/// Place of an object in [`Pickle::objects`].
pub(super) type At = usize;

/// An object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Object {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Tuple(Vec<At>),
    List(Vec<At>),
    Dict(Vec<(At, At)>),
    /// `module name`.
    Global(String),
    /// What is called, and with what tuple; entries that are set on the result, as on an `OrderedDict`.
    Call(At, At, Vec<(At, At)>),
    /// Something outside the pickle, known by an object.
    Persistent(At),
}

/// What a pickle holds.
pub(super) struct Pickle {
    pub objects: Vec<Object>,
    pub root: At,
    /// Bytes that it takes.
    pub length: usize,
}

/// A place on the stack: an object, or a mark.
type Slot = Option<At>;

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Slot>,
    memo: std::collections::HashMap<u32, At>,
}

type Step<T> = std::result::Result<T, Flaw>;

/// Reads the pickle that `bytes` begin with; `from` is where in the file that is, for messages.
pub(super) fn read(bytes: &[u8], from: usize) -> Step<Pickle> {
    let mut machine = Machine { bytes, at: 0, objects: Vec::new(), stack: Vec::new(), memo: Default::default() };
    match machine.run() {
        Ok(root) => Ok(Pickle { objects: machine.objects, root, length: machine.at }),
        Err((expected, found)) => Err(Flaw::new(format!("byte {}", from + machine.at), expected, found)),
    }
}

type Run<T> = std::result::Result<T, (&'static str, String)>;

impl Machine<'_> {
    fn run(&mut self) -> Run<At> {
        loop {
            match self.byte()? {
                0x80 => drop(self.byte()?),
                b'.' => return self.pop(),
                b'N' => self.push(Object::None),
                0x88 => self.push(Object::Bool(true)),
                0x89 => self.push(Object::Bool(false)),
                b'K' => {
                    let value = i64::from(self.byte()?);
                    self.push(Object::Int(value));
                }
                b'M' => {
                    let value = i64::from(u16::from_le_bytes(self.array()?));
                    self.push(Object::Int(value));
                }
                b'J' => {
                    let value = i64::from(i32::from_le_bytes(self.array()?));
                    self.push(Object::Int(value));
                }
                0x8a => self.long()?,
                b'G' => {
                    let value = f64::from_be_bytes(self.array()?);
                    self.push(Object::Float(value));
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.array()?) as usize;
                    let text = String::from_utf8_lossy(self.take(length)?).into_owned();
                    self.push(Object::Text(text));
                }
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.push(Object::Global(name));
                }
                b'(' => self.stack.push(None),
                b')' => self.push(Object::Tuple(Vec::new())),
                b']' => self.push(Object::List(Vec::new())),
                b'}' => self.push(Object::Dict(Vec::new())),
                b't' => {
                    let items = self.marked()?;
                    self.push(Object::Tuple(items));
                }
                op @ 0x85..=0x87 => {
                    let mut items = Vec::with_capacity(3);
                    (0..op - 0x84).try_for_each(|_| self.pop().map(|item| items.push(item)))?;
                    items.reverse();
                    self.push(Object::Tuple(items));
                }
                b'q' => {
                    let key = u32::from(self.byte()?);
                    self.remember(key)?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.remember(key)?;
                }
                b'h' => {
                    let key = u32::from(self.byte()?);
                    self.recall(key)?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.recall(key)?;
                }
                b'Q' => {
                    let known = self.pop()?;
                    self.push(Object::Persistent(known));
                }
                // A call, and the same for classes that make their objects themselves.
                b'R' | 0x81 => {
                    let (arguments, called) = (self.pop()?, self.pop()?);
                    self.push(Object::Call(called, arguments, Vec::new()));
                }
                // The state of an object: attributes, which no weight is among.
                b'b' => drop(self.pop()?),
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' => {
                    let items = self.marked()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.marked()?;
                    self.set(items)?;
                }
                other => return Err(("an instruction of a checkpoint of tensors", format!("0x{other:02x}"))),
            }
        }
    }

    fn byte(&mut self) -> Run<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Run<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were taken"))
    }

    fn take(&mut self, count: usize) -> Run<&[u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| ("more bytes", format!("{} of {count}", rest.len())))?;
        self.at += count;
        Ok(taken)
    }

    fn line(&mut self) -> Run<String> {
        let end = self.bytes[self.at..].iter().position(|&byte| byte == b'\n');
        let line = self.take(end.ok_or_else(|| ("the end of a line", "the end of the file".to_owned()))?)?;
        let text = String::from_utf8_lossy(line).into_owned();
        self.at += 1;
        Ok(text)
    }

    /// A whole number of so many bytes, the last of which has the sign. Longer ones are the file's own mark and no size.
    fn long(&mut self) -> Run<()> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let mut value = if bytes.last().is_some_and(|&last| last >= 0x80) { -1i64 } else { 0 };
        if length <= 8 {
            for &byte in bytes.iter().rev() {
                value = value << 8 | i64::from(byte);
            }
        } else {
            value = i64::MAX;
        }
        self.push(Object::Int(value));
        Ok(())
    }

    fn push(&mut self, object: Object) {
        self.stack.push(Some(self.objects.len()));
        self.objects.push(object);
    }

    fn top(&mut self) -> Run<At> {
        self.stack.last().copied().flatten().ok_or_else(|| ("an object on the stack", "none".to_owned()))
    }

    fn pop(&mut self) -> Run<At> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// The objects above the last mark.
    fn marked(&mut self) -> Run<Vec<At>> {
        let mark = self.stack.iter().rposition(Option::is_none).ok_or_else(|| ("a mark", "none".to_owned()))?;
        let items = self.stack.drain(mark..).flatten().collect();
        Ok(items)
    }

    fn remember(&mut self, key: u32) -> Run<()> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Run<()> {
        let known = self.memo.get(&key).copied();
        self.stack.push(Some(known.ok_or_else(|| ("an object that was remembered", format!("number {key}")))?));
        Ok(())
    }

    fn extend(&mut self, items: Vec<At>) -> Run<()> {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(list) => list.extend(items),
            other => return Err(("a list", kind(other).to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<At>) -> Run<()> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(("a value for every key", format!("{} objects", items.len())));
        }
        match &mut self.objects[top] {
            Object::Dict(entries) | Object::Call(_, _, entries) => {
                entries.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
            }
            other => return Err(("a dictionary", kind(other).to_owned())),
        }
        Ok(())
    }
}

impl Pickle {
    pub fn get(&self, at: At) -> &Object {
        &self.objects[at]
    }

    pub fn tuple(&self, at: At) -> Option<&[At]> {
        match self.get(at) {
            Object::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub fn text(&self, at: At) -> Option<&str> {
        match self.get(at) {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    pub fn global(&self, at: At) -> Option<&str> {
        match self.get(at) {
            Object::Global(name) => Some(name),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn size(&self, at: At) -> Option<usize> {
        match self.get(at) {
            Object::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// A tuple of whole numbers that are not negative.
    pub fn sizes(&self, at: At) -> Option<Vec<usize>> {
        self.tuple(at)?.iter().map(|&item| self.size(item)).collect()
    }
}

/// The name of an object's kind.
pub(super) fn kind(object: &Object) -> &'static str {
    match object {
        Object::None => "None",
        Object::Bool(_) => "a truth value",
        Object::Int(_) => "a whole number",
        Object::Float(_) => "a number",
        Object::Text(_) => "a text",
        Object::Tuple(_) => "a tuple",
        Object::List(_) => "a list",
        Object::Dict(_) => "a dictionary",
        Object::Global(_) => "a name",
        Object::Call(..) => "an object",
        Object::Persistent(_) => "a storage",
    }
}
