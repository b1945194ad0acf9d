//! OpenAI's chat completions, and everything compatible.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::super::client::Reader;
use super::super::{Call, Credential, Events, Failure, Provider, ProviderError};
use crate::chat::{Body, Chunk, ChunkError, Completion, Event, sse};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("consort/", env!("CARGO_PKG_VERSION")));
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// OpenAI's finer `retry-after`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// How long the usage of a message that has ended is waited for.
const AFTER_FINISH: Duration = Duration::from_secs(2);
/// An error's text is read up to here; what is longer tells a caller nothing more.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Makes one call.
pub(in super::super) async fn call(call: Call) -> Result<Events, Failure> {
    let provider = std::sync::Arc::clone(&call.model.provider);
    let asked_for_stream = call.stream;
    let response = provider.client.send(request(call, &provider)?).await?;
    let (head, reader) = response.into_parts();
    if !head.status.is_success() {
        return Err(refused(head.status, &head.headers, reader).await);
    }
    // A provider that cannot stream answers in one piece; that is an answer, too.
    if asked_for_stream && is_event_stream(&head.headers) {
        Ok(streamed(reader, provider.client.max_response_bytes()))
    } else {
        whole(reader).await
    }
}

fn request(call: Call, provider: &Provider) -> Result<Request<Body>, Failure> {
    let mut request = Request::new(call.body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint(&provider.base_url).map_err(|e| Failure::Connect(e.into()))?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ACCEPT, if call.stream { EVENT_STREAM } else { JSON });
    headers.insert(USER_AGENT, AGENT);
    let credential = match &provider.credential {
        Credential::None => None,
        Credential::Fixed(value) => Some(value),
        Credential::Passthrough => call.passed.authorization.as_ref(),
    };
    let passed = [
        (AUTHORIZATION, credential),
        (REQUEST_ID, call.passed.request_id.as_ref()),
        (TRACEPARENT, call.passed.traceparent.as_ref()),
        (TRACESTATE, call.passed.tracestate.as_ref()),
    ];
    for (name, value) in passed {
        if let Some(value) = value {
            headers.insert(name, value.clone());
        }
    }
    Ok(request)
}

fn endpoint(base: &Uri) -> Result<Uri, http::Error> {
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(format!("{}/chat/completions", base.path().trim_end_matches('/')).parse()?);
    Ok(Uri::from_parts(parts)?)
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

async fn whole(reader: Reader) -> Result<Events, Failure> {
    let body = reader.collect().await?;
    let mut completion = Completion::parse(&body).map_err(|e| Failure::Unreadable(e.into()))?;
    let usage = completion.usage.take().map(Event::Usage);
    let finish = completion.finish_reason.clone().map(Event::Finish);
    let events = [Some(Event::Message(Box::new(completion))), finish, usage];
    Ok(stream::iter(events.into_iter().flatten().map(Ok)).boxed())
}

fn streamed(mut reader: Reader, max_event_bytes: usize) -> Events {
    let events = async_stream::try_stream! {
        let mut decoder = sse::Decoder::new(max_event_bytes);
        let mut finished = false;
        let mut done = false;
        while let Some(piece) = next(&mut reader, finished).await? {
            decoder.feed(&piece).map_err(|e| Failure::Unreadable(e.into()))?;
            while let Some(data) = decoder.next_event() {
                done = done || data.trim_ascii() == sse::DONE;
                if done || data.trim_ascii().is_empty() {
                    continue;
                }
                match steps(&data, &mut finished) {
                    Ok(said) => {
                        for event in said {
                            yield event;
                        }
                    }
                    // The message is whole: what breaks now breaks nothing.
                    Err(_) if finished => {}
                    Err(failure) => Err(failure)?,
                }
            }
            if done {
                break;
            }
        }
        if done {
            // The end of the body is here already, as a rule: seeing it frees the connection for reuse.
            let _end = reader.next().now_or_never();
        } else if let Some(data) = decoder.finish().map_err(|e| Failure::Unreadable(e.into()))? {
            // The last event may lack its closing blank line; one cut in the middle is none.
            done = data.trim_ascii() == sse::DONE;
            if let (false, Ok(last)) = (done, steps(&data, &mut finished)) {
                for event in last {
                    yield event;
                }
            }
        }
        if !finished {
            if !done {
                Err(Failure::Incomplete)?;
            }
            yield Event::Finish("stop".into());
        }
    };
    events.boxed()
}

/// The next piece of a stream. Once its message has ended only its usage may still come: it is waited
/// for a little, and what breaks then breaks nothing.
async fn next(reader: &mut Reader, finished: bool) -> Result<Option<Bytes>, Failure> {
    if finished {
        Ok(tokio::time::timeout(AFTER_FINISH, reader.next()).await.ok().and_then(Result::ok).flatten())
    } else {
        reader.next().await
    }
}

/// What one event of a stream says.
fn steps(data: &Bytes, finished: &mut bool) -> Result<impl Iterator<Item = Event> + use<>, Failure> {
    let chunk = Chunk::parse(data).map_err(|e| match e {
        ChunkError::Provider => Failure::ErrorEvent,
        e => Failure::Unreadable(e.into()),
    })?;
    let finish = chunk.finish_reason.filter(|_| !*finished).map(Event::Finish);
    *finished = *finished || finish.is_some();
    Ok([chunk.delta.map(Event::Delta), finish, chunk.usage.map(Event::Usage)].into_iter().flatten())
}

async fn refused(status: StatusCode, headers: &HeaderMap, mut reader: Reader) -> Failure {
    #[derive(Deserialize)]
    struct Envelope {
        error: ProviderError,
    }
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reader.next().await {
        body.extend_from_slice(&piece);
        if body.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    Failure::Status {
        status,
        error: serde_json::from_slice(&body).ok().map(|e: Envelope| e.error),
        retry_after: retry_after(headers),
    }
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
        for (base, expected) in [
            ("https://api.openai.com/v1", "https://api.openai.com/v1/chat/completions"),
            ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1/chat/completions"),
            ("http://h", "http://h/chat/completions"),
        ] {
            assert_eq!(endpoint(&base.parse().unwrap()).unwrap(), expected);
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
