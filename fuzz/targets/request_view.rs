//! The view over a caller's request, beside serde_json: JSON, and behind a NUL what is to be done to it.

#![no_main]

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use consort::chat::{Edit, ModelScan, ObjectError, RawObject, Request, Scan};
use consort_fuzz::cuts;
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The longest model name that is looked at, as it is written: no alias is longer.
const LONGEST_MODEL: usize = 4096;

/// A member of an object.
struct Member<'de> {
    key: String,
    value: Value,
    /// The value as it is written.
    raw: &'de str,
    /// The same from the key's opening quote on.
    whole: &'de [u8],
}

/// The members of an object in these bytes, in order, the same key as often as it comes.
struct Members<'de>(&'de [u8]);

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        let mut end = 0;
        while let Some(key) = map.next_key()? {
            let value: &RawValue = map.next_value()?;
            let raw = value.get();
            let start = raw.as_ptr() as usize - self.0.as_ptr() as usize;
            let quote = self.0[end..start].iter().position(|byte| *byte == b'"').expect("a key has one");
            let whole = &self.0[end + quote..start + raw.len()];
            end = start + raw.len();
            let value = serde_json::from_str(raw).map_err(A::Error::custom)?;
            members.push(Member { key, value, raw, whole });
        }
        Ok(members)
    }
}

fn members(json: &[u8]) -> Option<Vec<Member<'_>>> {
    let mut read = serde_json::Deserializer::from_slice(json);
    let members = read.deserialize_map(Members(json)).ok()?;
    read.end().ok()?;
    Some(members)
}

fn scanned(pieces: &[&[u8]]) -> Scan {
    let mut scan = ModelScan::default();
    pieces.iter().map(|piece| scan.feed(piece)).find(|found| *found != Scan::More).unwrap_or(Scan::More)
}

/// The first model, beyond which a scan does not look. A byte order mark hides nothing from it, as from some parsers.
fn check_scan(json: &[u8]) {
    let whole = scanned(&[json]);
    for pieces in cuts(json) {
        assert_eq!(scanned(&pieces), whole, "{pieces:?}");
    }
    let Some(members) = members(json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)) else { return };
    let expected = match members.iter().find(|member| member.key == "model") {
        Some(Member { value: Value::String(model), raw, .. })
            if raw.len() - "\"\"".len() <= LONGEST_MODEL =>
        {
            Scan::Model(model.clone())
        }
        _ => Scan::None,
    };
    assert_eq!(whole, expected);
}

const NAMES: [&str; 6] = ["model", "stream", "messages", "x", "", "\u{e9}\""];
const VALUES: [&str; 5] = ["null", "0.70", "\"a\"", "[1,{}]", "{\"k\":[]}"];

/// What is done to an object: its bytes, and the parsed value; and which names that was about.
struct Twin<'a> {
    edit: Edit<'a>,
    value: Map<String, Value>,
    touched: HashSet<&'a str>,
}

impl<'a> Twin<'a> {
    fn changed(self, op: [u8; 3], names: &[&'a str], original: &Map<String, Value>) -> Self {
        let Self { edit, mut value, mut touched } = self;
        let of = |at: u8| -> &'a str {
            let at = usize::from(at) % (names.len() + NAMES.len());
            names.get(at).copied().unwrap_or_else(|| NAMES[at - names.len()])
        };
        let [what, which, how] = op;
        let (name, json) = (of(which), VALUES[usize::from(how) % VALUES.len()]);
        touched.insert(name);
        let parsed: Value = serde_json::from_str(json).expect("it is JSON");
        let edit = match what % 4 {
            0 => {
                value.shift_remove(name);
                edit.remove(name)
            }
            1 => {
                value.insert(name.to_owned(), parsed);
                edit.set(name, json)
            }
            2 => {
                let to = of(how);
                touched.insert(to);
                if name != to
                    && let Some(moved) = value.shift_remove(name)
                    && !value.contains_key(to)
                {
                    value.insert(to.to_owned(), moved);
                }
                edit.rename(name, to)
            }
            _ => {
                // Of what was done to a member, its wrapping is the last: it is that of the original.
                match original.get(name) {
                    Some(Value::Array(items)) if !items.is_empty() => {
                        let mut items = items.clone();
                        items.insert(0, parsed.clone());
                        items.push(parsed);
                        value.insert(name.to_owned(), items.into());
                    }
                    Some(other) => {
                        value.insert(name.to_owned(), other.clone());
                    }
                    None => {
                        value.shift_remove(name);
                    }
                }
                edit.wrap(name, Bytes::from(json), Bytes::from(json))
            }
        };
        Self { edit, value, touched }
    }
}

