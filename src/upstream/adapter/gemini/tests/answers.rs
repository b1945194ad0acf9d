use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::super::Failure;
use super::super::super::Stage;
use super::super::super::told::Style;
use super::super::super::told::compact;
use super::super::answer::Listener;
use crate::chat::{Collected, Event, MAX_PARTS, sse};

/// The message, what it ended with and what it cost.
fn told(events: Vec<Event>) -> (Value, String, Value) {
    let mut usage = Value::Null;
    let mut collected = Collected::default();
    for event in events {
        if let Event::Usage(reported) = &event {
            assert_eq!(usage, Value::Null, "usage is told once");
            usage = serde_json::to_value(reported).unwrap();
        }
        collected.push(event).unwrap();
    }
    let (completion, _) = collected.finish().unwrap();
    let mut message: Value = serde_json::from_str(completion.message.get()).unwrap();
    if let Some(logprobs) = completion.logprobs {
        message["logprobs"] = serde_json::from_str(logprobs.get()).unwrap();
    }
    (message, completion.finish_reason.unwrap().into(), usage)
}

fn whole(object: &Value) -> (Value, String, Value) {
    let pretty = serde_json::to_vec_pretty(object).unwrap();
    told(Listener::new(Style::Tools).whole(&pretty).unwrap())
}

fn stream(pieces: &[&[u8]]) -> Result<Vec<Event>, Failure> {
    let mut listener = Listener::new(Style::Tools);
    let mut decoder = sse::Decoder::new(1 << 20);
    let mut events = Vec::new();
    for piece in pieces {
        decoder.feed(piece).unwrap();
        while let Some(data) = decoder.next_event() {
            events.extend(listener.hear(&data)?);
        }
    }
    events.extend(listener.end()?);
    Ok(events)
}

fn candidate(parts: &[Value], finish: Option<&str>) -> Value {
    let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
    if let Some(finish) = finish {
        candidate["finishReason"] = json!(finish);
    }
    json!({"candidates": [candidate], "modelVersion": "gemini-x", "responseId": "r1",
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}})
}

