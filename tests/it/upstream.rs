//! The way to a provider: TLS, bounds on every wait and on every answer, and what comes back that is none.

use std::net::SocketAddr;
use std::time::Duration;

use consort_testkit::http::Answer;
use consort_testkit::provider::{Provider, Reply};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use crate::stack::{ALIAS, KEY, ONE_ATTEMPT, Options, Stack, ms};
use crate::tls::TlsFront;

/// Far below every default: a bound of the test's own has ended it.
const LONG: Duration = Duration::from_secs(4);

/// An ensemble of `odd`, whose provider has these fields, and the well-behaved `a`: what `odd` breaks, `a` answers.
pub fn beside(provider: &str) -> Options {
    let provider = provider.to_owned();
    Options::new().whole(move |base_url| {
        let provider = provider.replace("OURS", &format!("base_url: '{base_url}', api_key: {KEY}"));
        format!(
            "listen: {{ext_proc: '127.0.0.1:0'}}
limits: {{max_response_bytes: 100000}}
providers:
- {{name: scripted, base_url: '{base_url}', api_key: {KEY}}}
- {{name: odd, {provider}}}
models:
- {{display_name: a, provider: scripted, model_name: model-a, {ONE_ATTEMPT}}}
- {{display_name: odd, provider: odd, model_name: model-b, {ONE_ATTEMPT}}}
- {{display_name: odd-judge, provider: odd, model_name: model-judge, {ONE_ATTEMPT}}}
- {{display_name: {ALIAS}, ensemble: {{panel: [{{model: odd}}, {{model: a}}], judge: {{model: odd-judge}}, min_responses: 1}}}}
"
        )
    })
}

/// Fails unless `odd` came to this end and `a` answered in its place.
pub async fn assert_odd(stack: &Stack, runs: usize, result: &str) -> Answer {
    let answer = stack.ask(json!({})).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let logged = stack.runs_logged(runs + 1).await.remove(runs);
    let members = logged["members"].as_str().unwrap_or_default();
    assert!(members.starts_with(&format!("odd={result}@")), "not {result}: {logged}");
    let outcome = if result == "usable" { "full" } else { "single" };
    assert_eq!(answer.header("x-ensemble-outcome"), outcome);
    answer
}

mod over_tls {
    use http::Version;

    use super::*;

    /// A scripted provider of its own: what reaches it came through TLS.
    async fn inside() -> Provider {
        let provider = Provider::start().await;
        provider.require_key("sk-inside");
        provider.model("model-b").reply(Reply::text("two"));
        provider.model("model-judge").reply(Reply::stream(&["It", " is", " so"], ms(1)));
        provider
    }

