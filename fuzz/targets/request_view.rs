//! The view over a caller's request, beside serde_json: JSON, and behind a NUL what is to be done to it.

#![no_main]

use std::collections::HashSet;
use std::fmt;

use bytes::Bytes;
use consort::chat::{Edit, ModelScan, ObjectError, RawObject, Request, Scan};
use consort_fuzz::cuts;
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The members of an object, in order, the same key as often as it comes.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

fn members(json: &[u8]) -> Option<Vec<(String, Value)>> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let members = json.deserialize_map(Members).ok()?;
    json.end().ok()?;
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
    let expected = match members.iter().find(|(key, _)| key == "model") {
        Some((_, Value::String(model))) => Scan::Model(model.clone()),
        _ => Scan::None,
    };
    // A name that is longer than any alias is none.
    assert!(whole == expected || json.len() > 4096, "{whole:?} where serde_json has {expected:?}");
}

const NAMES: [&str; 6] = ["model", "stream", "messages", "x", "", "\u{e9}\""];
const VALUES: [&str; 5] = ["null", "0.70", "\"a\"", "[1,{}]", "{\"k\":[]}"];

/// What is done to an object: its bytes, and the parsed value.
struct Twin<'a> {
    edit: Edit<'a>,
    value: Map<String, Value>,
}

impl<'a> Twin<'a> {
    fn changed(self, op: [u8; 3], names: &[&'a str], original: &Map<String, Value>) -> Self {
        let Self { edit, mut value } = self;
        let of = |at: u8| -> &'a str {
            let at = usize::from(at) % (names.len() + NAMES.len());
            names.get(at).copied().unwrap_or_else(|| NAMES[at - names.len()])
        };
        let [what, which, how] = op;
        let (name, json) = (of(which), VALUES[usize::from(how) % VALUES.len()]);
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
        Self { edit, value }
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
        let is_clear = members.iter().flatten().all(|(key, _)| !is_other(key));
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
    let is_twice = members.iter().any(|(key, _)| !keys.insert(key));
    let view = match view {
        Ok(view) => view,
        Err(ObjectError::Duplicate(key)) => return assert!(is_twice && keys.contains(&key.to_string())),
        Err(ObjectError::TooMany) => return assert!(members.len() > 1024),
        Err(error) => panic!("serde_json reads what the view does not: {error}"),
    };
    assert!(!is_twice, "a key that comes twice is taken once");
    assert!(view.names().eq(members.iter().map(|(key, _)| key)), "the names differ");
    for (key, value) in &members {
        let raw = view.raw(key).expect("it has the member");
        assert_eq!(&serde_json::from_str::<Value>(raw).expect("it is JSON"), value);
        assert_eq!(
            view.read::<Value>(key).expect("it is JSON"),
            Some(value.clone()).filter(|v| !v.is_null())
        );
    }
    assert_eq!(view.edit().body().to_bytes(), json, "what is not changed keeps its bytes");
    let original: Map<String, Value> = members.into_iter().collect();
    let names: Vec<&str> = view.names().collect();
    let mut twin = Twin { edit: view.edit(), value: original.clone() };
    for op in ops.chunks_exact(3).take(8) {
        twin = twin.changed([op[0], op[1], op[2]], &names, &original);
    }
    let body = twin.edit.body().to_bytes();
    let edited: Map<String, Value> = serde_json::from_slice(&body).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&body));
    });
    assert_eq!(edited, twin.value, "{}", String::from_utf8_lossy(&body));
});
