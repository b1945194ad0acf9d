//! What those who ask for decisions are told, by HTTP and by gRPC.

use axum::body::Body;
use futures_util::StreamExt;
use http::Request;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::Service;

use super::super::watch::{Log, decision_log};
use super::*;
use crate::telemetry::decision::decision_log_client::DecisionLogClient;
use crate::telemetry::decision::{WatchRequest, watch_response};
use crate::telemetry::{About, Account, Door, Sinks};

fn decisions() -> Decisions {
    Decisions::open(&Sinks { ring: 2, ..Sinks::default() }).unwrap()
}

/// The account of a run of this alias.
fn begin(decisions: &Decisions, alias: &str) -> Account {
    let about = About { request_id: "r", alias, strategy: "vote", quorum: 1, door: Door::Http };
    Account::open(decisions, about, [("a", 1.0)].into_iter())
}

fn run(decisions: &Decisions, alias: &str, outcome: Outcome) {
    begin(decisions, alias).settle(outcome);
}

async fn get(decisions: &Decisions, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = headers
        .iter()
        .fold(Request::builder().uri(path), |request, (name, value)| request.header(*name, *value));
    routes(decisions.clone(), Streams::default()).call(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn listed(decisions: &Decisions, query: &str) -> (u16, Value) {
    let response = get(decisions, &format!("/v1/decisions{query}"), &[]).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn aliases(decisions: &Decisions, query: &str) -> Vec<String> {
    let (status, body) = listed(decisions, query).await;
    assert_eq!(status, 200, "{body}");
    let decisions = body["decisions"].as_array().unwrap();
    decisions.iter().map(|d| d["alias"].as_str().unwrap().to_owned()).collect()
}

/// What a stream says until it ends: names, ids and aliases of its events.
async fn heard(response: Response) -> Vec<String> {
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let of = |event: &str| {
        let field = |name| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let data: Value = serde_json::from_str(field("data: ")).unwrap();
        let told = data.get("alias").map_or_else(|| data.to_string(), |_| data["outcome"].to_string());
        let has_id = field("id: ").parse::<u64>().is_ok_and(|id| data["sequence"] == id);
        format!("{} {told} {has_id}", field("event: "))
    };
    text.split_terminator("\n\n").map(of).collect()
}

#[tokio::test]
async fn what_is_kept_is_listed_by_alias_outcome_and_sequence() {
    let decisions = decisions();
    assert_eq!(aliases(&decisions, "").await, [""; 0]);
    run(&decisions, "lost", Outcome::Full);
    run(&decisions, "one", Outcome::Full);
    run(&decisions, "two words", Outcome::Failed);
    assert_eq!(aliases(&decisions, "").await, ["one", "two words"]);
    assert_eq!(aliases(&decisions, "?alias=two%20words&outcome=").await, ["two words"]);
    assert_eq!(aliases(&decisions, "?outcome=full&alias=").await, ["one"]);
    assert_eq!(aliases(&decisions, "?limit=1").await, ["two words"]);
    let sequence = listed(&decisions, "").await.1["decisions"][0]["sequence"].to_string();
    assert_eq!(aliases(&decisions, &format!("?since={sequence}")).await, ["two words"]);
    for (query, message) in [
        ("?since=x", "`since` must be a whole number"),
        ("?limit=-1", "`limit` must be a whole number"),
        (
            "?outcome=running",
            "`outcome` must be one of full, quorum, degraded, single, cascade, failed, cancelled",
        ),
        ("?aliases=a", "`aliases` must be left out: there is only alias, outcome, since, limit"),
    ] {
        let (status, body) = listed(&decisions, query).await;
        assert_eq!((status, body["error"]["message"].as_str()), (400, Some(message)));
    }
    assert_eq!(get(&decisions, "/v1/decisions/stream?limit=1", &[]).await.status(), 400);
}

#[tokio::test]
async fn a_stream_tells_of_runs_as_they_go_on_and_resumes_where_it_was_left() {
    let decisions = decisions();
    let stream = get(&decisions, "/v1/decisions/stream", &[]).await;
    let mut account = begin(&decisions, "team");
    account.panel_began(false);
    account.member_began(0, None);
    account.settle(Outcome::Full);
    drop(account);
    run(&decisions, "team", Outcome::Failed);
    run(&decisions, "team", Outcome::Single);
    let first = decisions.recent(&Wanted::default(), 0, 1)[0].sequence - 2;
    let last_seen = (first - 1).to_string();
    let path = format!("/v1/decisions/stream?since={}", first + 2);
    let again = get(&decisions, &path, &[("last-event-id", &*last_seen)]).await;
    let since = get(&decisions, &format!("/v1/decisions/stream?since={}", first + 1), &[]).await;
    decisions.close(Duration::ZERO).await;
    assert_eq!(
        heard(stream).await,
        ["decision \"full\" true", "decision \"failed\" true", "decision \"single\" true"],
        "nobody took the running state before it was over"
    );
    assert_eq!(
        heard(again).await,
        ["missed 1 false", "decision \"failed\" true", "decision \"single\" true"]
    );
    assert_eq!(heard(since).await, ["decision \"single\" true"]);
}

#[tokio::test]
async fn running_states_have_an_event_of_their_own_and_no_id() {
    let decisions = decisions();
    let stream = get(&decisions, "/v1/decisions/stream?alias=team", &[]).await;
    let mut account = begin(&decisions, "team");
    account.member_began(0, None);
    let mut other = begin(&decisions, "other");
    other.member_began(0, None);
    decisions.close(Duration::ZERO).await;
    assert_eq!(heard(stream).await, ["running \"running\" false"]);
}

#[tokio::test]
async fn a_watcher_hears_by_grpc_what_it_asked_for() {
    let decisions = decisions();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        tonic::transport::Server::builder().add_service(decision_log(decisions.clone(), Streams::default()));
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let mut client = DecisionLogClient::connect(format!("http://{address}")).await.unwrap();
    for (alias, outcome) in [("a", Outcome::Full), ("a", Outcome::Failed), ("b", Outcome::Failed)] {
        run(&decisions, alias, outcome);
    }
    let first = decisions.recent(&Wanted::default(), 0, 1)[0].sequence - 2;
    let request = |outcome: Outcome| WatchRequest {
        alias: "a".to_owned(),
        outcome: outcome.into(),
        since: Some(first - 1),
        include_running: true,
    };
    let mut failed = client.watch(request(Outcome::Failed)).await.unwrap().into_inner();
    let mut account = begin(&decisions, "a");
    account.member_began(0, None);
    let mut heard = Vec::new();
    while heard.len() < 2
        && let Some(told) = failed.next().await
    {
        heard.push(match told.unwrap().told.unwrap() {
            watch_response::Told::Decision(d) => format!("{} {}", d.alias, d.outcome().label()),
            watch_response::Told::Missed(count) => format!("missed {count}"),
        });
    }
    assert_eq!(heard, ["missed 1", "a failed"], "what goes on has not failed");
    let odd = WatchRequest { outcome: 99, ..WatchRequest::default() };
    assert_eq!(client.watch(odd).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    decisions.close(Duration::ZERO).await;
    assert!(failed.next().await.is_none());
    serving.abort();
}

#[tokio::test]
async fn those_who_follow_are_so_many_at_most_whichever_way_and_leave_their_places() {
    use crate::telemetry::decision::decision_log_server::DecisionLog;

    let (decisions, streams) = (decisions(), Streams::default());
    let (mut routes, log) = (routes(decisions.clone(), streams.clone()), Log { decisions, streams });
    let request = || Request::builder().uri("/v1/decisions/stream").body(Body::empty()).unwrap();
    let mut following = Vec::new();
    for _ in 0..255 {
        following.push(routes.call(request()).await.unwrap());
    }
    let watching = log.watch(tonic::Request::new(WatchRequest::default())).await;
    assert!(watching.is_ok() && following.iter().all(|response| response.status() == 200));
    let refused = log.watch(tonic::Request::new(WatchRequest::default())).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(tonic::Code::ResourceExhausted));
    let refused = routes.call(request()).await.unwrap();
    assert_eq!(refused.status(), 503);
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["error"]["code"], "too_many_streams");
    drop(watching);
    assert_eq!(routes.call(request()).await.unwrap().status(), 200);
}