    #[tokio::test]
    async fn a_provider_is_spoken_to_in_the_protocol_that_it_chooses_on_a_connection_that_is_kept() {
        for (alpn, version) in [
            (&["h2", "http/1.1"][..], Version::HTTP_2),
            (&["http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            let provider = inside().await;
            let front = TlsFront::start(&provider, "127.0.0.1", alpn).await;
            let stack = beside(&front.fields()).start().await;
            assert_odd(&stack, 0, "usable").await;
            let streamed = stack.ask_stream().send().await;
            assert!(streamed.events().last().is_some_and(|event| event.is_done()), "{}", streamed.text());
            let requests = provider.requests();
            assert_eq!(requests.len(), 4);
            assert!(requests.iter().all(|request| request.version == version), "{alpn:?}: {requests:#?}");
            assert!(requests.iter().all(|request| request.peer == requests[0].peer), "{alpn:?}");
        }
    }

    #[tokio::test]
    async fn a_caller_that_leaves_ends_its_h2_stream_and_no_other() {
        let provider = inside().await;
        provider.model("model-b").reply(Reply::stall()).then(Reply::text("two"));
        let front = TlsFront::start(&provider, "127.0.0.1", &["h2"]).await;
        let stack = beside(&front.fields()).start().await;
        let caller = tokio::spawn(stack.ask(json!({})).try_open());
        provider.wait_for("model-b", 1).await;
        caller.abort();
        provider.wait_for_closed("model-b", 1).await;
        assert_odd(&stack, 1, "usable").await;
        let requests = provider.requests_for("model-b");
        assert_eq!(requests[0].peer, requests[1].peer);
    }

    #[tokio::test]
    async fn a_provider_that_cannot_prove_who_it_is_is_not_spoken_to() {
        let provider = inside().await;
        let front = TlsFront::start(&provider, "127.0.0.1", &["h2"]).await;
        let stack =
            beside(&format!("base_url: 'https://{}/v1', api_key: sk-inside", front.addr)).start().await;
        assert_odd(&stack, 0, "connect").await;
        let other = TlsFront::start(&provider, "elsewhere.test", &["h2"]).await;
        assert_odd(&beside(&other.fields()).start().await, 0, "connect").await;
        assert!(provider.requests().is_empty());
    }
}

mod in_time {
    use super::*;

    #[tokio::test]
    async fn a_refused_connection_is_a_failed_call_at_once() {
        let closed = TcpSocket::new_v4().expect("a socket");
        closed.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let addr = closed.local_addr().expect("it is bound");
        let stack = beside(&format!("base_url: 'http://{addr}/v1'")).start().await;
        let answer = assert_odd(&stack, 0, "connect").await;
        assert!(answer.took < LONG, "{:?}", answer.took);
    }

    #[tokio::test]
    async fn a_connection_that_does_not_come_about_is_given_up_at_its_timeout() {
        // The kernel completes TCP's handshake; nobody begins that of TLS.
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = silent.local_addr().expect("it is bound");
        let stack = beside(&format!("base_url: 'https://{addr}/v1', connect_timeout_ms: 400")).start().await;
        let answer = assert_odd(&stack, 0, "connect").await;
        assert!(answer.took >= ms(400) && answer.took < LONG, "{:?}", answer.took);
    }

    #[tokio::test]
    async fn headers_are_waited_for_until_the_first_byte_timeout() {
        let stack = beside("OURS, first_byte_timeout_ms: 400").start().await;
        stack.provider.model("model-b").reply(Reply::stall());
        let answer = assert_odd(&stack, 0, "timeout").await;
        assert!(answer.took >= ms(400) && answer.took < LONG, "{:?}", answer.took);
        stack.provider.wait_for_closed("model-b", 1).await;
        // It bounds the headers only: a body may take its time.
        stack.provider.model("model-b").reply(Reply::text("two").trickle(ms(30)));
        let answer = assert_odd(&stack, 1, "usable").await;
        assert!(answer.took >= ms(400), "{:?}", answer.took);
    }

    #[tokio::test]
    async fn every_further_piece_is_waited_for_until_the_idle_timeout() {
        let stack = beside("OURS, idle_timeout_ms: 400").start().await;
        stack.provider.model("model-b").reply(Reply::text("two").stall_after(0));
        let answer = assert_odd(&stack, 0, "timeout").await;
        assert!(answer.took >= ms(400) && answer.took < LONG, "{:?}", answer.took);
        stack.provider.wait_for_closed("model-b", 1).await;
        // A trickle is slow in all, and never silent for long.
        stack.provider.model("model-b").reply(Reply::text("two").trickle(ms(30)));
        let answer = assert_odd(&stack, 1, "usable").await;
        assert!(answer.took >= ms(400), "{:?}", answer.took);
        stack.provider.model("model-judge").reply(Reply::stream(&["It", " is"], ms(1)).stall_after(1));
        let answer = stack.ask_stream().send().await;
        assert!(answer.text().contains("\"judge_failed\"") && !answer.text().contains("[DONE]"));
        stack.provider.wait_for_closed("model-judge", 1).await;
    }
}

mod answers {
    use super::*;

    #[tokio::test]
    async fn that_are_none_are_failed_calls() {
        let stack = beside("OURS").start().await;
        let whole = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"two"},"finish_reason":"stop"}]}"#;
        let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"two\"}}]}\n\ndata: [DONE]\n\n";
        let replies = [
            (Reply::huge(200_000), "too_large"),
            (Reply::cut(), "broken"),
            (Reply::text("two").cut_after(0), "broken"),
            (Reply::garbage(), "unreadable"),
            (Reply::raw("application/json", ""), "unreadable"),
            (Reply::raw("application/json", "[]"), "unreadable"),
            (Reply::raw("application/json", r#"{"choices":[]}"#), "unreadable"),
            (Reply::raw("application/json", vec![0xff; 300]), "unreadable"),
            (Reply::raw("text/html", "<html>Bad gateway</html>"), "unreadable"),
            (Reply::sse(event), "unreadable"),
            (Reply::raw("text/plain", whole), "usable"),
            (Reply::raw("application/json", whole).with_status(201), "usable"),
            (
                Reply::raw("application/json", whole).with_status(302).header("location", "/elsewhere"),
                "status",
            ),
            (Reply::raw("application/json", whole).with_status(500), "server_error"),
        ];
        for (run, (reply, result)) in replies.into_iter().enumerate() {
            stack.provider.model("model-b").reply(reply);
            assert_odd(&stack, run, result).await;
        }
    }

    #[tokio::test]
    async fn of_a_streaming_judge_that_are_none_leave_the_best_candidate() {
        let stack = beside("OURS").start().await;
        for reply in [
            Reply::cut(),
            Reply::garbage(),
            Reply::raw("text/html", "<html>Bad gateway</html>"),
            Reply::raw("text/event-stream", "<html>Bad gateway</html>"),
            Reply::sse("data: {\"choices\":\n\n"),
            Reply::sse(""),
            Reply::sse("data: [DONE]\n\n"),
            Reply::sse(format!("data: {}", "x".repeat(200_000))),
        ] {
            let shown = format!("{reply:?}");
            stack.provider.model("model-judge").reply(reply);
            let answer = stack.ask_stream().send().await;
            assert_eq!(answer.header("x-ensemble-outcome"), "degraded", "{shown:.200}");
            assert!(answer.events().last().is_some_and(|event| event.is_done()), "{shown:.200}");
        }
    }

    #[tokio::test]
    async fn of_a_streaming_judge_are_read_however_they_are_cut_and_written() {
        let stack = beside("OURS").start().await;
        let delta =
            |text: &str| format!("{{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}");
        let (it, is) = (delta("It"), delta(" is é"));
        let end = "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
        let whole = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"It is é"},"finish_reason":"stop"}]}"#;
        for reply in [
            Reply::stream(&["It", " is é"], ms(0)).trickle(ms(1)),
            Reply::sse(format!(
                ": hi\r\ndata: {it}\r\n\r\ndata: {is}\r\n\r\ndata: {end}\r\n\r\ndata: [DONE]\r\n\r\n"
            )),
            Reply::sse(format!("data:{it}\n\nevent: x\ndata:{is}\n\ndata:{end}\n\n")),
            Reply::sse(format!("data: {it}\n\ndata: {is}\n\ndata: [DONE]\n\n")),
            Reply::raw(
                "text/event-stream; charset=utf-8",
                format!("data: {it}\n\ndata: {is}\n\ndata: {end}"),
            ),
            // It cannot stream, and says all at once.
            Reply::raw("application/json", whole),
        ] {
            let shown = format!("{reply:?}");
            stack.provider.model("model-judge").reply(reply);
            let answer = stack.ask_stream().send().await;
            let events = answer.events();
            let said: String = events
                .iter()
                .filter(|event| !event.is_done())
                .filter_map(|event| {
                    event.json()["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
                })
                .collect();
            assert_eq!(said, "It is é", "{shown}: {}", answer.text());
            assert!(events.last().is_some_and(|event| event.is_done()), "{shown}");
            assert_eq!(answer.header("x-ensemble-outcome"), "full");
        }
    }
}
