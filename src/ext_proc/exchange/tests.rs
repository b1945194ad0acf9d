//! The protocol's rules, a row each.

mod ours;
mod room;

use std::fmt::Write as _;

use bytes::Bytes;
use envoy_types::pb::envoy::service::ext_proc::v3::{HttpTrailers, ProtocolConfiguration};
use http::HeaderName;

use super::*;
use crate::chat::Body;
use crate::ensemble::fixture;
use crate::ext_proc::headers::told as told_headers;
use crate::limits::Room;

const CHAT: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/v1/chat/completions"), ("content-type", "application/json")];

fn exchange() -> Exchange {
    bounded(1 << 20)
}

fn bounded(max_request_bytes: usize) -> Exchange {
    let snapshot = Arc::new(Snapshot::new([fixture::ensemble("team")]));
    Exchange::new(snapshot, ModeOverride::Standalone, max_request_bytes, Room::default().share())
}

fn headers(
    base: Option<BodySendMode>,
    fields: &[(&str, &str)],
    end_of_stream: bool,
) -> pb::ProcessingRequest {
    pb::ProcessingRequest {
        protocol_config: base.map(|b| ProtocolConfiguration {
            request_body_mode: b.into(),
            ..ProtocolConfiguration::default()
        }),
        request: Some(pb::Request::RequestHeaders(pb::HttpHeaders { end_of_stream, ..told_headers(fields) })),
        ..pb::ProcessingRequest::default()
    }
}

fn chat(base: BodySendMode) -> pb::ProcessingRequest {
    headers(Some(base), CHAT, false)
}

fn message(request: pb::Request) -> pb::ProcessingRequest {
    pb::ProcessingRequest { request: Some(request), ..pb::ProcessingRequest::default() }
}

fn body(text: &str, end_of_stream: bool) -> pb::ProcessingRequest {
    let body = text.as_bytes().to_vec();
    message(pb::Request::RequestBody(pb::HttpBody { body, end_of_stream, ..pb::HttpBody::default() }))
}

fn trailers() -> pb::ProcessingRequest {
    message(pb::Request::RequestTrailers(HttpTrailers::default()))
}

/// A step in a few words.
fn told(step: &Step) -> String {
    let (mut text, replies) = match step {
        Step::Send(replies) => ("send".to_owned(), replies),
        Step::Finish(replies) => ("finish".to_owned(), replies),
        Step::Answer(asked) => {
            let stream = if asked.can_stream { "stream" } else { "whole" };
            return format!(
                "answer {} {stream} {}",
                asked.ensemble.name,
                String::from_utf8_lossy(&asked.body)
            );
        }
        Step::Refuse(error) => return format!("refuse {}", error.status),
        Step::Tell(whole) => return format!("tell {}", whole.status),
        Step::Break(violation) => return format!("break: {violation}"),
    };
    for reply in replies {
        if reply.mode_override.is_some() {
            assert!(reply.response.is_none(), "an override stands alone");
            text.push_str(" override");
        }
        let Some(response) = &reply.response else { continue };
        let _ = match response {
            pb::Response::RequestHeaders(h) => write!(text, " headers{}", changes(h.response.as_ref())),
            pb::Response::RequestTrailers(_) => write!(text, " trailers"),
            pb::Response::ImmediateResponse(r) => write!(text, " {}", r.status.as_ref().unwrap().code),
            pb::Response::RequestBody(b) => match b.response.as_ref().and_then(|c| c.body_mutation.clone()) {
                Some(pb::BodyMutation { mutation: Some(pb::Mutation::StreamedResponse(s)) }) => {
                    let end = if s.end_of_stream { "!" } else { "" };
                    write!(text, " echo({}{end})", String::from_utf8_lossy(&s.body))
                }
                Some(pb::BodyMutation { mutation: Some(pb::Mutation::Body(body)) }) => {
                    let changes = changes(b.response.as_ref());
                    write!(text, " body{changes}={}", String::from_utf8_lossy(&body))
                }
                _ => write!(text, " body"),
            },
            other => write!(text, " {other:?}"),
        };
    }
    text
}

