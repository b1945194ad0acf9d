//! What callers, providers and operators can make large ends at a bound: the table in `docs/limits.md`, row by row.

use std::net::SocketAddr;

use consort_testkit::http::{self, Answer, Call};
use serde_json::json;

use crate::stack::{CHAT, Options, Stack, question};

mod amplified;
mod providers;
mod requests;
mod runs;
mod slow;
mod table;

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

/// An installation with these sections in its file, and its two doors.
async fn doors(sections: &str) -> (Stack, [SocketAddr; 2]) {
    let stack = Options::new().config(sections).start().await;
    let doors = [stack.envoy.addr(), stack.service.http()];
    (stack, doors)
}
