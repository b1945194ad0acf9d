//! Bodies and heads that parsers read in different ways: Consort and whoever comes behind it never disagree on
//! whether they are an ensemble's, but where the rule in `docs/security.md` says so.

use consort_testkit::http::{self, Answer};
use serde_json::Value;

use crate::stack::{ALIAS, CHAT, Options, Stack};

/// Which model a body names, by the ways in which parsers read it.
mod parsers {
    use serde_json::Value;

    /// As Rust, Python and JavaScript do: UTF-8 without a mark, the last of several keys, keys as they are.
    pub(super) fn last_wins(body: &[u8]) -> Option<String> {
        let value: Value = serde_json::from_slice(body).ok()?;
        Some(value.as_object()?.get("model")?.as_str()?.to_owned())
    }

    /// As Python does with bytes, and browsers do: with a byte order mark, or whatever is no UTF-8 replaced.
    pub(super) fn lenient(body: &[u8]) -> Option<String> {
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
                            if key.eq_ignore_ascii_case("model") {
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

    pub(super) const ALL: [Parser; 3] = [last_wins, lenient, folded];
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
    let utf_16 =
        |marked: bool| marked.then_some('\u{feff}').into_iter().chain(text.chars()).collect::<String>();
    let little = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    bodies.push((Passes, little(&utf_16(false))));
    bodies.push((Passes, little(&utf_16(true))));
    bodies.push((Passes, utf_16(true).encode_utf16().flat_map(u16::to_be_bytes).collect()));
    bodies.push((Passes, text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()));
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
    let json = ("content-type", "application/json");
    type Fields = [(&'static str, &'static str)];
    // A path, headers, a body, and whether the ensemble answers.
    let cases: &[(&str, &Fields, &str, bool)] = &[
        (CHAT, &[json, ("x-model", ALIAS), ("x-ensemble-models", ALIAS), ("model", ALIAS)], &plain, false),
        ("/v1/chat/completions?model=research-ensemble", &[json], &plain, false),
        ("/v1/chat/completions?model=gpt-4o", &[json], &alias, true),
        (CHAT, &[], &alias, true),
        (CHAT, &[("content-type", "APPLICATION/JSON ; charset=utf-16")], &alias, true),
        (CHAT, &[json, ("content-encoding", "identity")], &alias, true),
        (CHAT, &[json, ("content-encoding", "identity, identity")], &alias, true),
        // What says that it is something else is not looked into.
        (CHAT, &[("content-type", "text/plain")], &alias, false),
        (CHAT, &[("content-type", "application/jsonx")], &alias, false),
        (CHAT, &[json, ("content-encoding", "gzip")], &alias, false),
        (CHAT, &[json, ("content-encoding", "identity, gzip")], &alias, false),
        (CHAT, &[json, ("content-encoding", "gzip"), ("content-encoding", "identity")], &alias, false),
        // Other paths are other paths, whatever an upstream makes of them.
        ("//v1/chat/completions", &[json], &alias, false),
        ("/v1//chat/completions", &[json], &alias, false),
        ("/v1/chat/completions/", &[json], &alias, false),
        ("/v1/chat/completions;x=1", &[json], &alias, false),
        ("/v1/chat%2fcompletions", &[json], &alias, false),
        ("/v1/Chat/Completions", &[json], &alias, false),
        ("/v1/x/../chat/completions", &[json], &alias, false),
    ];
    for options in [Options::new(), Options::buffered()] {
        let stack = options.start().await;
        for (path, headers, body, is_ensembles) in cases {
            let before = stack.provider.requests().len();
            let call = http::post(stack.envoy.addr(), path).body((*body).to_owned());
            let answer =
                headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await;
            let asked = stack.provider.requests().len() - before;
            assert_eq!(asked, if *is_ensembles { 4 } else { 0 }, "{path} {headers:?}: {}", answer.text());
            assert_eq!(answer.header("x-upstream") == "echo", !is_ensembles, "{path} {headers:?}");
        }
    }
}
