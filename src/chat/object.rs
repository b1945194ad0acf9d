//! A view over the bytes of a JSON object, and edits that share them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Body;
use super::error::JsonError;

/// How many members an object may have: each costs some ninety bytes to remember.
const MAX_MEMBERS: usize = 1024;

/// A JSON object kept as the bytes it was written in.
///
/// It is as strict as `serde_json`: what it accepts is one whole, valid object. Nothing is
/// rendered again, so unknown members, the order of keys and the spelling of numbers survive.
#[derive(Clone, Debug)]
pub struct RawObject {
    bytes: Bytes,
    /// Just behind the opening brace.
    open: usize,
    members: Vec<Span>,
}

/// Where a member lies in the bytes.
#[derive(Clone, Debug)]
struct Span {
    name: Box<str>,
    /// From the key's opening quote to the end of the value.
    whole: Range<usize>,
    /// Where the value begins; it ends with `whole`.
    value: usize,
}

/// Why bytes are no usable object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Not JSON, or JSON that is no object.
    #[error(transparent)]
    Syntax(#[from] JsonError),
    /// More members than any request has.
    #[error("more than {MAX_MEMBERS} keys")]
    TooMany,
    /// The meaning would depend on the parser.
    #[error("duplicate key {0:?}")]
    Duplicate(Box<str>),
}

impl RawObject {
    /// Reads the object that `bytes` are.
    ///
    /// # Errors
    /// When they are not exactly one JSON object in UTF-8, or it has more than 1,024 members, or a key comes
    /// twice: parsers
    /// differ in which one they take, so neither can be trusted.
    pub fn parse(bytes: Bytes) -> Result<Self, ObjectError> {
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let members = json.deserialize_map(Members(&bytes)).map_err(JsonError::from)?;
        json.end().map_err(JsonError::from)?;
        if members.len() > MAX_MEMBERS {
            return Err(ObjectError::TooMany);
        }
        let open = bytes.iter().position(|b| *b == b'{').map_or(0, |i| i + 1);
        match twice(&members) {
            Some(twice) => Err(ObjectError::Duplicate(twice.name.clone())),
            None => Ok(Self { bytes, open, members }),
        }
    }

    /// The JSON text of the member called `name` (after unescaping).
    pub fn raw(&self, name: &str) -> Option<&str> {
        let span = self.span(name)?;
        // serde_json has checked the value's UTF-8 while it read it.
        std::str::from_utf8(self.bytes.get(span.value..span.whole.end)?).ok()
    }

    /// The member called `name` as a `T`; `null` reads as absent.
    ///
    /// # Errors
    /// When the member is there and is no `T`.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        match self.raw(name) {
            None => Ok(None),
            Some(raw) => serde_json::from_str(raw),
        }
    }

    /// The names of all members, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|m| &*m.name)
    }

    /// The bytes as they came.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Starts an edited copy that shares the bytes that stay.
    pub fn edit(&self) -> Edit<'_> {
        Edit { object: self, changes: Vec::new() }
    }

    fn span(&self, name: &str) -> Option<&Span> {
        self.members.iter().find(|m| &*m.name == name)
    }
}

/// The first member whose name has been there before.
fn twice(members: &[Span]) -> Option<&Span> {
    // A few names are sooner compared than hashed.
    const FEW: usize = 16;
    if members.len() > FEW {
        let mut seen = HashSet::with_capacity(members.len());
        return members.iter().find(|member| !seen.insert(&*member.name));
    }
    let before = |at: usize| members.iter().take(at);
    members
        .iter()
        .enumerate()
        .find(|(at, one)| before(*at).any(|other| other.name == one.name))
        .map(|(_, one)| one)
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    // Serialising a text does not fail.
    serde_json::to_string(text).unwrap_or_default()
}

/// Changes to an object that are not applied yet.
#[derive(Debug)]
pub struct Edit<'a> {
    object: &'a RawObject,
    changes: Vec<(Cow<'a, str>, Change)>,
}

#[derive(Debug)]
enum Change {
    Remove,
    Set(Bytes),
    /// Array items put before the first and after the last one of a non-empty array.
    Wrap {
        before: Bytes,
        after: Bytes,
    },
}

impl<'a> Edit<'a> {
    /// Takes the member away, if it is there.
    #[must_use]
    pub fn remove(self, name: impl Into<Cow<'a, str>>) -> Self {
        self.change(name.into(), Change::Remove)
    }

    /// Gives the member this JSON text, in its place or at the end. The last change of a name wins.
    #[must_use]
    pub fn set(self, name: impl Into<Cow<'a, str>>, json: impl Into<Bytes>) -> Self {
        self.change(name.into(), Change::Set(json.into()))
    }

