//! What is the same for all wire formats: headers, credentials, statuses, and the reading of bodies.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use serde::Deserialize;

use super::super::client::Reader;
use super::super::{Call, Credential, Events, Failure, Provider};
use super::{Listener, Refusal, Spoken, Stage};
use crate::chat::{Body, Event, sse};
use crate::signing::{self, Secrets};
use crate::telemetry::Attempts;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("consort/", env!("CARGO_PKG_VERSION")));
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MARKER: HeaderName = HeaderName::from_static(signing::MARKER);
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// OpenAI's finer `retry-after`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// How long the usage of a message that has ended is waited for.
const AFTER_FINISH: Duration = Duration::from_secs(2);
/// An error's text is read up to here; what is longer tells a caller nothing more.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Sends a request and reads its answer.
pub(super) async fn ask(call: &Call, spoken: Spoken) -> Result<Events, Failure> {
    let provider = &call.model.provider;
    let Spoken { uri, headers, body, mut listener } = spoken;
    let mut request = request(call, provider, uri, body);
    request.headers_mut().extend(headers);
    let response = provider.client.send(request).await?;
    let (head, reader) = response.into_parts();
    if !head.status.is_success() {
        let body = beginning(reader).await;
        let Refusal { status, error, retry_after: told } = listener.refusal(head.status, &body);
        return Err(Failure::Status { status, error, retry_after: retry_after(&head.headers).or(told) });
    }
    // A provider that cannot stream answers in one piece; that is an answer, too.
    if call.stream && is_event_stream(&head.headers) {
        let max_event_bytes = provider.client.max_event_bytes();
        return Ok(streamed(reader, max_event_bytes, listener, Arc::clone(&call.attempts)));
    }
    let body = reader.collect().await?;
    if let Some(trace) = call.attempts.trace()
        && let Some(model) = answering(&body)
    {
        trace.answered_by(model);
    }
    let events = listener.whole(&body)?;
    Ok(stream::iter(events.into_iter().map(Ok)).boxed())
}

/// `path` and `query` below a base URL.
pub(super) fn endpoint(base: &Uri, path: &str, query: Option<&str>) -> Result<Uri, Failure> {
    let read = || {
        let mut parts = base.clone().into_parts();
        let (base, mark, query) =
            (base.path().trim_end_matches('/'), if query.is_some() { "?" } else { "" }, query.unwrap_or(""));
        parts.path_and_query = Some(format!("{base}{path}{mark}{query}").parse()?);
        Ok::<_, http::Error>(Uri::from_parts(parts)?)
    };
    read().map_err(|e| Failure::Connect(e.into()))
}

/// A model's name as a segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                segment.push(byte.into());
            }
            byte => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

fn request(call: &Call, provider: &Provider, uri: Uri, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, if call.stream { EVENT_STREAM } else { JSON });
    headers.insert(USER_AGENT, AGENT);
    let credential = match &provider.credential {
        Credential::None => None,
        Credential::Fixed { name, value } => Some((name.clone(), value)),
        Credential::Passthrough => call.passed.authorization.as_ref().map(|value| (AUTHORIZATION, value)),
    };
    let passed = [
        (REQUEST_ID, call.passed.request_id.as_ref()),
        (TRACEPARENT, call.passed.traceparent.as_ref()),
        (TRACESTATE, call.passed.tracestate.as_ref()),
    ];
    let passed = passed.into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in credential.into_iter().chain(passed) {
        headers.insert(name, value.clone());
    }
    if let Some(value) = call.model.marker.as_ref().and_then(|secrets| marker(secrets, request.body())) {
        request.headers_mut().insert(MARKER, value);
    }
    request
}

