//! What is no ensemble's reaches its upstream as it was sent.

use consort_testkit::http;
use consort_testkit::upstream::{Framing, hash};
use http::Call;
use serde_json::json;

use crate::stack::{ALIAS, CHAT, Options, Stack};

/// A plain model's request body of exactly `size` bytes (or the nearest that JSON allows).
fn plain(size: usize) -> Vec<u8> {
    let frame = br#"{"model":"gpt-4o","x":""}"#.len();
    if size < frame {
        return vec![b'{'; size];
    }
    // Bytes that tell their place, so that a swapped or lost piece changes the hash.
    let filler: String =
        (0..size - frame).map(|i| char::from(b'a' + u8::try_from(i / 977 % 26).unwrap())).collect();
    format!(r#"{{"model":"gpt-4o","x":"{filler}"}}"#).into_bytes()
}

/// Sends `body` with a content-length, then chunked, and compares what arrives.
async fn passes(stack: &Stack, body: &[u8], call: impl Fn() -> Call) {
    let before = stack.upstream.requests().len();
    let answer = call().body(body.to_vec()).send().await;
    assert_eq!((answer.status.as_u16(), answer.header("x-upstream")), (200, "echo"), "{} bytes", body.len());
    let mut upload = call().upload(&[]).await;
    for piece in body.chunks(100_000) {
        assert!(upload.piece(piece.to_vec()).await);
    }
    assert_eq!(upload.finish().await.rest().await.header("x-upstream"), "echo");
    let arrived = stack.upstream.wait_for(before + 2).await.split_off(before);
    for (arrived, framing) in arrived.iter().zip([Framing::Length(body.len() as u64), Framing::Chunked]) {
        assert!(arrived.complete);
        assert_eq!((arrived.length, arrived.hash), (body.len(), hash(body)), "{framing:?}");
        assert_eq!(arrived.framing, framing, "{} bytes", body.len());
    }
}

#[tokio::test]
async fn bodies_of_any_size_pass_byte_for_byte() {
    let stack = Stack::start().await;
    for size in [1, 64 << 10, 1 << 20, 20 << 20] {
        passes(&stack, &plain(size), || {
            http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json")
        })
        .await;
    }
    passes(&stack, &plain(300_000), || {
        http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json").h2c()
    })
    .await;
    assert!(stack.provider.requests().is_empty());
}

#[tokio::test]
async fn bodies_of_any_size_pass_byte_for_byte_when_buffered() {
    let stack = Options::buffered().start().await;
    for size in [1, 64 << 10, 1 << 20, 20 << 20] {
        passes(&stack, &plain(size), || {
            http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json")
        })
        .await;
    }
    assert!(stack.provider.requests().is_empty());
}

/// A body and the extra headers it is sent with.
type Case = (&'static str, &'static [(&'static str, &'static str)], Vec<u8>);

#[tokio::test]
async fn what_names_no_alias_passes_in_both_attachments() {
    let alias = |text: &str| text.replace("ALIAS", ALIAS).into_bytes();
    let json_type: &[_] = &[("content-type", "application/json")];
    let cases: Vec<Case> = vec![
        ("empty", json_type, Vec::new()),
        ("no JSON", json_type, b"hello".to_vec()),
        ("cut JSON", json_type, br#"{"model":"res"#.to_vec()),
        ("no model", json_type, br#"{"messages":[]}"#.to_vec()),
        ("model is no text", json_type, br#"{"model":["research-ensemble"]}"#.to_vec()),
        ("nested only", json_type, alias(r#"{"metadata":{"model":"ALIAS"},"messages":[{"model":"ALIAS"}]}"#)),
        ("as a text", json_type, alias(r#"{"x":"\"model\":\"ALIAS\"","model":"gpt-4o"}"#)),
        ("another first", json_type, alias(r#"{"model":"gpt-4o","model":"ALIAS"}"#)),
        ("direct model", json_type, br#"{"model":"model-a"}"#.to_vec()),
        (
            "gzip",
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            alias(r#"{"model":"ALIAS"}"#),
        ),
        ("form", &[("content-type", "application/x-www-form-urlencoded")], alias(r#"{"model":"ALIAS"}"#)),
    ];
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for (name, headers, body) in &cases {
            let call = http::post(stack.envoy.addr(), CHAT).body(body.clone());
            let call = headers.iter().fold(call, |call, (k, v)| call.header(k, v));
            let answer = call.send().await;
            assert_eq!(answer.header("x-upstream"), "echo", "{name}: {}", answer.text());
            let arrived = stack.upstream.requests().pop().unwrap();
            assert_eq!(arrived.body.as_deref(), Some(&**body), "{name}");
        }
        assert!(stack.provider.requests().is_empty());
    }
}

#[tokio::test]
async fn an_alias_is_recognised_however_it_is_written() {
    let messages = r#""messages":[{"role":"user","content":"why?"}]"#;
    let padding = "x".repeat(3 << 20);
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for body in [
            format!(r#"{{"\u006dodel":"\u0072esearch-ensemble",{messages}}}"#),
            format!(r#"{{{messages},"metadata":{{"model":"gpt-4o"}},"model":"{ALIAS}"}}"#),
            format!(" {{ \"user\" : \"{padding}\" , {messages} , \"model\" : \"{ALIAS}\" }} "),
        ] {
            let call = http::post(stack.envoy.addr(), CHAT)
                .header("content-type", "application/json; charset=utf-8");
            let answer = call.body(body.clone()).send().await;
            assert_eq!(answer.header("x-ensemble-outcome"), "full", "{} {}", &body[..80], answer.text());
        }
        let twice = format!(r#"{{"model":"{ALIAS}",{messages},"model":"gpt-4o"}}"#);
        let answer = http::post(stack.envoy.addr(), CHAT)
            .header("content-type", "application/json")
            .body(twice)
            .send()
            .await;
        assert_eq!((answer.status.as_u16(), &answer.json()["error"]["param"]), (400, &json!("model")));
        assert!(stack.upstream.requests().is_empty());
    }
}

#[tokio::test]
async fn an_alias_in_pieces_is_collected() {
    let stack = Stack::start().await;
    let mut upload =
        http::post(stack.envoy.addr(), CHAT).header("content-type", "application/json").upload(&[]).await;
    for piece in
        [r#"{"mess"#, r#"ages":[{"role":"user","content":"é"#, r#""}],"model":"research-"#, r#"ensemble"}"#]
    {
        assert!(upload.piece(piece).await);
        tokio::time::sleep(crate::stack::ms(20)).await;
    }
    let answer = upload.finish().await.rest().await;
    assert_eq!(answer.header("x-ensemble-outcome"), "full", "{}", answer.text());
}

#[tokio::test]
async fn other_methods_and_paths_open_no_stream_to_consort() {
    let stack = Stack::start().await;
    for method in ["GET", "HEAD", "DELETE"] {
        let answer = Call::new(method.parse().unwrap(), stack.envoy.addr(), CHAT).send().await;
        assert_eq!(answer.header("x-upstream"), "echo", "{method}");
    }
    let body = json!({"model": ALIAS, "input": "x"});
    for path in ["/v1/embeddings", "/v1/chat/completions/abc", "/"] {
        assert_eq!(
            http::post(stack.envoy.addr(), path).json(&body).send().await.header("x-upstream"),
            "echo",
            "{path}"
        );
    }
    assert_eq!(stack.envoy.stats("http.llm.ext_proc.consort.streams_started").await, 0);
    stack.ask(json!({})).send().await;
    assert_eq!(stack.envoy.stats("http.llm.ext_proc.consort.streams_started").await, 1);
}