    /// Gives the member another name; its value keeps its bytes, and what was put around its items. Nothing changes
    /// where it is absent; where the other name is taken, the member that has it stays and this one goes.
    #[must_use]
    pub fn rename(mut self, from: impl Into<Cow<'a, str>>, to: impl Into<Cow<'a, str>>) -> Self {
        let (from, to) = (from.into(), to.into());
        if from == to {
            return self;
        }
        let changed = self.changes.iter().position(|(name, _)| *name == from);
        let value = match changed.map(|at| self.changes.remove(at).1) {
            Some(Change::Set(json)) => Some(json),
            Some(Change::Remove) => None,
            Some(Change::Wrap { before, after }) => self.object.span(&from).map(|span| {
                let mut out = Splice::new(&self.object.bytes);
                out.wrap(span.value..span.whole.end, &before, &after);
                out.finish().to_bytes()
            }),
            None => self.object.span(&from).map(|span| self.object.bytes.slice(span.value..span.whole.end)),
        };
        let is_taken = match self.changes.iter().find(|(name, _)| *name == to) {
            Some((_, Change::Set(_))) => true,
            Some((_, Change::Remove)) => false,
            Some((_, Change::Wrap { .. })) | None => self.object.span(&to).is_some(),
        };
        let without = self.remove(from);
        match value {
            Some(value) if !is_taken => without.set(to, value),
            _ => without,
        }
    }

    /// Puts JSON texts of array items (each possibly empty = none) around those of the member,
    /// which must be a non-empty array; otherwise nothing changes.
    #[must_use]
    pub fn wrap(self, name: impl Into<Cow<'a, str>>, before: Bytes, after: Bytes) -> Self {
        self.change(name.into(), Change::Wrap { before, after })
    }

    fn change(mut self, name: Cow<'a, str>, change: Change) -> Self {
        self.changes.retain(|(n, _)| *n != name);
        self.changes.push((name, change));
        self
    }

    /// The edited object, as slices of the old bytes with the changes between them.
    pub fn body(self) -> Body {
        let Self { object, changes } = self;
        let mut out = Splice::new(&object.bytes);
        let mut is_empty = true;
        let mut done = object.open;
        out.keep(0..done);
        for (i, span) in object.members.iter().enumerate() {
            let change = changes.iter().find(|(n, _)| **n == *span.name).map(|(_, c)| c);
            if !matches!(change, Some(Change::Remove)) {
                // What lies before a member holds the comma: unwanted when all before it went.
                let from = if is_empty && i > 0 { span.whole.start } else { done };
                out.keep(from..span.value);
                let value = span.value..span.whole.end;
                match change {
                    Some(Change::Set(json)) => out.insert(json.clone()),
                    Some(Change::Wrap { before, after }) => out.wrap(value, before, after),
                    Some(Change::Remove) | None => out.keep(value),
                }
                is_empty = false;
            }
            done = span.whole.end;
        }
        for (name, change) in &changes {
            if let (Change::Set(json), None) = (change, object.span(name)) {
                let comma = if is_empty { "" } else { "," };
                let key = serde_json::Value::from(&**name);
                out.insert(Bytes::from(format!("{comma}{key}:")));
                out.insert(json.clone());
                is_empty = false;
            }
        }
        out.keep(done..object.bytes.len());
        out.finish()
    }
}

/// Collects slices, joining those that touch.
struct Splice<'a> {
    bytes: &'a Bytes,
    chunks: Vec<Bytes>,
    pending: Range<usize>,
}

impl<'a> Splice<'a> {
    fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, chunks: Vec::with_capacity(8), pending: 0..0 }
    }

    fn keep(&mut self, range: Range<usize>) {
        if range.start == self.pending.end {
            self.pending.end = range.end;
        } else {
            self.flush();
            self.pending = range;
        }
    }

    fn insert(&mut self, json: Bytes) {
        self.flush();
        if !json.is_empty() {
            self.chunks.push(json);
        }
    }

    fn wrap(&mut self, array: Range<usize>, before: &Bytes, after: &Bytes) {
        let inner = array.start + 1..array.end.saturating_sub(1);
        let is_full =
            self.bytes.get(inner.clone()).is_some_and(|items| items.iter().any(|b| !b.is_ascii_whitespace()));
        if !is_full || self.bytes.get(array.start) != Some(&b'[') {
            return self.keep(array);
        }
        self.keep(array.start..inner.start);
        if !before.is_empty() {
            self.insert(before.clone());
            self.insert(Bytes::from_static(b","));
        }
        self.keep(inner.clone());
        if !after.is_empty() {
            self.insert(Bytes::from_static(b","));
            self.insert(after.clone());
        }
        self.keep(inner.end..array.end);
    }

    fn flush(&mut self) {
        let range = std::mem::replace(&mut self.pending, 0..0);
        if !range.is_empty() {
            self.chunks.push(self.bytes.slice(range));
        }
    }

    fn finish(mut self) -> Body {
        self.flush();
        Body::from_chunks(self.chunks)
    }
}

/// Reads where the members of an object lie.
struct Members<'a>(&'a [u8]);

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<Span>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(16);
        let mut end = 0;
        // One past the bound is enough to know; the rest is only checked.
        while members.len() <= MAX_MEMBERS
            && let Some(Name(name)) = map.next_key()?
        {
            let value: &RawValue = map.next_value()?;
            // A borrowed raw value is a slice of the bytes being read.
            let start = value.get().as_ptr() as usize - self.0.as_ptr() as usize;
            let gap = self.0.get(end..start).unwrap_or_default();
            let key = end + memchr::memchr(b'"', gap).unwrap_or_default();
            end = start + value.get().len();
            members.push(Span { name, whole: key..end, value: start });
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(members)
    }
}

/// An unescaped key.
struct Name(Box<str>);

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<str>::deserialize(deserializer).map(Name)
    }
}

#[cfg(test)]
mod tests;
