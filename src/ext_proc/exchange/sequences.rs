//! Every short sequence of messages, in every mode.

use super::oracle::{Attachment, Said, play};
use super::*;
use crate::ensemble::fixture;

/// How many messages follow the first one.
const MOST: usize = 5;

fn snapshot() -> Arc<Snapshot> {
    Arc::new(Snapshot::new([fixture::ensemble("team")]))
}

fn attachments() -> impl Iterator<Item = Attachment> {
    use BodySendMode::{Buffered, BufferedPartial, FullDuplexStreamed, Grpc, None, Streamed};
    let told = [None, Streamed, Buffered, BufferedPartial, FullDuplexStreamed, Grpc].map(Some);
    let bases = told.into_iter().chain([Option::None]).map(|base| (base, ModeOverride::Standalone));
    // In the other modes nothing is overridden.
    let never = [None, Streamed].map(|base| (Some(base), ModeOverride::Never));
    bases.chain(never).flat_map(|(base, mode_override)| {
        let bounds = [(1 << 20, false), (1 << 20, true), (12, false)];
        bounds.map(|(max_request_bytes, redirects)| Attachment {
            base,
            mode_override,
            max_request_bytes,
            redirects,
        })
    })
}

/// What may come first.
fn firsts() -> Vec<Said> {
    let headers = |is_chat, end| Said::Headers { is_chat, end };
    vec![
        headers(true, false),
        headers(false, false),
        headers(true, true),
        Said::Trailers,
        Said::ResponseHeaders,
        Said::ResponseBody,
        Said::ResponseTrailers,
        Said::Nothing,
    ]
}

/// What may come next.
fn nexts() -> Vec<Said> {
    let body = |text: &str, end| Said::Body(text.as_bytes().to_vec(), end);
    vec![
        body(r#"{"model":"#, false),
        body(r#""team""#, false),
        body("}", false),
        body("", false),
        body("}", true),
        body(r#"{"model":"team"}"#, true),
        body(r#"{"model":"gpt"}"#, true),
        body("", true),
        Said::Trailers,
        Said::ResponseHeaders,
        Said::Headers { is_chat: true, end: false },
        Said::Nothing,
    ]
}

/// Plays `played` and every way in which it may go on; how many sequences that are.
fn explore(
    snapshot: &Arc<Snapshot>,
    attachment: Attachment,
    nexts: &[Said],
    played: &mut Vec<Said>,
) -> usize {
    let is_over = play(snapshot, attachment, played.iter().cloned()).unwrap_or_else(|breach| {
        panic!("{breach}: {played:?}");
    });
    // What comes after the end is of no consequence: one of each shows it.
    if is_over {
        let after = nexts.iter().cloned();
        let breach = play(snapshot, attachment, played.iter().cloned().chain(after)).err();
        assert_eq!(breach, None, "{played:?}");
        return 1;
    }
    let mut sequences = 1;
    if played.len() <= MOST {
        for next in nexts {
            played.push(next.clone());
            sequences += explore(snapshot, attachment, nexts, played);
            played.pop();
        }
    }
    sequences
}

#[test]
fn no_short_sequence_of_messages_is_answered_out_of_turn() {
    let (snapshot, nexts) = (snapshot(), nexts());
    let mut sequences = 0;
    for attachment in attachments() {
        for first in firsts() {
            sequences += explore(&snapshot, attachment, &nexts, &mut vec![first]);
        }
    }
    assert!(sequences > 100_000, "{sequences} sequences");
}
