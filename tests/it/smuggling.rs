//! Bodies and heads that parsers read in different ways: Consort and whoever comes behind it never disagree on
//! whether they are an ensemble's, but where the rule in `docs/security.md` says so.

use std::process::Stdio;

use consort_testkit::http::{self, Answer};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::stack::{ALIAS, CHAT, Options, Stack};

/// Which model a body names, by the ways in which parsers read it.
mod parsers {
    use serde_json::Value;

    /// As Rust and Node do: UTF-8 without a mark, the last of several keys, keys as they are.
    pub(super) fn last_wins(body: &[u8]) -> Option<String> {
        let value: Value = serde_json::from_slice(body).ok()?;
        Some(value.as_object()?.get("model")?.as_str()?.to_owned())
    }

    /// As Python's `json.loads` does with bytes, which servers made with Starlette hand it: in UTF-8, UTF-16 or UTF-32, by
    /// the byte order mark, or else by where the zeros stand.
    pub(super) fn any_encoding(body: &[u8]) -> Option<String> {
        let (width, is_little, marked) = match body {
            [0xff, 0xfe, 0, 0, ..] => (4, true, true),
            [0, 0, 0xfe, 0xff, ..] => (4, false, true),
            [0xff, 0xfe, ..] => (2, true, true),
            [0xfe, 0xff, ..] => (2, false, true),
            [0xef, 0xbb, 0xbf, ..] => return last_wins(body.get(3..)?),
            [0, 0, _, _, ..] => (4, false, false),
            [0, _, _, _, ..] => (2, false, false),
            [_, 0, 0, 0, ..] => (4, true, false),
            [_, 0, _, _, ..] => (2, true, false),
            _ => return last_wins(body),
        };
        let units = body.chunks(width).skip(usize::from(marked)).map(|unit| {
            let byte = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
            if is_little { unit.iter().rev().fold(0, byte) } else { unit.iter().fold(0, byte) }
        });
        let text: Option<String> = if width == 4 {
            units.map(char::from_u32).collect()
        } else {
            char::decode_utf16(units.map(|unit| unit as u16)).map(Result::ok).collect()
        };
        last_wins(text?.as_bytes())
    }

    /// As browsers do: behind a byte order mark, and with whatever is no UTF-8 replaced.
    pub(super) fn replacing(body: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(body);
        last_wins(text.trim_start_matches('\u{feff}').as_bytes())
    }

    /// As Go does: the last key that is alike but for its case.
    pub(super) fn folded(body: &[u8]) -> Option<String> {
        struct Last(Option<String>);
        impl<'de> serde::Deserialize<'de> for Last {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;
                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = Last;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Last, A::Error> {
                        let mut last = None;
                        while let Some((key, value)) = map.next_entry::<String, Value>()? {
                            // What is no string leaves the field as it was.
                            if key.eq_ignore_ascii_case("model") && value.is_string() {
                                last = value.as_str().map(str::to_owned);
                            }
                        }
                        Ok(Last(last))
                    }
                }
                deserializer.deserialize_map(Fields)
            }
        }
        serde_json::from_slice::<Last>(body).ok()?.0
    }

    type Parser = fn(&[u8]) -> Option<String>;

    pub(super) const ALL: [Parser; 4] = [last_wins, any_encoding, replacing, folded];
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is answered by the ensemble.
    Answered,
    /// It is the ensemble's, and its members refuse it.
    Asked,
    /// It is the ensemble's, and refused with this code.
    Refused(&'static str),
    /// It goes on as it was sent, and no parser reads the alias.
    Passes,
    /// It goes on as it was sent although some parser reads the alias; the rule says why.
    PassesKnowingly,
}
use Fate::{Answered, Asked, Passes, PassesKnowingly, Refused};

const MESSAGES: &str = r#""messages":[{"role":"user","content":"why?"}]"#;