fn parts() -> Vec<Value> {
    vec![
        json!({"text": "Hm, ", "thought": true}),
        json!({"text": "well.", "thought": true}),
        json!({"text": "Let me "}),
        json!({"text": "look. 🙂", "thoughtSignature": "c2ln"}),
        json!({"functionCall": {"name": "weather", "args": {"city": "Köln \"am\" Rhein", "days": [1, 2]}}, "thoughtSignature": "c2ln"}),
        json!({"functionCall": {"id": "fc-1", "name": "now"}}),
        json!({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    ]
}

#[test]
fn text_thoughts_and_calls_each_have_their_place() {
    let (message, finish, usage) = whole(&candidate(&parts(), Some("STOP")));
    let made = message["tool_calls"][0]["id"].clone();
    assert!(made.as_str().is_some_and(|id| id.starts_with("call_") && id.len() == 21), "{made}");
    let function = json!({"name": "weather", "arguments": r#"{"city":"Köln \"am\" Rhein","days":[1,2]}"#});
    assert_eq!(
        message,
        json!({"role": "assistant", "content": "Let me look. 🙂", "refusal": null, "reasoning_content": "Hm, well.",
        "tool_calls": [
            {"id": made, "type": "function", "function": function},
            {"id": "fc-1", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ]})
    );
    assert_eq!(finish, "tool_calls");
    assert_eq!(usage, json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}));
}

proptest! {
    #[test]
    fn a_stream_tells_the_same_whatever_its_pieces_are(cuts in proptest::collection::vec(0..2000usize, 0..12)) {
        let mut objects: Vec<Value> = parts().into_iter().map(|part| candidate(&[part], None)).collect();
        objects.push(json!({"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2}}));
        let bytes: Vec<u8> = objects.iter().flat_map(|o| format!("data: {o}\r\n\r\n").into_bytes()).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
        prop_assert_eq!(told(stream(&pieces).unwrap()), whole(&candidate(&parts(), Some("STOP"))));
    }
}

#[test]
fn arguments_keep_their_numbers_and_lose_their_indentation() {
    for (written, expected) in [
        (r#"{ "a" : 0.10,  "b": [1, 2.50e3 ] }"#, r#"{"a":0.10,"b":[1,2.50e3]}"#),
        (r#"{"a b": "c  d \" e \\", "f":1 }"#, r#"{"a b":"c  d \" e \\","f":1}"#),
        ("{\n  \"a\":\t123456789012345678901234567890\n}", r#"{"a":123456789012345678901234567890}"#),
        ("{}", "{}"),
    ] {
        assert_eq!(compact(written), expected);
    }
}

#[test]
fn ids_are_ours_where_none_is_usable_and_equal_when_read_again() {
    let call = |id: Value, name: &str| json!({"functionCall": {"id": id, "name": name, "args": {"a": 1}}});
    let parts = [call(json!(null), "f"), call(json!(""), "f"), call(json!("x".repeat(41)), "g")];
    let ids = |response: &str| -> Vec<String> {
        let mut object = candidate(&parts, Some("STOP"));
        object["responseId"] = json!(response);
        let (message, ..) = whole(&object);
        let calls = message["tool_calls"].as_array().unwrap().iter();
        calls.map(|call| call["id"].as_str().unwrap().to_owned()).collect()
    };
    let first = ids("r1");
    assert!(first.iter().all(|id| id.len() == 21), "{first:?}");
    assert!(first[0] != first[1] && first[1] != first[2], "{first:?}");
    assert_eq!(ids("r1"), first);
    assert!(ids("r2").iter().all(|id| !first.contains(id)));
}

#[test]
fn what_a_filter_took_away_is_told() {
    let blocked = json!({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 9}});
    let nothing = json!({"role": "assistant", "content": null, "refusal": null});
    let (message, finish, usage) = whole(&blocked);
    assert_eq!((message, &*finish, &usage["prompt_tokens"]), (nothing.clone(), "content_filter", &json!(9)));
    let event = format!("data: {blocked}\n\n");
    let (message, finish, _) = told(stream(&[event.as_bytes()]).unwrap());
    assert_eq!((message, &*finish), (nothing.clone(), "content_filter"));
    let (message, finish, _) = whole(&json!({"candidates": [{"finishReason": "SAFETY"}]}));
    assert_eq!((message, &*finish), (nothing, "content_filter"));
    // A prompt's feedback without a reason is none.
    let rated =
        json!({"promptFeedback": {"safetyRatings": []}, "candidates": [{"finishReason": "MAX_TOKENS"}]});
    assert_eq!(whole(&rated).1, "length");
}

#[test]
fn what_is_no_object_of_an_answer_is_an_error() {
    for json in
        ["", "[]", "<html>", "null", r#"{"candidates":{}}"#, r#"{"candidates":[{"content":{"parts":[7]}}]}"#]
    {
        let mut listener = Listener::new(Style::Tools);
        assert!(matches!(listener.whole(json.as_bytes()), Err(Failure::Unreadable(_))), "{json}");
        assert!(matches!(listener.hear(json.as_bytes()), Err(Failure::Unreadable(_))), "{json}");
    }
    let error = br#"{"error":{"code":500,"message":"secret host","status":"INTERNAL"}}"#;
    assert!(matches!(Listener::new(Style::Tools).hear(error), Err(Failure::ErrorEvent)));
}

#[test]
fn a_stream_ends_with_its_reason_or_is_incomplete() {
    let mut listener = Listener::new(Style::Tools);
    for (text, count) in [("a", 1), ("b", 2), ("c", 5)] {
        let mut object = candidate(&[json!({"text": text})], None);
        object["usageMetadata"]["candidatesTokenCount"] = json!(count);
        assert_eq!(listener.hear(object.to_string().as_bytes()).unwrap().len(), 1);
        assert_eq!(listener.stage(), Stage::Speaking);
    }
    assert!(matches!(listener.end(), Err(Failure::Incomplete)));
    let last = json!({"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]});
    assert_eq!(listener.hear(last.to_string().as_bytes()).unwrap().len(), 0);
    assert_eq!(listener.stage(), Stage::Finished);
    let [Event::Finish(finish), Event::Usage(usage)] = &listener.end().unwrap()[..] else {
        panic!("a reason, then the usage")
    };
    assert_eq!((&**finish, usage.count("completion_tokens")), ("malformed_function_call", 5));
}

#[test]
fn the_first_candidate_is_read_and_no_other() {
    let object =
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"},{"content":7},8]}"#;
    for said in [
        Listener::new(Style::Tools).whole(object.as_bytes()),
        Listener::new(Style::Tools).hear(object.as_bytes()),
    ] {
        assert!(!said.unwrap().is_empty());
    }
}

#[test]
fn an_answer_has_as_many_parts_as_are_held_and_one_past_that_is_none() {
    let of = |parts: usize| {
        let parts = vec![r#"{"text":"a"}"#; parts].join(",");
        let object = format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}]}}}}]}}"#);
        Listener::new(Style::Tools).whole(object.as_bytes())
    };
    assert!(of(MAX_PARTS).is_ok());
    assert!(matches!(of(MAX_PARTS + 1), Err(Failure::Unreadable(_))));
}

#[test]
fn log_probabilities_come_with_the_text_they_belong_to() {
    let mut object = candidate(&[json!({"text": "so", "thought": true}), json!({"text": "a"})], Some("STOP"));
    object["candidates"][0]["logprobsResult"] =
        json!({"chosenCandidates": [{"token": "a", "logProbability": -0.5}]});
    let expected = json!({"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}], "refusal": null});
    assert_eq!(whole(&object).0["logprobs"], expected);
    let events = Listener::new(Style::Tools).hear(object.to_string().as_bytes()).unwrap();
    let [Event::Delta(thought), Event::Delta(text)] = &events[..] else { panic!("{events:?}") };
    assert!(thought.logprobs.is_none());
    assert_eq!(serde_json::from_str::<Value>(text.logprobs.as_ref().unwrap().get()).unwrap(), expected);
}

#[test]
fn functions_of_the_old_kind_are_called_the_old_way() {
    let parts =
        [json!({"functionCall": {"name": "f", "args": {"a": 1}}}), json!({"functionCall": {"name": "g"}})];
    let object = candidate(&parts, Some("STOP"));
    let (message, finish, _) =
        told(Listener::new(Style::Functions).whole(object.to_string().as_bytes()).unwrap());
    assert_eq!(message["function_call"], json!({"name": "f", "arguments": "{\"a\":1}"}));
    assert_eq!((message.get("tool_calls"), &*finish), (None, "function_call"));
}
