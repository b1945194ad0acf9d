//! What a caller has heard, in a few words.

use std::time::{Duration, Instant};

use consort_testkit::http::Call;
use serde_json::Value;

/// An answer, as far as it came.
pub(super) struct Heard {
    /// None: there was no answer, or only a part of its headers.
    status: Option<u16>,
    outcome: String,
    upstream: bool,
    text: String,
    code: String,
    is_stream: bool,
    is_whole: bool,
    pub(super) took: Duration,
}

/// Asks, and hears until the end, whatever it is. After each word of a stream, `word` is called.
pub(super) async fn hear(call: Call, mut word: impl FnMut()) -> Heard {
    let began = Instant::now();
    let mut heard = Heard {
        status: None,
        outcome: String::new(),
        upstream: false,
        text: String::new(),
        code: String::new(),
        is_stream: false,
        is_whole: false,
        took: Duration::ZERO,
    };
    if let Ok(mut live) = call.patience(Duration::from_secs(45)).try_open().await {
        let header = |name: &str| {
            live.headers
                .get(name)
                .map(|value| value.to_str().unwrap_or_default().to_owned())
                .unwrap_or_default()
        };
        heard.status = Some(live.status.as_u16());
        heard.outcome = header("x-ensemble-outcome");
        heard.upstream = !header("x-upstream").is_empty();
        heard.is_stream = header("content-type").starts_with("text/event-stream");
        if heard.is_stream {
            while let Some(event) = live.event().await {
                if event.is_done() {
                    heard.is_whole = true;
                } else if event.data.is_some() {
                    heard.take(&event.json(), "/choices/0/delta/content");
                    word();
                }
            }
        } else {
            let answer = live.rest().await;
            heard.is_whole = answer.broken.is_none();
            let json = serde_json::from_slice(&answer.body).unwrap_or_default();
            heard.take(&json, "/choices/0/message/content");
        }
    }
    heard.took = began.elapsed();
    heard
}

impl Heard {
    fn take(&mut self, json: &Value, content: &str) {
        self.text.push_str(json.pointer(content).and_then(Value::as_str).unwrap_or_default());
        self.code.push_str(json.pointer("/error/code").and_then(Value::as_str).unwrap_or_default());
    }

    /// What it comes to for the caller who asked the question of this id.
    pub(super) fn told(&self, id: &str) -> String {
        if self.upstream {
            return "the upstream's".to_owned();
        }
        if let Some(other) = self.text.split_whitespace().find(|word| !is_of(word, id)) {
            return format!("another's: {other}");
        }
        let Some(status) = self.status else { return "cut".to_owned() };
        match (status, &*self.code) {
            (200, "") if !self.is_whole => "200, broken off".to_owned(),
            (200, "") if self.text.is_empty() => "200, empty".to_owned(),
            (200, "") => format!("200 {}", self.outcome),
            (200, code) if self.is_stream && !self.is_whole => format!("200, then {code}"),
            (status, code) => format!("{status} {code}").trim_end().to_owned(),
        }
    }
}

/// Whether a word is of an answer to this question: it says so itself.
fn is_of(word: &str, id: &str) -> bool {
    word.split_once('-').is_some_and(|(_, of)| of == id)
}