/// Bodies of JSON that has two meanings, or nearly none.
fn bodies() -> Vec<(Fate, Vec<u8>)> {
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let digits = "9".repeat(10_000);
    let mut bodies: Vec<(Fate, Vec<u8>)> = [
        (Answered, r#"{"model":"ALIAS",MESSAGES}"#),
        (Answered, r#"{"\u006d\u006f\u0064\u0065\u006c":"\u0072esearch-ensemble",MESSAGES}"#),
        (Answered, r#"{"model\u0000":"gpt-4o","model":"ALIAS",MESSAGES}"#),
        (Asked, r#"{"x":1e999999,"y":-0.0e-99999,"z":DIGITS,"model":"ALIAS",MESSAGES}"#),
        (Asked, r#"{"x":"\ud800","model":"ALIAS",MESSAGES}"#),
        (Asked, r#"{"x":DEEP,"model":"ALIAS",MESSAGES}"#),
        // The alias, and something else for another parser.
        (Refused("duplicate_key"), r#"{"model":"ALIAS",MESSAGES,"model":"gpt-4o"}"#),
        (Refused("duplicate_key"), r#"{"model":"ALIAS",MESSAGES,"\u006dodel":"gpt-4o"}"#),
        (Refused("duplicate_key"), r#"{"model":"ALIAS",MESSAGES,MESSAGES}"#),
        (Refused("misspelt_key"), r#"{"model":"ALIAS",MESSAGES,"Model":"gpt-4o"}"#),
        (Refused("misspelt_key"), r#"{"MODEL":"gpt-4o","model":"ALIAS",MESSAGES}"#),
        (Refused("misspelt_key"), r#"{"model":"ALIAS",MESSAGES,"Stream":true}"#),
        (Refused("misspelt_key"), r#"{"model":"ALIAS",MESSAGES,"N":100}"#),
        (Refused(""), r#"{"model":"ALIAS",MESSAGES} {"model":"gpt-4o"}"#),
        (Refused(""), "{\"model\":\"ALIAS\",MESSAGES}\n{\"model\":\"ALIAS\",MESSAGES}\n"),
        (Refused(""), r#"{"model":"ALIAS",MESSAGES}]"#),
        (Refused(""), r#"{"model":"ALIAS",MESSAGES,}"#),
        (Refused(""), r#"{"model":"ALIAS",/* "model":"gpt-4o" */MESSAGES}"#),
        (Refused(""), r#"{"model":"ALIAS","x":NaN,MESSAGES}"#),
        (Refused(""), r#"{"model":"ALIAS","x":01,MESSAGES}"#),
        (Refused(""), "{\"model\":\"ALIAS\",\"x\":\"\0\",MESSAGES}"),
        (Refused(""), r#"{"model":"ALIAS","\ud800":1,MESSAGES}"#),
        (Refused(""), "\u{feff}{\"model\":\"ALIAS\",MESSAGES}"),
        // Something else first: it is what a parser that takes the first one reads.
        (PassesKnowingly, r#"{"model":"gpt-4o","model":"ALIAS",MESSAGES}"#),
        (PassesKnowingly, r#"{"model":["ALIAS"],"model":"ALIAS",MESSAGES}"#),
        // The alias under another name only.
        (PassesKnowingly, r#"{"Model":"ALIAS",MESSAGES}"#),
        (PassesKnowingly, r#"{"model":"gpt-4o","MODEL":"ALIAS",MESSAGES}"#),
        // Nobody's.
        (Passes, r#"{"model":"ALIAS ",MESSAGES}"#),
        (Passes, r#"{"model":"RESEARCH-ensemble",MESSAGES}"#),
        (Passes, r#"{"model":"ALIAS\u0000",MESSAGES}"#),
        (Passes, r#"{"model\u0000":"ALIAS",MESSAGES}"#),
        (Passes, r#"{"model":"\ud800ALIAS",MESSAGES}"#),
        (Passes, r#"{/* x */"model":"ALIAS",MESSAGES}"#),
        (Passes, r#"{'model':'ALIAS',MESSAGES}"#),
        (Passes, r#"{model:"ALIAS",MESSAGES}"#),
        (Passes, r#"[{"model":"ALIAS",MESSAGES}]"#),
        (Passes, r#""{\"model\":\"ALIAS\"}""#),
        (Passes, "\u{b}{\"model\":\"ALIAS\",MESSAGES}"),
        (Passes, "\0{\"model\":\"ALIAS\",MESSAGES}"),
        (Passes, r#"{} {"model":"ALIAS",MESSAGES}"#),
        (Passes, r#"{"user":{"model":"ALIAS"},MESSAGES}"#),
    ]
    .into_iter()
    .map(|(fate, body)| {
        let body = body.replace("ALIAS", ALIAS).replace("MESSAGES", MESSAGES);
        (fate, body.replace("DEEP", &deep).replace("DIGITS", &digits).into_bytes())
    })
    .collect();
    let text = format!("{{\"model\":\"{ALIAS}\",{MESSAGES}}}");
    // In another encoding, which some parsers guess.
    for marked in [false, true] {
        let text = if marked { format!("\u{feff}{text}") } else { text.clone() };
        let (utf_16, utf_32) = (text.encode_utf16(), text.chars().map(u32::from));
        bodies.extend([
            (PassesKnowingly, utf_16.clone().flat_map(u16::to_le_bytes).collect()),
            (PassesKnowingly, utf_16.flat_map(u16::to_be_bytes).collect()),
            (PassesKnowingly, utf_32.clone().flat_map(u32::to_le_bytes).collect()),
            (PassesKnowingly, utf_32.flat_map(u32::to_be_bytes).collect()),
        ]);
    }
    // The marks of two encodings, so that it is neither.
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    bodies.push((Passes, [b"\xef\xbb\xbf".to_vec(), little(&text)].concat()));
    bodies.push((Refused(""), [text.trim_end_matches('}').as_bytes(), b",\"x\":\"\xff\"}"].concat()));
    bodies
}

fn fate(answer: &Answer, body: &[u8]) -> Fate {
    if answer.header("x-upstream") == "echo" {
        let names_alias = parsers::ALL.iter().any(|model| model(body).as_deref() == Some(ALIAS));
        return if names_alias { PassesKnowingly } else { Passes };
    }
    match (answer.status.as_u16(), &answer.json()["error"]["code"]) {
        (200, _) => Answered,
        (400, Value::String(code)) if code == "duplicate_key" => Refused("duplicate_key"),
        (400, Value::String(code)) if code == "misspelt_key" => Refused("misspelt_key"),
        (400, Value::Null) if answer.text().contains("not a valid JSON object") => Refused(""),
        (400, _) => Asked,
        _ => panic!("{} {}", answer.status, answer.text()),
    }
}

/// What a program of Python's standard library makes of bytes.
async fn python(program: &str, input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("python3");
    command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("python3, which the tests need for more than this");
    let stdin = child.stdin.take().unwrap();
    let (written, output) = tokio::join!(
        async {
            // Dropped when it is written: its end is what the program waits for.
            let mut stdin = stdin;
            stdin.write_all(input).await
        },
        child.wait_with_output()
    );
    written.unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

#[tokio::test]
async fn the_parser_that_stands_for_python_reads_as_python_does() {
    let program = format!(
        "import json, sys
for line in sys.stdin:
    try:
        print(json.loads(bytes.fromhex(line))['model'] == '{ALIAS}')
    except Exception:
        print(False)"
    );
    let bodies = bodies().into_iter().filter(|(fate, _)| matches!(fate, Passes | PassesKnowingly));
    let bodies: Vec<Vec<u8>> = bodies.map(|(_, body)| body).collect();
    let hex = |body: &Vec<u8>| body.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    let read = python(&program, bodies.iter().map(hex).collect::<String>().as_bytes()).await;
    let read = String::from_utf8(read).unwrap();
    assert_eq!(read.lines().count(), bodies.len());
    for (body, read) in bodies.iter().zip(read.lines()) {
        let ours = parsers::any_encoding(body).as_deref() == Some(ALIAS);
        assert_eq!(read == "True", ours, "{}", shown(body));
    }
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).chars().take(120).collect()
}

#[tokio::test]
async fn every_parser_behind_consort_reads_what_consort_has_read() {
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        stack.provider.forgive();
        for (expected, body) in bodies() {
            let before = (stack.upstream.requests().len(), stack.provider.requests().len());
            let answer = stack.ask_raw(body.clone()).send().await;
            assert_eq!(fate(&answer, &body), expected, "{}", shown(&body));
            let (upstream, provider) = (stack.upstream.requests(), stack.provider.requests());
            let reached = (upstream.len() - before.0, provider.len() - before.1);
            match expected {
                Answered => {
                    assert_eq!(reached, (0, 4), "{}", shown(&body));
                    // It is the operator's key that pays: every parser reads the model that Consort has written.
                    for sent in provider.iter().skip(before.1) {
                        let models = parsers::ALL.map(|model| model(&sent.body));
                        assert!(models.iter().all(|model| model.as_ref() == Some(&sent.model)), "{models:?}");
                    }
                }
                Asked => assert!(reached.0 == 0 && reached.1 >= 3, "{reached:?} {}", shown(&body)),
                Refused(_) => assert_eq!(reached, (0, 0), "{}", shown(&body)),
                Passes | PassesKnowingly => {
                    assert_eq!(reached, (1, 0), "{}", shown(&body));
                    assert_eq!(upstream.last().unwrap().body.as_deref(), Some(&*body));
                }
            }
        }
    }
}

/// At the plain door nobody stands behind Consort: what is no alias's is refused.
#[tokio::test]
async fn the_plain_door_takes_the_same_bodies_and_refuses_the_rest() {
    let stack = Stack::start().await;
    stack.provider.forgive();
    for (expected, body) in bodies() {
        let before = stack.provider.requests().len();
        let call = http::post(stack.service.http(), CHAT).header("content-type", "application/json");
        let answer = call.body(body.clone()).send().await;
        match expected {
            Answered | Asked | Refused(_) => assert_eq!(fate(&answer, &body), expected, "{}", shown(&body)),
            Passes | PassesKnowingly => {
                assert!(matches!(answer.status.as_u16(), 400 | 404), "{} {}", answer.status, shown(&body));
            }
        }
        let asked = stack.provider.requests().len() - before;
        assert_eq!(asked > 0, matches!(expected, Answered | Asked), "{}", shown(&body));
    }
}

#[tokio::test]
async fn only_the_body_of_a_chat_request_names_an_ensemble() {
    let alias = format!("{{\"model\":\"{ALIAS}\",{MESSAGES}}}");
    let plain = format!("{{\"model\":\"gpt-4o\",{MESSAGES}}}");
    let folded = format!("{{\"model\":\"gpt-4o\",{MESSAGES},\"Model\":\"{ALIAS}\"}}");
    let json = ("content-type", "application/json");
    type Fields = [(&'static str, &'static str)];
    // A path, headers, a body as those read it who undo no compression, and what becomes of it.
    let cases: &[(&str, &Fields, &str, Fate)] = &[
        (CHAT, &[json, ("x-model", ALIAS), ("x-ensemble-models", ALIAS), ("model", ALIAS)], &plain, Passes),
        ("/v1/chat/completions?model=research-ensemble", &[json], &plain, Passes),
        ("/v1/chat/completions?model=gpt-4o", &[json], &alias, Answered),
        (CHAT, &[], &alias, Answered),
        (CHAT, &[("content-type", "APPLICATION/JSON ; charset=utf-16")], &alias, Answered),
        (CHAT, &[json, ("content-encoding", "identity")], &alias, Answered),
        (CHAT, &[json, ("content-encoding", "identity, identity")], &alias, Answered),
        // The first `model` is the one, whatever the headers say of it.
        (CHAT, &[json, ("x-model", ALIAS), ("model", ALIAS)], &folded, PassesKnowingly),
        (CHAT, &[("Content-Type", "Application/JSON"), ("MODEL", ALIAS)], &folded, PassesKnowingly),
        (CHAT, &[("content-type", "text/plain")], &folded, PassesKnowingly),
        (CHAT, &[json, ("content-encoding", "gzip")], &folded, PassesKnowingly),
        // What says that it is something else is not looked into.
        (CHAT, &[("content-type", "text/plain")], &alias, PassesKnowingly),
        (CHAT, &[("content-type", "application/jsonx")], &alias, PassesKnowingly),
        (CHAT, &[json, ("content-encoding", "gzip")], &alias, PassesKnowingly),
        (CHAT, &[json, ("content-encoding", "GZIP")], &alias, PassesKnowingly),
        (CHAT, &[json, ("content-encoding", "identity, gzip")], &alias, PassesKnowingly),
        (
            CHAT,
            &[json, ("content-encoding", "gzip"), ("content-encoding", "identity")],
            &alias,
            PassesKnowingly,
        ),
        // Other paths are other paths, whatever an upstream makes of them.
        ("//v1/chat/completions", &[json], &alias, PassesKnowingly),
        ("/v1//chat/completions", &[json], &alias, PassesKnowingly),
        ("/v1/chat/completions/", &[json], &alias, PassesKnowingly),
        ("/v1/chat/completions;x=1", &[json], &alias, PassesKnowingly),
        ("/v1/chat%2fcompletions", &[json], &alias, PassesKnowingly),
        ("/v1/Chat/Completions", &[json], &alias, PassesKnowingly),
        ("/v1/x/../chat/completions", &[json], &alias, PassesKnowingly),
    ];
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for (path, headers, body, expected) in cases {
            let what = format!("{path} {headers:?} {body}");
            let sent = body.as_bytes().to_vec();
            assert_eq!(fate_of(&stack, path, headers, sent, body.as_bytes()).await, *expected, "{what}");
        }
    }
}

/// Whoever undoes a compression may read an alias in what Consort does not look into; and nobody reads one where the
/// headers do not say that there is something to undo.
#[tokio::test]
async fn a_compressed_body_goes_on_as_it_came() {
    let alias = format!("{{\"model\":\"{ALIAS}\",{MESSAGES}}}");
    let gzip = "import gzip, sys; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read()))";
    let compressed = python(gzip, alias.as_bytes()).await;
    assert!(compressed.starts_with(&[0x1f, 0x8b]));
    let json = ("content-type", "application/json");
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for (headers, read, expected) in [
            (&[json, ("content-encoding", "gzip")][..], alias.as_bytes(), PassesKnowingly),
            (&[json, ("content-encoding", "x-gzip")], alias.as_bytes(), PassesKnowingly),
            (&[json, ("content-encoding", "identity")], &compressed, Passes),
            (&[json], &compressed, Passes),
        ] {
            let fate = fate_of(&stack, CHAT, headers, compressed.clone(), read).await;
            assert_eq!(fate, expected, "{headers:?}");
        }
    }
}

/// What becomes of a body that those behind Consort `read` as told, with whoever it has reached.
async fn fate_of(stack: &Stack, path: &str, headers: &[(&str, &str)], sent: Vec<u8>, read: &[u8]) -> Fate {
    let before = (stack.upstream.requests().len(), stack.provider.requests().len());
    let call = http::post(stack.envoy.addr(), path).body(sent.clone());
    let answer = headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await;
    let fate = fate(&answer, read);
    let upstream = stack.upstream.requests();
    let reached = (upstream.len() - before.0, stack.provider.requests().len() - before.1);
    let expected = if fate == Answered { (0, 4) } else { (1, 0) };
    assert_eq!(reached, expected, "{path} {headers:?}: {}", answer.text());
    if fate != Answered {
        assert_eq!(upstream.last().and_then(|request| request.body.as_deref()), Some(&*sent));
    }
    fate
}
