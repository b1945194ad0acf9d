//! What Consort reads of a caller's headers.

use std::sync::Arc;

use http::HeaderValue;

use super::pb;
use crate::upstream::Passed;

/// What Consort reads of a caller's headers.
#[derive(Clone, Debug, Default)]
pub(super) struct RequestHead {
    method: String,
    path: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    /// What travels on to providers.
    pub(super) passed: Arc<Passed>,
}

impl RequestHead {
    pub(super) fn read(headers: &pb::HttpHeaders) -> Self {
        let mut head = Self::default();
        let mut passed = Passed::default();
        for header in headers.headers.iter().flat_map(|map| &map.headers) {
            // Envoy fills one of the two, by its own setting.
            let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
            let text = || Some(String::from_utf8_lossy(bytes).into_owned());
            let value = || HeaderValue::from_bytes(bytes).ok();
            match header.key.as_str() {
                ":method" => head.method = text().unwrap_or_default(),
                ":path" => head.path = text().unwrap_or_default(),
                "content-type" => head.content_type = text(),
                "content-encoding" => head.content_encoding = text(),
                "x-request-id" => passed.request_id = value(),
                "traceparent" => passed.traceparent = value(),
                "tracestate" => passed.tracestate = value(),
                "authorization" => {
                    passed.authorization = value().map(|mut secret| {
                        secret.set_sensitive(true);
                        secret
                    });
                }
                _ => {}
            }
        }
        head.passed = Arc::new(passed);
        head
    }

    /// The caller's `x-request-id`, or one made for it.
    pub(super) fn request_id(&self) -> Arc<str> {
        match self.passed.request_id.as_ref().filter(|id| !id.is_empty()) {
            Some(id) => String::from_utf8_lossy(id.as_bytes()).into(),
            None => format!("{:032x}", rand::random::<u128>()).into(),
        }
    }

    /// Whether the body may be a chat-completions request that Consort can read: JSON, not encoded.
    pub(super) fn may_be_chat(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let is_plain = self.content_encoding.as_deref().is_none_or(|e| e.eq_ignore_ascii_case("identity"));
        self.method == "POST" && path.ends_with("/chat/completions") && is_plain && self.is_json()
    }

    fn is_json(&self) -> bool {
        self.content_type.as_deref().is_none_or(|value| {
            let media = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
            media.strip_prefix("application/").is_some_and(|sub| sub == "json" || sub.ends_with("+json"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pairs: &[(&str, &str)]) -> RequestHead {
        let headers = pairs
            .iter()
            .map(|(k, v)| pb::HeaderValue {
                key: (*k).to_owned(),
                raw_value: v.as_bytes().to_vec(),
                ..pb::HeaderValue::default()
            })
            .collect();
        RequestHead::read(&pb::HttpHeaders {
            headers: Some(pb::HeaderMap { headers }),
            ..pb::HttpHeaders::default()
        })
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
        assert!(!with(
            "POST",
            "/v1/chat/completions",
            &[("content-type", "multipart/form-data; boundary=x")]
        ));
    }

    #[test]
    fn what_travels_on_is_read_and_the_credential_is_marked() {
        let head = head(&[
            ("x-request-id", "r"),
            ("traceparent", "t"),
            ("tracestate", "s"),
            ("authorization", "Bearer k"),
        ]);
        assert_eq!(head.passed.request_id.as_ref().unwrap(), "r");
        assert_eq!(
            (head.passed.traceparent.as_ref().unwrap(), head.passed.tracestate.as_ref().unwrap()),
            (&HeaderValue::from_static("t"), &HeaderValue::from_static("s"))
        );
        assert!(head.passed.authorization.as_ref().unwrap().is_sensitive());
        assert!(!format!("{head:?}").contains("Bearer"));
    }
}