/// What an answer changes of the headers.
fn changes(common: Option<&pb::CommonResponse>) -> String {
    let Some(common) = common else { return String::new() };
    let Some(mutation) = &common.header_mutation else { return String::new() };
    let mut text: String = mutation.remove_headers.iter().map(|name| format!("[-{name}]")).collect();
    for header in mutation.set_headers.iter().filter_map(|option| option.header.as_ref()) {
        let _ = write!(text, "[{}: {}]", header.key, String::from_utf8_lossy(&header.raw_value));
    }
    text + if common.clear_route_cache { "[rerouted]" } else { "" }
}

fn play(exchange: &mut Exchange, messages: impl IntoIterator<Item = pb::ProcessingRequest>) -> Vec<String> {
    messages.into_iter().map(|m| told(&exchange.receive(m))).collect()
}

const ALIAS: &str = r#"{"model":"team"}"#;
const PLAIN: &str = r#"{"model":"gpt"}"#;

#[test]
fn each_base_mode_has_its_way_to_an_alias() {
    use BodySendMode::{Buffered, FullDuplexStreamed, None, Streamed};
    for (base, after_headers, can_stream) in [
        (None, "send override", "stream"),
        (Streamed, "send override", "stream"),
        (FullDuplexStreamed, "send", "stream"),
        (Buffered, "send headers", "whole"),
    ] {
        let steps = play(&mut exchange(), [chat(base), body(ALIAS, true)]);
        assert_eq!(
            steps,
            [after_headers.to_owned(), format!("answer team {can_stream} {ALIAS}")],
            "{base:?}"
        );
    }
    let untold = play(&mut exchange(), [headers(Option::None, CHAT, false), body(ALIAS, true)]);
    assert_eq!(untold, ["send headers".to_owned(), format!("answer team whole {ALIAS}")]);
}

#[test]
fn each_base_mode_lets_other_requests_through() {
    use BodySendMode::{Buffered, BufferedPartial, FullDuplexStreamed, None, Streamed};
    let echoed = format!("finish headers echo({PLAIN}!)");
    for (base, steps) in [
        (None, ["send override", &*echoed]),
        (Streamed, ["send override", &*echoed]),
        (FullDuplexStreamed, ["send", &*echoed]),
        (Buffered, ["send headers", "finish body"]),
        (BufferedPartial, ["send headers", "finish body"]),
    ] {
        assert_eq!(play(&mut exchange(), [chat(base), body(PLAIN, true)]), steps, "{base:?}");
    }
    let other = &[(":method", "POST"), (":path", "/v1/embeddings")];
    for (base, steps) in [
        (None, vec!["finish headers"]),
        (Streamed, vec!["send headers", "send body", "finish body"]),
        (FullDuplexStreamed, vec!["send headers", "send echo(a)", "finish echo(b!)"]),
        (Buffered, vec!["send headers", "send body", "finish body"]),
    ] {
        let messages = [headers(Some(base), other, false), body("a", false), body("b", true)];
        let expected = steps.len();
        assert_eq!(play(&mut exchange(), messages.into_iter().take(expected)), steps, "{base:?}");
    }
}

#[test]
fn a_request_without_a_body_is_let_through_at_once() {
    for method in ["GET", "HEAD", "POST"] {
        let fields = &[(":method", method), (":path", "/v1/chat/completions")];
        let steps = play(&mut exchange(), [headers(Some(BodySendMode::None), fields, true)]);
        assert_eq!(steps, ["finish headers"], "{method}");
    }
}

