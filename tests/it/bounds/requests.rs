//! What callers can make large.

use std::net::SocketAddr;

use consort_testkit::eventually;
use consort_testkit::http::Call;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ask, doors, post, sized};
use crate::stack::{ALIAS, CHAT, Options, ms};

const BOUNDS: &str = "limits: {max_request_bytes: 20000, max_held_bytes: 30000}";

#[tokio::test]
async fn a_body_may_be_as_large_as_the_bound_and_not_a_byte_larger() {
    let (_stack, doors) = doors(BOUNDS).await;
    for door in doors {
        assert_eq!(ask(door, 20_000).await.status.as_u16(), 200);
        let answer = ask(door, 20_001).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["error"]["code"]),
            (413, &json!("request_too_large"))
        );
    }
}

#[tokio::test]
async fn bodies_that_still_arrive_are_bounded_together() {
    let (stack, doors) = doors(BOUNDS).await;
    for door in doors {
        // Where the whole body comes first, it is the upload that finds no room: then once more.
        let (mut upload, refused) = eventually("a body without room", ms(10_000), async || {
            let mut upload = post(door).upload(&[]).await;
            let begun = format!("{{\"model\":\"{ALIAS}\",\"user\":\"{}\"", "x".repeat(14_000));
            assert!(upload.piece(begun).await);
            let answer = ask(door, 19_000).await;
            Some((upload, answer)).filter(|(_, answer)| answer.status.as_u16() != 200)
        })
        .await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["code"], refused.header("retry-after")),
            (503, &json!("overloaded"), "1")
        );
        assert_eq!(ask(door, 10_000).await.status.as_u16(), 200, "there is room for a smaller one");
        // What passes is not held.
        let plain = sized(19_000).replace(ALIAS, "gpt-4o");
        let passed = post(stack.envoy.addr()).body(plain).send().await;
        assert_eq!(passed.header("x-upstream"), "echo");
        assert!(upload.piece(r#","messages":[{"role":"user","content":"why?"}]}"#).await);
        assert_eq!(upload.finish().await.rest().await.status.as_u16(), 200);
        eventually("room again", ms(10_000), async || {
            let answer = ask(door, 20_000).await;
            Some(()).filter(|()| answer.status.as_u16() == 200)
        })
        .await;
    }
}

#[tokio::test]
async fn a_head_is_bounded_at_both_doors() {
    let (_stack, doors) = doors(BOUNDS).await;
    for door in doors {
        let with = |bytes: usize| post(door).header("x-long", &"x".repeat(bytes)).body(sized(1000)).send();
        assert_eq!(with(40_000).await.status.as_u16(), 200);
        assert_eq!(with(70_000).await.status.as_u16(), 431);
    }
}

#[tokio::test]
async fn a_head_over_http2_is_bounded() {
    let (stack, _) = doors(BOUNDS).await;
    let post = || post(stack.service.http()).h2c().body(sized(1000));
    let with = |bytes: usize| post().header("x-long", &"x".repeat(bytes)).send();
    assert_eq!(with(96_000).await.status.as_u16(), 200);
    assert_eq!(with(99_000).await.status.as_u16(), 431);
    // Of which each counts 32 bytes more than it has.
    let with = |fields: usize| (0..fields).fold(post(), |call, _| call.header("x", "x")).send();
    assert_eq!(with(2_800).await.status.as_u16(), 200);
    assert_eq!(with(3_000).await.status.as_u16(), 431);
}

#[tokio::test]
async fn the_bounds_of_a_head_are_an_operators() {
    let (stack, _) = doors("http: {max_head_bytes: 8192, max_headers: 10}").await;
    let door = stack.service.http();
    let with = |call: Call, bytes: usize| call.header("x-long", &"x".repeat(bytes)).body(sized(1000)).send();
    for (call, fits, more) in [(post(door), 7000, 9000), (post(door).h2c(), 11_000, 13_000)] {
        assert_eq!(with(call.clone(), fits).await.status.as_u16(), 200);
        assert_eq!(with(call, more).await.status.as_u16(), 431);
    }
    assert_eq!((with_fields(door, 10).await, with_fields(door, 11).await), (200, 431));
}

#[tokio::test]
async fn a_head_that_envoy_takes_is_taken_where_it_is_handed_over() {
    let stack = Options::handoff().start().await;
    for call in [stack.ask(json!({})), stack.ask(json!({})).h2c()] {
        assert_eq!(call.header("x-long", &"x".repeat(60_000)).send().await.status.as_u16(), 200);
    }
}

/// The status of a request with so many header fields in all.
async fn with_fields(door: SocketAddr, fields: usize) -> u16 {
    let body = sized(1000);
    let more: String = (3..fields).map(|i| format!("x-field-{i}: x\r\n")).collect();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{more}\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(door).await.expect("the door is open");
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.write_all(body.as_bytes()).await.expect("written");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("an answer");
    String::from_utf8_lossy(&status[9..]).parse().expect("a status")
}

#[tokio::test]
async fn connections_beyond_the_bound_wait() {
    let (stack, _) = doors("http: {max_connections: 2}").await;
    let door = stack.service.http();
    let open = async || TcpStream::connect(door).await.expect("the system takes it");
    let held = [open().await, open().await];
    let waiting = tokio::spawn(ask(door, 1000));
    tokio::time::sleep(ms(300)).await;
    assert!(!waiting.is_finished(), "nobody has taken the third one");
    drop(held);
    assert_eq!(waiting.await.expect("an answer").status.as_u16(), 200);
}

#[tokio::test]
async fn the_fields_of_a_head_are_counted_at_both_doors() {
    let (_stack, doors) = doors(BOUNDS).await;
    for door in doors {
        assert_eq!(with_fields(door, 100).await, 200, "up to the bound");
        assert_eq!(with_fields(door, 101).await, 431, "one past it");
    }
}