/// By which Consort knows the call for its own when it comes back: for this body, so that each attempt has another.
fn marker(secrets: &Secrets, body: &Body) -> Option<HeaderValue> {
    let text =
        signing::marker::issue(signing::digest(body.chunks().map(AsRef::as_ref)), secrets, signing::now())?;
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

fn streamed(reader: Reader, max_event_bytes: usize, listener: Listener, attempts: Arc<Attempts>) -> Events {
    let is_named = attempts.trace().is_none();
    let decoder = Some(sse::Decoder::new(max_event_bytes));
    let mut hearing = Hearing { reader, decoder, listener, attempts, is_named };
    let events = async_stream::stream! {
        loop {
            match hearing.next().await {
                Ok(Some(said)) => {
                    for event in said {
                        yield Ok(event);
                    }
                }
                Ok(None) => return,
                // What broke off is billed nevertheless.
                Err(failure) => {
                    if let Some(cost) = hearing.listener.cost_so_far() {
                        yield Ok(cost);
                    }
                    yield Err(failure);
                    return;
                }
            }
        }
    };
    events.boxed()
}

/// A streamed answer, heard event by event.
struct Hearing {
    reader: Reader,
    /// None when everything was heard.
    decoder: Option<sse::Decoder>,
    listener: Listener,
    attempts: Arc<Attempts>,
    /// Whether it is known, or of no interest, which model answers.
    is_named: bool,
}

impl Hearing {
    /// What is said next; none at the end.
    async fn next(&mut self) -> Result<Option<Vec<Event>>, Failure> {
        loop {
            let Some(decoder) = &mut self.decoder else {
                return Ok(None);
            };
            if self.listener.stage() == Stage::Done {
                self.decoder = None;
                // The end of the body is here already, as a rule: seeing it frees the connection for reuse.
                let _end = self.reader.next().now_or_never();
                return self.listener.end().map(Some);
            }
            if let Some(data) = decoder.next_event() {
                if data.trim_ascii().is_empty() {
                    continue;
                }
                if !self.is_named
                    && let Some(model) = answering(&data)
                {
                    self.is_named = true;
                    self.attempts.trace().inspect(|trace| trace.answered_by(model));
                }
                match self.listener.hear(&data) {
                    Ok(said) => return Ok(Some(said)),
                    // The message is whole: what breaks now breaks nothing.
                    Err(_) if self.listener.stage() != Stage::Speaking => continue,
                    Err(failure) => return Err(failure),
                }
            }
            match next(&mut self.reader, self.listener.stage()).await? {
                Some(piece) => decoder.feed(&piece).map_err(|e| Failure::Unreadable(e.into()))?,
                None => return self.last().map(Some),
            }
        }
    }

    /// What the end of the body says. The last event may lack its closing blank line; one cut in the middle is none.
    fn last(&mut self) -> Result<Vec<Event>, Failure> {
        let rest = self.decoder.take().map_or(Ok(None), sse::Decoder::finish);
        let mut said = match rest.map_err(|e| Failure::Unreadable(e.into()))? {
            Some(data) => self.listener.hear(&data).unwrap_or_default(),
            None => Vec::new(),
        };
        said.extend(self.listener.end()?);
        Ok(said)
    }
}

/// The model that says that it answers, in the words of any of the formats: it may be a dated version of what was
/// asked for.
fn answering(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        model: Option<String>,
        model_version: Option<String>,
        message: Option<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        model: Option<String>,
    }
    let Answer { model, model_version, message } = serde_json::from_slice(json).ok()?;
    model.or(model_version).or_else(|| message?.model).filter(|model| !model.is_empty())
}

/// The next piece of a stream. Once its message has ended only its usage may still come: it is waited
/// for a little, and what breaks then breaks nothing.
async fn next(reader: &mut Reader, stage: Stage) -> Result<Option<Bytes>, Failure> {
    if stage == Stage::Speaking {
        reader.next().await
    } else {
        Ok(tokio::time::timeout(AFTER_FINISH, reader.next()).await.ok().and_then(Result::ok).flatten())
    }
}

/// As much of a refusal's body as tells something.
async fn beginning(mut reader: Reader) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reader.next().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    body
}

/// `retry-after-ms`, or `retry-after` in seconds. Its date form is not used by LLM providers.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number(RETRY_AFTER_MS).map(|ms| ms / 1000.0).or_else(|| number(RETRY_AFTER))?;
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_is_below_the_base_url() {
        for (base, path, query, expected) in [
            (
                "https://api.openai.com/v1",
                "/chat/completions",
                None,
                "https://api.openai.com/v1/chat/completions",
            ),
            (
                "http://127.0.0.1:8000/v1/",
                "/chat/completions",
                None,
                "http://127.0.0.1:8000/v1/chat/completions",
            ),
            ("http://h", "/messages", Some("a=b"), "http://h/messages?a=b"),
        ] {
            assert_eq!(endpoint(&base.parse().unwrap(), path, query).unwrap(), expected);
        }
        assert_eq!(segment("org/my model:1"), "org%2Fmy%20model:1");
    }

    #[test]
    fn the_model_that_answers_says_so_in_every_format() {
        for (json, expected) in [
            (r#"{"id":"x","model":"gpt-4o-2024-08-06","choices":[]}"#, Some("gpt-4o-2024-08-06")),
            (
                r#"{"type":"message_start","message":{"model":"claude-sonnet-4-5-20250929"}}"#,
                Some("claude-sonnet-4-5-20250929"),
            ),
            (r#"{"candidates":[],"modelVersion":"gemini-2.5-flash"}"#, Some("gemini-2.5-flash")),
            (r#"{"model":"","message":{"role":"assistant"}}"#, None),
            ("[DONE]", None),
            (r#"{"model":1}"#, None),
        ] {
            assert_eq!(answering(json.as_bytes()).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn retry_after_is_read_in_both_units() {
        let headers = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(retry_after(&headers(&[("retry-after", "2")])), Some(Duration::from_secs(2)));
        let both = headers(&[("retry-after", "2"), ("retry-after-ms", "250")]);
        assert_eq!(retry_after(&both), Some(Duration::from_millis(250)));
        for bad in ["-1", "soon", "1e400", "NaN"] {
            assert_eq!(retry_after(&headers(&[("retry-after", bad)])), None, "{bad}");
        }
    }
}
