//! What providers answer: it is told to the caller, or is an error, whatever it is. The first letter tells the format.

#![no_main]

use bytes::Bytes;
use consort::chat::{Answer, Collected, Event, RawObject};
use consort::upstream::Failure;
use consort::upstream::fuzzing::Wire;
use consort_fuzz::cuts;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// How much larger than what a provider says may be what a caller is told: each piece has a chunk around it.
const FACTOR: usize = 64;
const OVERHEAD: usize = 4096;

fn check(events: &[Event], from: usize) {
    let mut answer = Answer::new("team", true);
    let mut collected = Collected::default();
    let (mut told, mut finishes, mut is_readable) = (0, 0, true);
    for event in events {
        told += answer.event(event).expect("what was heard can be told").len();
        finishes += usize::from(matches!(event, Event::Finish(_)));
        match event {
            Event::Delta(delta) => {
                let object = RawObject::parse(delta.json.clone()).expect("a delta is an object");
                assert!(object.raw("role").is_none(), "ours has been sent");
            }
            Event::Message(message) => check_pieces(message),
            _ => {}
        }
        is_readable &= collected.push(event.clone()).is_ok();
    }
    assert!(finishes <= 1, "it ends {finishes} times");
    assert!(told <= FACTOR * from + OVERHEAD, "{told} bytes are told of {from}");
    if is_readable {
        // Pieces need not make a message; they may not make anybody stumble.
        let _ = collected.finish();
    }
}

/// A text that is cut into pieces is the same text when they are put together.
fn check_pieces(message: &consort::chat::Completion) {
    let raw = RawObject::parse(Bytes::copy_from_slice(message.message.get().as_bytes())).expect("an object");
    let Ok(Some(Value::String(text))) = raw.read::<Value>("content") else { return };
    let mut collected = Collected::default();
    for delta in message.to_deltas().expect("a message has pieces") {
        if collected.push(Event::Delta(delta)).is_err() {
            // A number that no parser of values takes, in a vendor's field.
            return;
        }
    }
    let Ok((again, _)) = collected.finish() else { return };
    assert_eq!(again.content.as_deref().unwrap_or_default(), text);
}

fn label(broke: &Option<Failure>) -> Option<&'static str> {
    broke.as_ref().map(Failure::label)
}

fuzz_target!(|data: &[u8]| {
    let (letter, body) = data.split_first().unwrap_or((&b'o', &[]));
    let wire = match letter.to_ascii_lowercase() {
        b'a' => Wire::Anthropic,
        b'g' => Wire::Gemini,
        _ => Wire::OpenAi,
    };
    let functions = letter.is_ascii_uppercase();
    if let Ok(events) = wire.whole(functions, body) {
        check(&events, body.len());
    }
    let (expected, broke) = wire.streamed(functions, [body], usize::MAX);
    check(&expected, body.len());
    let shown = format!("{expected:?}");
    for pieces in cuts(body).into_iter().skip(1) {
        let (events, again) = wire.streamed(functions, pieces.iter().copied(), usize::MAX);
        assert_eq!((format!("{events:?}"), label(&again)), (shown.clone(), label(&broke)), "{pieces:?}");
    }
    let (events, _) = wire.streamed(functions, [body], 64);
    check(&events, body.len());
    for status in [400, 429, 500] {
        let (status, error, _) = wire.refused(status.try_into().expect("a status"), body);
        assert!(status.is_client_error() || status.is_server_error());
        assert!(error.is_none_or(|error| error.message.len() <= body.len()));
    }
});
