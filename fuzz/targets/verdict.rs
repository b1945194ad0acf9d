//! What is read from answers: verdicts, and the keys and numbers of every kind of answer.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use consort::chat::{Completion, Request, Thinking, without_reasoning};
use consort::ensemble::fuzzing::{best, grades};
use consort::ensemble::{Key, Pattern, Pointer, Reader, Reading};
use libfuzzer_sys::fuzz_target;
use serde_json::json;

static READERS: LazyLock<Vec<Reader>> = LazyLock::new(|| {
    let pattern = |text| Pattern::parse(text).expect("a pattern");
    let pointer = || Pointer::parse("/a/0").expect("a pointer");
    let readings = [
        Reading::Text,
        Reading::Choice(None),
        Reading::Choice(Some(pattern("answer is (\\w+)"))),
        Reading::Number { pattern: None, pointer: None },
        Reading::Number { pattern: Some(pattern("=(.*)")), pointer: None },
        Reading::Number { pattern: None, pointer: Some(pointer()) },
        Reading::Json(None),
        Reading::Json(Some(pointer())),
        Reading::Regex(pattern("<(.+?)>")),
        Reading::Code,
    ];
    let request = |more: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"?"}}]{more}}}"#);
        Request::parse(Bytes::from(body)).expect("a request")
    };
    let tools = r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":
        {"x":{"type":"number","default":1}}}}}]"#;
    let mut readers: Vec<Reader> = readings.iter().map(|reading| Reader::of(reading, &request(""))).collect();
    readers.push(Reader::of(&Reading::Auto, &request(tools)));
    readers
});

fn says(text: &str) -> Completion {
    let message = json!({"role": "assistant", "content": text});
    let raw = serde_json::value::to_raw_value(&message).expect("it is JSON");
    Completion::from_message(raw).expect("a message")
}

fn check_verdicts(completion: &Completion, text: &str) {
    let other = says("Paris.");
    for count in [1, 2, 3, 28] {
        let candidates = vec![&other; count];
        if let Some(marks) = best(completion, &candidates) {
            assert_eq!(marks.len(), count);
            assert_eq!(marks.iter().filter(|mark| **mark == Some(1.0)).count(), 1, "{text}");
            assert_eq!(marks.iter().filter(|mark| **mark == Some(0.0)).count(), count - 1, "{text}");
        }
        if let Some(marks) = grades(completion, &candidates) {
            assert_eq!(marks.len(), count);
            assert!(marks.iter().flatten().all(|grade| (0.0..=10.0).contains(grade)), "{marks:?}");
            assert!(marks.iter().any(Option::is_some), "a verdict without a grade");
        }
    }
    // A judge that only cites has given no verdict. Reasoning is cut off from candidates and judges alike, from a
    // candidate that begins with it and not from a judge that cites it.
    if !text.contains('<') {
        let cites = says(&format!("It says: {text}"));
        assert_eq!(best(&cites, &[&other, completion]), None, "{text}");
        assert_eq!(grades(&cites, &[&other, completion]), None, "{text}");
    }
}

fn check_keys(completion: &Completion) {
    for reader in READERS.iter() {
        let (key, again) = (reader.key(completion), reader.key(completion));
        assert_eq!(key.is_some(), again.is_some());
        if let (Some(key), Some(again)) = (key, again) {
            assert_eq!(key.same(&again), !matches!(key, Key::Text(_)), "{key:?}");
            let shown = key.shown();
            assert!(!shown.is_empty() && shown.len() <= 64 && shown == again.shown(), "{shown}");
        }
        if let Some(found) = reader.number(completion) {
            let content = completion.content.as_deref().expect("it was found in it");
            let printed = content.get(found.span.clone()).expect("a part of the text");
            assert!(printed.chars().any(char::is_numeric), "{printed:?} is no number");
        }
    }
}

fn spoken(pieces: &[&str]) -> String {
    let mut thinking = Thinking::default();
    let mut said: String = pieces.iter().map(|piece| thinking.hear(piece)).collect();
    said.push_str(&thinking.rest());
    said
}

fuzz_target!(|text: &str| {
    let completion = says(text);
    check_verdicts(&completion, text);
    check_keys(&completion);
    assert!(text.ends_with(without_reasoning(text)));
    let letters: Vec<&str> = text.split_inclusive(|_| true).collect();
    let words: Vec<&str> = text.split_inclusive(['<', '>', ' ']).collect();
    let whole = spoken(&[text]);
    assert!(text.ends_with(&whole));
    assert_eq!(spoken(&letters), whole);
    assert_eq!(spoken(&words), whole);
    // As a message: with calls, parts, and whatever else one has.
    if let Ok(raw) = serde_json::from_str(text)
        && let Ok(completion) = Completion::from_message(raw)
    {
        check_keys(&completion);
        let _ = completion.without_reasoning();
    }
});
