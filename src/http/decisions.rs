//! Decisions as JSON, and as they happen.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::{Stream, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::watch::{Streams, TOO_MANY};
use crate::chat::ApiError;
use crate::telemetry::decision::{Decision, Outcome};
use crate::telemetry::{Decisions, Told, Wanted};

/// How many are listed where nobody says how many.
const LIMIT: usize = 100;
/// How often somebody who waits hears that the connection is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// `GET /v1/decisions?alias=&outcome=&since=&limit=` lists those that are kept, newest last; with
/// `GET /v1/decisions/stream?alias=&outcome=&since=` they come as they are made, runs that go on included where no
/// outcome is asked for.
pub fn routes(decisions: Decisions, streams: Streams) -> Router {
    Router::new()
        .route("/v1/decisions", get(list))
        .route("/v1/decisions/stream", get(follow))
        .with_state(Shown { decisions, streams })
}

/// What the routes tell of.
#[derive(Clone)]
struct Shown {
    decisions: Decisions,
    streams: Streams,
}

#[derive(Serialize)]
struct Listed<'a> {
    decisions: Vec<&'a Decision>,
}

async fn list(State(Shown { decisions, .. }): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let Asked { wanted, since, limit } = match Asked::read(query.as_deref(), &["limit"]) {
        Ok(asked) => asked,
        Err(error) => return refusal(&error),
    };
    let recent = decisions.recent(&wanted, since.unwrap_or(0), limit.unwrap_or(LIMIT));
    axum::Json(Listed { decisions: recent.iter().map(|decision| &**decision).collect() }).into_response()
}

async fn follow(
    State(Shown { decisions, streams }): State<Shown>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Asked { wanted, since, .. } = match Asked::read(query.as_deref(), &[]) {
        Ok(asked) => asked,
        Err(error) => return refusal(&error),
    };
    // Who comes back says what it has seen, whatever it asked for the first time.
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let Some(place) = streams.place() else {
        return refusal(&ApiError::new(503, "too_many_streams", TOO_MANY));
    };
    let watch = decisions.watch(Wanted { running: true, ..wanted }, seen.or(since));
    let events = stream::unfold((watch, place), async |(mut watch, place)| {
        Some((Ok::<_, Infallible>(event(&watch.next().await?)), (watch, place)))
    });
    Sse::new(alive(events)).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// Its type tells axum's that it may be sent.
fn alive<S: Stream<Item = Result<Event, Infallible>> + Send>(events: S) -> S {
    events
}

fn event(told: &Told) -> Event {
    let event = Event::default();
    match told {
        Told::Decision(decision) if decision.outcome() == Outcome::Running => {
            event.event("running").data(json(decision))
        }
        Told::Decision(decision) => {
            event.event("decision").id(decision.sequence.to_string()).data(json(decision))
        }
        Told::Missed(count) => event.event("missed").data(count.to_string()),
    }
}

/// A decision is always JSON.
fn json(decision: &Arc<Decision>) -> String {
    serde_json::to_string(&**decision).unwrap_or_default()
}

/// What a query asks for.
#[derive(Debug, Default)]
struct Asked {
    wanted: Wanted,
    since: Option<u64>,
    limit: Option<usize>,
}

impl Asked {
    /// Reads the query; of the parameters that only some routes have, it may have these.
    fn read(query: Option<&str>, also: &[&str]) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "alias" => asked.wanted.alias = Some(value.into_owned()).filter(|alias| !alias.is_empty()),
                "outcome" if value.is_empty() => asked.wanted.outcome = None,
                "outcome" => {
                    let known = || Outcome::ENDS.iter().map(|end| end.label()).collect::<Vec<_>>().join(", ");
                    let found = Outcome::ENDS.into_iter().find(|end| end.label() == value);
                    let outcome = found.ok_or_else(|| wrong("outcome", &format!("one of {}", known())))?;
                    asked.wanted.outcome = Some(outcome);
                }
                "since" => asked.since = number(&name, &value)?,
                "limit" if also.contains(&"limit") => {
                    let limit: Option<u64> = number(&name, &value)?;
                    asked.limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
                }
                _ => {
                    let known = ["alias", "outcome", "since"].into_iter().chain(also.iter().copied());
                    let known = known.collect::<Vec<_>>().join(", ");
                    return Err(wrong(&name, &format!("left out: there is only {known}")));
                }
            }
        }
        Ok(asked)
    }
}

fn number(name: &str, value: &str) -> Result<Option<u64>, ApiError> {
    if value.is_empty() {
        return Ok(None);
    }
    value.parse().map(Some).map_err(|_| wrong(name, "a whole number"))
}

fn wrong(param: &str, expected: &str) -> ApiError {
    ApiError::new(400, "invalid_value", format!("`{param}` must be {expected}")).param(param)
}

fn refusal(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(CONTENT_TYPE, "application/json")], error.to_json(None)).into_response()
}

#[cfg(test)]
mod tests;
