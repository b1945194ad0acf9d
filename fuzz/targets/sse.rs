//! Server-sent events: the same bytes give the same events however they are cut, and those of the standard.

#![no_main]

use consort::chat::sse::Decoder;
use consort_fuzz::cuts;
use libfuzzer_sys::fuzz_target;

/// The data of the complete events, then that of one that lacks its blank line; or how many came before one that was
/// too long.
type Decoded = (Vec<Vec<u8>>, Option<Option<Vec<u8>>>);

fn decoded(pieces: &[&[u8]], max_event_bytes: usize) -> Decoded {
    let mut decoder = Decoder::new(max_event_bytes);
    let mut events = Vec::new();
    for piece in pieces {
        let fed = decoder.feed(piece);
        events.extend(std::iter::from_fn(|| decoder.next_event()).map(|event| event.to_vec()));
        if fed.is_err() {
            return (events, None);
        }
    }
    let last = decoder.finish();
    (events, last.ok().map(|last| last.map(|event| event.to_vec())))
}

/// The standard, read line by line.
fn standard(stream: &[u8]) -> Decoded {
    let mut rest = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let (mut events, mut data) = (Vec::new(), None::<Vec<u8>>);
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let line = &rest[..end.unwrap_or(rest.len())];
        rest = match &rest[line.len()..] {
            [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
            [] => &[],
        };
        if line.is_empty() {
            events.extend(data.take());
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        if &line[..colon.unwrap_or(line.len())] == b"data" {
            let value = colon.map_or(&b""[..], |colon| &line[colon + 1..]);
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            }
        }
    }
    (events, Some(data))
}

fuzz_target!(|stream: &[u8]| {
    let expected = standard(stream);
    let bounded = [8, 40].map(|bound| (bound, decoded(&[stream], bound)));
    for pieces in cuts(stream) {
        assert_eq!(decoded(&pieces, usize::MAX), expected, "{pieces:?}");
        for (bound, expected) in &bounded {
            let decoded = decoded(&pieces, *bound);
            assert!(decoded.0.iter().all(|event| event.len() <= *bound), "an event is over the bound");
            assert_eq!(decoded, *expected, "{pieces:?} with a bound of {bound}");
        }
    }
});