fuzz_target!(|data: &[u8]| {
    let (json, ops) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    let members = members(json);
    check_scan(json);
    let view = RawObject::parse(Bytes::copy_from_slice(json));
    // Neither may anything panic that reads a request.
    if let Ok(request) = Request::parse_for_any(Bytes::copy_from_slice(json)) {
        let _ = (request.tools(), request.conversation(), request.check_supported());
        let is_other = |key: &str| key != "model" && key.eq_ignore_ascii_case("model");
        let is_clear = members.iter().flatten().all(|member| !is_other(&member.key));
        assert!(is_clear, "a request is taken that has two readings");
    }
    let Some(members) = members else {
        // The view looks less closely at values: at numbers out of range, halves of characters, depth.
        if view.is_ok() {
            assert!(serde_json::from_slice::<IgnoredAny>(json).is_ok() && std::str::from_utf8(json).is_ok());
        }
        return;
    };
    let mut keys = HashSet::new();
    let is_twice = members.iter().any(|member| !keys.insert(&member.key));
    let view = match view {
        Ok(view) => view,
        Err(ObjectError::Duplicate(key)) => return assert!(is_twice && keys.contains(&key.to_string())),
        Err(ObjectError::TooMany) => return assert!(members.len() > 1024),
        Err(error) => panic!("serde_json reads what the view does not: {error}"),
    };
    assert!(!is_twice, "a key that comes twice is taken once");
    assert!(view.names().eq(members.iter().map(|member| &member.key)), "the names differ");
    for Member { key, value, raw, .. } in &members {
        assert_eq!(view.raw(key), Some(*raw));
        assert_eq!(
            view.read::<Value>(key).expect("it is JSON"),
            Some(value.clone()).filter(|v| !v.is_null())
        );
    }
    assert_eq!(view.edit().body().to_bytes(), json, "what is not changed keeps its bytes");
    let original: Map<String, Value> =
        members.iter().map(|member| (member.key.clone(), member.value.clone())).collect();
    let names: Vec<&str> = view.names().collect();
    let mut twin = Twin { edit: view.edit(), value: original.clone(), touched: HashSet::new() };
    for op in ops.chunks_exact(3).take(8) {
        twin = twin.changed([op[0], op[1], op[2]], &names, &original);
    }
    let body = twin.edit.body().to_bytes();
    let shown = String::from_utf8_lossy(&body);
    let edited = self::members(&body).unwrap_or_else(|| panic!("no object: {shown}"));
    // Nobody wrote these again: the spelling of their keys and numbers, and their order, are the caller's.
    let untouched = |members: &[Member<'_>]| -> Vec<Vec<u8>> {
        let of_them = members.iter().filter(|member| !twin.touched.contains(&*member.key));
        of_them.map(|member| member.whole.to_vec()).collect()
    };
    assert_eq!(untouched(&edited), untouched(&members), "{shown}");
    let values: Map<String, Value> =
        edited.iter().map(|member| (member.key.clone(), member.value.clone())).collect();
    assert_eq!(values.len(), edited.len(), "a key comes twice: {shown}");
    assert_eq!(values, twin.value, "{shown}");
});
