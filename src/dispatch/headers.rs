//! What Consort reads of a caller's headers.

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;

use crate::ensemble::Wishes;
use crate::limits::{CallerKey, KeySource};
use crate::upstream::Passed;

/// The longest id of a caller that is kept, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Whether an `x-request-id` may stand in logs and answers as it came.
pub fn is_request_id(id: &[u8]) -> bool {
    !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.iter().all(u8::is_ascii_graphic)
}

/// The head of a caller's request, as its door holds it. Names are in lower case.
pub trait Headers: Sync {
    /// The header's value; of several, the last one.
    fn value(&self, name: &str) -> Option<&[u8]>;

    /// Every header, in the order in which they came.
    fn each(&self) -> impl Iterator<Item = (&str, &[u8])>;

    /// The path without its query.
    fn path(&self) -> &str;

    /// What others on the way have found out about the request, as a text.
    fn metadata(&self, _namespace: &str, _path: &[String]) -> Option<String> {
        None
    }

    /// Who the caller is by a key of the door's own, which has taken its `authorization` off.
    fn admitted(&self) -> Option<&CallerKey> {
        None
    }

    /// Who the caller is to the limits; none where all callers share them.
    fn caller_key(&self, source: &KeySource) -> Option<CallerKey> {
        let key = match source {
            KeySource::Global => return None,
            KeySource::Header(name) if *name == AUTHORIZATION && self.admitted().is_some() => {
                self.admitted().cloned()
            }
            KeySource::Header(name) => self.value(name.as_str()).filter(|v| !v.is_empty()).map(CallerKey::of),
            KeySource::Metadata { namespace, path } => {
                self.metadata(namespace, path).map(|value| CallerKey::of(value.as_bytes()))
            }
        };
        Some(key.unwrap_or_else(CallerKey::anonymous))
    }

    /// What travels on to providers.
    fn passed(&self) -> Passed {
        let value = |name| self.value(name).and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
        let mut authorization = value("authorization");
        if let Some(secret) = &mut authorization {
            secret.set_sensitive(true);
        }
        Passed {
            request_id: value("x-request-id").filter(|id| is_request_id(id.as_bytes())),
            traceparent: value("traceparent"),
            tracestate: value("tracestate"),
            authorization,
        }
    }

    /// The caller's `x-request-id` where it [is one](is_request_id), or one made for it.
    fn request_id(&self) -> Arc<str> {
        match self.value("x-request-id").filter(|id| is_request_id(id)) {
            Some(id) => String::from_utf8_lossy(id).into(),
            None => format!("{:032x}", rand::random::<u128>()).into(),
        }
    }

    /// What the caller wants of an ensemble.
    fn wishes(&self) -> Wishes {
        if !self.each().any(|(name, _)| name.starts_with("x-ensemble-")) {
            return Wishes::default();
        }
        Wishes::read(|name| self.value(name).map(|value| String::from_utf8_lossy(value).into_owned()))
    }

    /// All headers by name, several values of one joined by `, `.
    fn by_name(&self) -> HashMap<String, String> {
        let mut headers = HashMap::<String, String>::new();
        for (name, value) in self.each() {
            let value = String::from_utf8_lossy(value);
            headers
                .entry(name.to_owned())
                .and_modify(|values| {
                    values.push_str(", ");
                    values.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
        headers
    }

    /// Whether the body is JSON by its type; one without a type may be.
    fn is_json(&self) -> bool {
        let Some(value) = self.value("content-type") else {
            return true;
        };
        let media =
            value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        media.strip_prefix(b"application/").is_some_and(|sub| sub == b"json" || sub.ends_with(b"+json"))
    }

    /// Whether the body can be read as it is, by every header that says something about it.
    fn is_plain(&self) -> bool {
        let encodings = self.each().filter(|(name, _)| *name == "content-encoding");
        let mut codings = encodings.flat_map(|(_, value)| value.split(|byte| *byte == b','));
        codings.all(|coding| matches!(&*coding.trim_ascii().to_ascii_lowercase(), b"" | b"identity"))
    }
}
