//! What callers can make large ends at a bound.

use std::net::SocketAddr;

use consort_testkit::eventually;
use consort_testkit::http::{self, Answer, Call};
use serde_json::json;

use crate::stack::{ALIAS, CHAT, Options, Stack, ms, question};

fn post(addr: SocketAddr) -> Call {
    http::post(addr, CHAT).header("content-type", "application/json")
}

/// A question of exactly so many bytes.
fn sized(bytes: usize) -> String {
    let frame = question(json!({"user": ""})).to_string().len();
    question(json!({"user": "x".repeat(bytes - frame)})).to_string()
}

async fn ask(addr: SocketAddr, bytes: usize) -> Answer {
    post(addr).body(sized(bytes)).send().await
}

async fn doors() -> (Stack, [SocketAddr; 2]) {
    let bounds = "limits: {max_request_bytes: 20000, max_held_bytes: 30000}";
    let stack = Options::new().config(bounds).start().await;
    let doors = [stack.envoy.addr(), stack.service.http()];
    (stack, doors)
}

#[tokio::test]
async fn a_body_may_be_as_large_as_the_bound_and_not_a_byte_larger() {
    let (_stack, doors) = doors().await;
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
    let (stack, doors) = doors().await;
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
    let (_stack, doors) = doors().await;
    for door in doors {
        let with = |bytes: usize| post(door).header("x-long", &"x".repeat(bytes)).body(sized(1000)).send();
        assert_eq!(with(40_000).await.status.as_u16(), 200);
        assert_eq!(with(70_000).await.status.as_u16(), 431);
    }
}