#[test]
fn what_is_no_alias_goes_on_before_its_end() {
    let messages = [
        chat(BodySendMode::None),
        body(r#"{"x":1,"mod"#, false),
        body(r#"el":"gpt","messages":["#, false),
        body("1]}", false),
        body("", true),
        body("late", true),
    ];
    assert_eq!(
        play(&mut exchange(), messages),
        [
            "send override",
            "send",
            r#"send headers echo({"x":1,"mod) echo(el":"gpt","messages":[)"#,
            "send echo(1]})",
            "finish echo(!)",
            "send",
        ]
    );
}

#[test]
fn an_alias_is_collected_to_its_end_wherever_its_model_stands() {
    let messages = [
        chat(BodySendMode::None),
        body(r#"{"messages":[{"model":"x"}],"model":"\u0074eam""#, false),
        body("}", true),
    ];
    assert_eq!(
        play(&mut exchange(), messages),
        ["send override", "send", r#"answer team stream {"messages":[{"model":"x"}],"model":"\u0074eam"}"#]
    );
}

#[test]
fn the_first_model_decides() {
    let first = r#"{"model":"team","model":"gpt"}"#;
    assert_eq!(
        play(&mut exchange(), [chat(BodySendMode::Buffered), body(first, true)])[1],
        format!("answer team whole {first}")
    );
    let second = r#"{"model":"gpt","model":"team"}"#;
    for (base, expected) in [
        (BodySendMode::Buffered, "finish body".to_owned()),
        (BodySendMode::None, format!("finish headers echo({second}!)")),
    ] {
        assert_eq!(play(&mut exchange(), [chat(base), body(second, true)])[1], expected);
    }
}

#[test]
fn a_body_that_names_no_model_is_let_through() {
    for text in ["", "not json", "[1]", "{}", r#"{"model":7}"#, r#"{"model":"te"#] {
        let steps = play(&mut exchange(), [chat(BodySendMode::None), body(text, true)]);
        assert_eq!(steps, ["send override".to_owned(), format!("finish headers echo({text}!)")]);
    }
}

#[test]
fn trailers_end_a_request_like_its_end_of_stream() {
    let buffered = play(&mut exchange(), [chat(BodySendMode::Buffered), body(ALIAS, false)]);
    assert_eq!(buffered[1], format!("answer team whole {ALIAS}"), "trailers are still to come");
    let buffered = play(&mut exchange(), [chat(BodySendMode::Buffered), body(PLAIN, false), trailers()]);
    assert_eq!(buffered[1..], ["send body", "finish trailers"]);
    let alias = play(&mut exchange(), [chat(BodySendMode::None), body(ALIAS, false), trailers()]);
    assert_eq!(alias[2], format!("answer team stream {ALIAS}"));
    let plain = play(&mut exchange(), [chat(BodySendMode::None), body(PLAIN, false), trailers()]);
    assert_eq!(plain[1..], [format!("send headers echo({PLAIN})"), "finish trailers".to_owned()]);
    let unread = play(&mut exchange(), [chat(BodySendMode::None), body("{", false), trailers()]);
    assert_eq!(unread[2], "finish headers echo({) trailers");
    let none = play(&mut exchange(), [chat(BodySendMode::None), trailers()]);
    assert_eq!(none[1], "finish headers trailers");
}

fn detour(tells_length: bool, field: Option<(&'static str, &str)>) -> Detour {
    let field = field.map(|(name, value)| (HeaderName::from_static(name), value.to_owned()));
    let body = Body::from_chunks([Bytes::from_static(b"{other"), Bytes::from_static(b"wise}")]);
    Detour { body, tells_length, clear_route_cache: field.is_some(), field }
}

#[test]
fn a_redirected_request_goes_on_changed_in_each_phase() {
    use BodySendMode::{Buffered, FullDuplexStreamed, None, Streamed};
    let pieces = "finish headers[-content-length] echo({other) echo(wise}!)";
    for (base, messages, redirected, later) in [
        (None, vec![body(ALIAS, true)], pieces, "send"),
        (Streamed, vec![body(ALIAS, true)], pieces, "send"),
        (FullDuplexStreamed, vec![body(ALIAS, true)], pieces, "send"),
        (None, vec![body(r#"{"model":"te"#, false), body(r#"am"}"#, true)], pieces, "send"),
        (
            None,
            vec![body(ALIAS, false), trailers()],
            "finish headers[-content-length] echo({other) echo(wise}) trailers",
            "send",
        ),
        (Buffered, vec![body(ALIAS, true)], "finish body[content-length: 11]={otherwise}", "send"),
        (Buffered, vec![body(ALIAS, false)], "send body[content-length: 11]={otherwise}", "finish trailers"),
    ] {
        let mut exchange = exchange();
        let shown = play(&mut exchange, std::iter::once(chat(base)).chain(messages.clone()));
        assert!(shown.last().unwrap().starts_with("answer"), "{base:?}: {shown:?}");
        let step = exchange.redirect(&detour(true, Option::None));
        assert_eq!(told(&step), redirected, "{base:?} {messages:?}");
        assert_eq!(told(&exchange.receive(trailers())), later, "{base:?}");
        assert_eq!(told(&exchange.redirect(&detour(false, Option::None))), "send", "only once");
    }
}

#[test]
fn a_redirected_request_may_change_its_route() {
    let changes = detour(false, Some(("x-model", "other")));
    for (base, redirected) in [
        (
            BodySendMode::None,
            "finish headers[-content-length][x-model: other][rerouted] echo({other) echo(wise}!)",
        ),
        (BodySendMode::Buffered, "finish body[x-model: other][rerouted]={otherwise}"),
    ] {
        let mut exchange = exchange();
        play(&mut exchange, [chat(base), body(ALIAS, true)]);
        assert_eq!(told(&exchange.redirect(&changes)), redirected);
    }
}

#[test]
fn nothing_but_a_complete_alias_request_is_redirected() {
    for messages in
        [vec![], vec![chat(BodySendMode::None)], vec![chat(BodySendMode::None), body(PLAIN, true)]]
    {
        let mut exchange = exchange();
        play(&mut exchange, messages);
        assert_eq!(told(&exchange.redirect(&detour(false, None))), "send");
    }
}

#[test]
fn a_body_of_the_bound_is_taken_and_one_past_it_is_refused() {
    for base in [BodySendMode::None, BodySendMode::Buffered] {
        let exact = play(&mut bounded(ALIAS.len()), [chat(base), body(ALIAS, true)]);
        assert!(exact[1].starts_with("answer"), "{exact:?}");
        let past = play(&mut bounded(ALIAS.len() - 1), [chat(base), body(ALIAS, true)]);
        assert_eq!(past[1], "refuse 413", "{base:?}");
    }
    let unread = play(&mut bounded(4), [chat(BodySendMode::None), body(r#"{"x":"#, false)]);
    assert_eq!(unread[1], "refuse 413", "an alias must not slip by behind a large value");
    let plain = play(&mut bounded(4), [chat(BodySendMode::None), body(PLAIN, true)]);
    assert_eq!(plain[1], format!("finish headers echo({PLAIN}!)"), "no bound for what is no alias");
}

#[test]
fn messages_out_of_turn_are_named() {
    use BodySendMode::None;
    for (messages, violation) in [
        (vec![body(ALIAS, true)], Violation::NoHeaders),
        (vec![trailers()], Violation::NoHeaders),
        (vec![chat(None), chat(None)], Violation::HeadersTwice),
        (vec![pb::ProcessingRequest::default()], Violation::Empty),
        (vec![chat(None), pb::ProcessingRequest::default()], Violation::Empty),
    ] {
        let steps = play(&mut exchange(), messages);
        assert_eq!(steps.last().unwrap(), &format!("break: {violation}"));
    }
}

#[test]
fn an_attachment_that_hides_bodies_is_noticed() {
    let mut never = exchange();
    never.mode_override = ModeOverride::Never;
    assert_eq!(play(&mut never, [chat(BodySendMode::None)]), ["finish headers"]);
    assert_eq!(never.take_notice(), Some(Notice::NoBody));
    let mut partial = exchange();
    play(&mut partial, [chat(BodySendMode::BufferedPartial)]);
    assert_eq!(partial.take_notice(), Some(Notice::UnsupportedMode));
    let mut waiting = exchange();
    play(&mut waiting, [chat(BodySendMode::None)]);
    assert!(waiting.awaits_override());
    play(&mut waiting, [body("{", false)]);
    assert!(!waiting.awaits_override());
}
