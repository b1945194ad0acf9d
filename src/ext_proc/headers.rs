//! A caller's headers, as Envoy tells them.

use std::fmt;

use super::pb;
use crate::dispatch::Headers;

/// A caller's headers, as Envoy tells them. Nothing is read of them before it is wanted: most
/// requests pass.
#[derive(Default)]
pub(super) struct RequestHead {
    headers: Vec<pb::HeaderValue>,
    /// What Envoy's other filters have found out about the request.
    metadata: pb::Metadata,
}

impl From<pb::HttpHeaders> for RequestHead {
    fn from(headers: pb::HttpHeaders) -> Self {
        Self { headers: headers.headers.unwrap_or_default().headers, metadata: pb::Metadata::default() }
    }
}

/// A header's value. Envoy fills one of the two, by its own setting.
pub(super) fn value(header: &pb::HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

impl RequestHead {
    /// With what Envoy forwards of its dynamic metadata.
    pub(super) fn with_metadata(self, metadata: Option<pb::Metadata>) -> Self {
        Self { metadata: metadata.unwrap_or_default(), ..self }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Whether the caller has said how long the body is.
    pub(super) fn tells_length(&self) -> bool {
        self.value("content-length").is_some()
    }

    /// How long the caller says that the body is, in bytes; 0 where it does not.
    pub(super) fn length(&self) -> usize {
        self.text("content-length").and_then(|length| length.parse().ok()).unwrap_or_default()
    }

    /// Whether the body may be a chat-completions request that Consort can read: JSON, not encoded.
    pub(super) fn may_be_chat(&self) -> bool {
        self.text(":method") == Some("POST")
            && self.path().ends_with("/chat/completions")
            && self.is_plain()
            && self.is_json()
    }
}

impl Headers for RequestHead {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().rfind(|header| header.key == name).map(value)
    }

    fn each(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|header| (&*header.key, value(header)))
    }

    fn path(&self) -> &str {
        self.text(":path").and_then(|path| path.split('?').next()).unwrap_or_default()
    }

    /// A text, number or truth value of the dynamic metadata.
    fn metadata(&self, namespace: &str, path: &[String]) -> Option<String> {
        let mut fields = self.metadata.filter_metadata.get(namespace)?;
        let (last, way) = path.split_last()?;
        for key in way {
            fields = match fields.fields.get(key)?.kind.as_ref()? {
                pb::Kind::StructValue(fields) => fields,
                _ => return None,
            };
        }
        match fields.fields.get(last)?.kind.as_ref()? {
            pb::Kind::StringValue(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            pb::Kind::NumberValue(number) => Some(number.to_string()),
            pb::Kind::BoolValue(truth) => Some(truth.to_string()),
            _ => None,
        }
    }
}

/// Without values: one of them is a credential.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.headers.iter().map(|header| &header.key)).finish()
    }
}

