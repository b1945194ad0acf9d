//! Who lists the aliases, a row each.

use super::*;
use crate::ensemble::fixture;
use crate::ext_proc::headers::told as told_headers;

const THEIRS: &str = r#"{"object":"list","data":[{"id":"gpt"}]}"#;
const LIST: &[(&str, &str)] = &[(":method", "GET"), (":path", "/v1/models")];
const OK: &[(&str, &str)] =
    &[(":status", "200"), ("content-type", "application/json"), ("content-length", "39")];

fn listing(how: ListModels) -> Listing {
    let snapshot = Snapshot::new([fixture::ensemble("team"), fixture::ensemble("ensemble/crew")]);
    Listing::new(Arc::new(snapshot), how, Models::from_now())
}

fn message(request: pb::Request) -> pb::ProcessingRequest {
    pb::ProcessingRequest { request: Some(request), ..pb::ProcessingRequest::default() }
}

fn request(fields: &[(&str, &str)]) -> pb::ProcessingRequest {
    message(pb::Request::RequestHeaders(pb::HttpHeaders { end_of_stream: true, ..told_headers(fields) }))
}

fn response(fields: &[(&str, &str)], end_of_stream: bool) -> pb::ProcessingRequest {
    message(pb::Request::ResponseHeaders(pb::HttpHeaders { end_of_stream, ..told_headers(fields) }))
}

fn body(text: &str, end_of_stream: bool) -> pb::ProcessingRequest {
    let body = text.as_bytes().to_vec();
    message(pb::Request::ResponseBody(pb::HttpBody { body, end_of_stream, ..pb::HttpBody::default() }))
}

/// A step in a few words; a text with its `created` left out.
fn told(step: Option<Step>) -> String {
    match step {
        None => "not its business".to_owned(),
        Some(Step::Tell(whole)) => format!("tell {}", ids(&whole.body)),
        Some(Step::Send(replies)) => format!("send {}", replies.iter().map(reply_told).collect::<String>()),
        Some(Step::Finish(replies)) => {
            format!("finish {}", replies.iter().map(reply_told).collect::<String>())
        }
        Some(other) => format!("{other:?}"),
    }
}

fn ids(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap();
    match json["data"].as_array() {
        Some(data) => data.iter().filter_map(|entry| entry["id"].as_str()).collect::<Vec<_>>().join(" "),
        None => format!("only {}", json["id"].as_str().unwrap_or_default()),
    }
}

fn reply_told(reply: &pb::ProcessingResponse) -> String {
    let changed = |common: Option<&pb::CommonResponse>| {
        let Some(common) = common else { return String::new() };
        let set = common.header_mutation.iter().flat_map(|mutation| &mutation.set_headers);
        let set = set.filter_map(|option| option.header.as_ref());
        let mut text: String = set.map(|h| format!("[{}]", h.key)).collect();
        if let Some(pb::BodyMutation { mutation: Some(pb::Mutation::Body(body)) }) = &common.body_mutation {
            text += &format!(" {}", ids(body));
        }
        text
    };
    match reply.response.as_ref().unwrap() {
        pb::Response::RequestHeaders(h) => format!("request{}", changed(h.response.as_ref())),
        pb::Response::ResponseHeaders(h) => format!("head{}", changed(h.response.as_ref())),
        pb::Response::ResponseBody(b) => format!("body{}", changed(b.response.as_ref())),
        other => format!("{other:?}"),
    }
}

#[test]
fn only_lists_of_models_and_aliases_by_their_names_are_looked_at() {
    const CREW: &str = "tell only ensemble/crew";
    const OTHER: &str = "not its business";
    const ADD: &str = "send request[accept-encoding]";
    const ALL: &str = "tell ensemble/crew team";
    for (method, path, add, answer) in [
        ("GET", "/v1/models", ADD, ALL),
        ("GET", "/openai/v1/models?limit=3", ADD, ALL),
        ("GET", "/v1/models/team", "tell only team", "tell only team"),
        ("GET", "/v1/models/ensemble%2Fcrew?x", CREW, CREW),
        ("GET", "/v1/models/ensemble/crew", CREW, CREW),
        ("GET", "/v1/models/gpt", OTHER, OTHER),
        ("GET", "/v1/models/", OTHER, OTHER),
        ("GET", "/v1/models/%ff", OTHER, OTHER),
        ("GET", "/v1/models/team/versions", OTHER, OTHER),
        ("GET", "/v1/supermodels", OTHER, OTHER),
        ("HEAD", "/v1/models", OTHER, OTHER),
        ("DELETE", "/v1/models/team", OTHER, OTHER),
        ("POST", "/v1/chat/completions", OTHER, OTHER),
    ] {
        let asked = |how| told(listing(how).receive(&request(&[(":method", method), (":path", path)])));
        assert_eq!(asked(ListModels::Off), OTHER, "{method} {path}");
        assert_eq!((&*asked(ListModels::Add), &*asked(ListModels::Answer)), (add, answer), "{method} {path}");
    }
}

#[test]
fn an_upstreams_list_is_added_to_where_it_is_one() {
    let length = |length| [(":status", "200"), ("content-length", length)];
    for (head, list, end, expected) in [
        (OK, THEIRS, true, "send head, finish body[content-length] gpt ensemble/crew team"),
        (&OK[..2], THEIRS, true, "send head, finish body gpt ensemble/crew team"),
        (&OK[..1], THEIRS, true, "send head, finish body gpt ensemble/crew team"),
        (OK, "no list", true, "send head, finish body"),
        // More than Envoy buffers.
        (OK, THEIRS, false, "send head, finish body"),
        (&length("4194305"), THEIRS, true, "finish head"),
        (&length("?"), THEIRS, true, "finish head"),
        (&[(":status", "401")], THEIRS, true, "finish head"),
        (&[(":status", "200"), ("content-type", "text/html")], THEIRS, true, "finish head"),
        (&[(":status", "200"), ("content-encoding", "gzip")], THEIRS, true, "finish head"),
    ] {
        let mut listing = listing(ListModels::Add);
        listing.receive(&request(LIST));
        let mut steps = vec![told(listing.receive(&response(head, false)))];
        if steps[0].starts_with("send") {
            steps.push(told(listing.receive(&body(list, end))));
        }
        assert_eq!(steps.join(", "), expected, "{head:?} {list}");
    }
}

#[test]
fn an_answer_without_a_body_and_messages_out_of_turn_pass() {
    let mut empty = listing(ListModels::Add);
    empty.receive(&request(LIST));
    assert_eq!(told(empty.receive(&response(OK, true))), "finish head");
    let mut early = listing(ListModels::Add);
    early.receive(&request(LIST));
    assert_eq!(told(early.receive(&body(THEIRS, true))), "finish body");
    let mut long = listing(ListModels::Add);
    long.receive(&request(LIST));
    long.receive(&response(&OK[..2], false));
    let padded = format!("{}{THEIRS}", " ".repeat(MAX_LIST));
    assert_eq!(told(long.receive(&body(&padded, true))), "finish body");
}
