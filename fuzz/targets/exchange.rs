//! Conversations with Envoy. The first line tells the attachment, each further one a message by its first letter.

#![no_main]

use std::sync::{Arc, LazyLock};

use consort::config::{Environment, Format, Source};
use consort::ensemble::Snapshot;
use consort::ext_proc::ModeOverride;
use consort::ext_proc::fuzzing::{Attachment, BodySendMode, Said, play};
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = r#"
providers: [{name: p, base_url: "http://127.0.0.1:1/v1"}]
models:
- {display_name: a, provider: p, model_name: m}
- {display_name: team, ensemble: {panel: [{model: a}], judge: {model: a}}}
"#;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    let source = Source { name: "x", text: CONFIG, format: Format::Yaml, environment: &Environment::new() };
    source.load().expect("it loads").snapshot
});

/// More blanks than go into one message back to Envoy.
const LARGE: usize = 70_000;

fn attachment(line: &[u8]) -> Attachment {
    let has = |letter| line.contains(&letter);
    let base = match line.first() {
        Some(b'n') => Some(BodySendMode::None),
        Some(b's') => Some(BodySendMode::Streamed),
        Some(b'b') => Some(BodySendMode::Buffered),
        Some(b'p') => Some(BodySendMode::BufferedPartial),
        Some(b'd') => Some(BodySendMode::FullDuplexStreamed),
        Some(b'g') => Some(BodySendMode::Grpc),
        _ => None,
    };
    Attachment {
        base,
        mode_override: if has(b'!') { ModeOverride::Never } else { ModeOverride::Standalone },
        max_request_bytes: if has(b'0') { 24 } else { 1 << 20 },
        redirects: has(b'>'),
    }
}

fn said(line: &[u8]) -> Said {
    let (letter, text) = line.split_first().unwrap_or((&b'0', &[]));
    let headers = |is_chat, end| Said::Headers { is_chat, end };
    match letter {
        b'h' => headers(true, false),
        b'o' => headers(false, false),
        b'H' => headers(true, true),
        b't' => Said::Trailers,
        b'r' => Said::ResponseHeaders,
        b'R' => Said::ResponseBody,
        b'q' => Said::ResponseTrailers,
        b'0' => Said::Nothing,
        b'l' => Said::Body([&vec![b' '; LARGE], text].concat(), false),
        b'L' => Said::Body([&vec![b' '; LARGE], text].concat(), true),
        b'B' => Said::Body(text.to_vec(), true),
        b'b' => Said::Body(text.to_vec(), false),
        _ => Said::Body(line.to_vec(), false),
    }
}

fuzz_target!(|script: &[u8]| {
    let mut lines = script.split(|byte| *byte == b'\n');
    let attachment = attachment(lines.next().unwrap_or_default());
    if let Err(breach) = play(&SNAPSHOT, attachment, lines.take(16).map(said)) {
        panic!("{breach}");
    }
});