/// Headers as Envoy tells them.
#[cfg(test)]
pub(super) fn told(fields: &[(&str, &str)]) -> pb::HttpHeaders {
    let header = |(key, value): &(&str, &str)| pb::HeaderValue {
        key: (*key).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..pb::HeaderValue::default()
    };
    let headers = fields.iter().map(header).collect();
    pb::HttpHeaders { headers: Some(pb::HeaderMap { headers }), ..pb::HttpHeaders::default() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::ensemble::Wishes;
    use crate::limits::{CallerKey, KeySource};

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        told(fields).into()
    }

    #[test]
    fn only_plain_json_posts_to_chat_completions_are_looked_into() {
        let with = |method, path, more: &[(&str, &str)]| {
            head(&[&[(":method", method), (":path", path)], more].concat()).may_be_chat()
        };
        assert!(with("POST", "/v1/chat/completions", &[]));
        assert!(with(
            "POST",
            "/openai/v1/chat/completions?x=1",
            &[("content-type", "application/json; charset=utf-8")]
        ));
        assert!(with(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "application/vnd.x+JSON"), ("content-encoding", "identity")]
        ));
        assert!(!with("GET", "/v1/chat/completions", &[]));
        assert!(!with("POST", "/v1/embeddings", &[]));
        assert!(!with("POST", "/v1/chat/completions/abc", &[]));
        assert!(!with("POST", "/v1/chat/completions", &[("content-encoding", "gzip")]));
        for (encodings, is_read) in [
            (&["identity, Identity"][..], true),
            (&[""], true),
            (&["identity", "identity"], true),
            (&["gzip", "identity"], false),
            (&["identity", "gzip"], false),
            (&["identity, gzip"], false),
        ] {
            let headers: Vec<_> = encodings.iter().map(|value| ("content-encoding", *value)).collect();
            assert_eq!(with("POST", "/v1/chat/completions", &headers), is_read, "{encodings:?}");
        }
        assert!(!with(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "multipart/form-data; boundary=x")]
        ));
    }

    #[test]
    fn headers_are_found_by_name_and_several_values_are_joined() {
        let head = head(&[
            (":path", "/v1/chat/completions?key=1"),
            ("x-tag", "a"),
            ("x-ensemble-strategy", "vote"),
            ("x-tag", "b"),
            ("x-ensemble-strategy", "first"),
        ]);
        let headers = head.by_name();
        assert_eq!((&*headers["x-tag"], headers.len()), ("a, b", 3));
        assert_eq!(head.path(), "/v1/chat/completions");
        assert_eq!(head.wishes(), Wishes { strategy: Some("first".to_owned()), ..Wishes::default() });
        assert!(!head.tells_length());
    }

    #[test]
    fn a_caller_is_known_by_a_header_or_by_what_another_filter_has_found_out() {
        let object = |fields: Vec<(&str, pb::Kind)>| pb::Struct {
            fields: fields.into_iter().map(|(k, v)| (k.to_owned(), pb::Value { kind: Some(v) })).collect(),
        };
        let text = |text: &str| pb::Kind::StringValue(text.to_owned());
        let payload =
            object(vec![("sub", text("ann")), ("org", pb::Kind::NumberValue(7.0)), ("none", text(""))]);
        let jwt = object(vec![("payload", pb::Kind::StructValue(payload))]);
        let metadata =
            pb::Metadata { filter_metadata: [("jwt".to_owned(), jwt)].into(), ..pb::Metadata::default() };
        let head = head(&[("x-api-key", "k"), ("x-empty", "")]).with_metadata(Some(metadata));
        let header = |name| head.caller_key(&KeySource::Header(http::HeaderName::from_static(name)));
        assert_eq!(header("x-api-key"), Some(CallerKey::of(b"k")));
        assert_eq!(
            (header("x-other"), header("x-empty")),
            (Some(CallerKey::anonymous()), Some(CallerKey::anonymous()))
        );
        let claim = |namespace: &str, path: &[&str]| {
            let path = path.iter().map(|key| (*key).to_owned()).collect();
            head.caller_key(&KeySource::Metadata { namespace: namespace.to_owned(), path }).unwrap()
        };
        assert_eq!(claim("jwt", &["payload", "sub"]), CallerKey::of(b"ann"));
        assert_eq!(claim("jwt", &["payload", "org"]), CallerKey::of(b"7"));
        for (namespace, path) in [
            ("jwt", &["payload"][..]),
            ("jwt", &["payload", "sub", "x"]),
            ("jwt", &["payload", "none"]),
            ("x", &["sub"]),
        ] {
            assert_eq!(claim(namespace, path), CallerKey::anonymous(), "{namespace} {path:?}");
        }
        assert_eq!(head.caller_key(&KeySource::Global), None);
    }

    #[test]
    fn an_id_of_the_bound_is_kept_and_a_longer_one_is_none() {
        for (bytes, is_kept) in [(128, true), (129, false)] {
            let id = "x".repeat(bytes);
            let head = head(&[("x-request-id", &id)]);
            assert_eq!((*head.request_id() == *id, head.passed().request_id.is_some()), (is_kept, is_kept));
        }
    }

    #[test]
    fn what_travels_on_is_read_and_the_credential_is_marked() {
        let head = head(&[
            ("x-request-id", "r"),
            ("traceparent", "t"),
            ("tracestate", "s"),
            ("authorization", "Bearer k"),
        ]);
        let passed = head.passed();
        assert_eq!(passed.request_id.as_ref().unwrap(), "r");
        assert_eq!(
            (passed.traceparent.as_ref().unwrap(), passed.tracestate.as_ref().unwrap()),
            (&HeaderValue::from_static("t"), &HeaderValue::from_static("s"))
        );
        assert!(passed.authorization.as_ref().unwrap().is_sensitive());
        assert!(!format!("{head:?}").contains("Bearer"));
    }
}
