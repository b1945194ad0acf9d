use bytes::Bytes;
use serde_json::{Value, json};

use super::*;

fn reader(reading: &Reading, fields: Value) -> Reader {
    let mut body = json!({"messages": [{}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Reader::of(reading, &Request::parse(Bytes::from(body.to_string())).unwrap())
}

fn message(message: Value, finish: &str) -> Completion {
    let json = json!({"choices": [{"message": message, "finish_reason": finish}]});
    Completion::parse(json.to_string().as_bytes()).unwrap()
}

fn says(text: &str) -> Completion {
    message(json!({"content": text}), "stop")
}

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

fn number(expression: Option<&str>, pointer: Option<&str>) -> Reading {
    Reading::Number {
        pattern: expression.map(pattern),
        pointer: pointer.map(|pointer| Pointer::parse(pointer).unwrap()),
    }
}

fn tools() -> Value {
    json!([{"type": "function", "function": {"name": "f"}}])
}

#[test]
fn the_kind_follows_the_request_before_the_reading() {
    let json = || json!({"response_format": {"type": "json_object"}});
    let schema = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {}}});
    for (reading, fields, kind) in [
        (Reading::Auto, json!({}), Kind::Text),
        (Reading::Text, json!({}), Kind::Text),
        (Reading::Choice(None), json!({}), Kind::Choice),
        (number(None, None), json!({}), Kind::Number),
        (Reading::Json(None), json!({}), Kind::Json),
        (Reading::Regex(pattern("a")), json!({}), Kind::Regex),
        (Reading::Code, json!({}), Kind::Code),
        (Reading::Code, json(), Kind::Json),
        (number(None, None), json!({"response_format": schema}), Kind::Json),
        (Reading::Auto, json!({"response_format": {"type": "text"}}), Kind::Text),
        (Reading::Auto, json!({"tools": tools()}), Kind::ToolCall),
        (
            Reading::Code,
            json!({"tools": tools(), "response_format": {"type": "json_object"}}),
            Kind::ToolCall,
        ),
        (Reading::Code, json!({"tools": tools(), "tool_choice": "none"}), Kind::Code),
        (Reading::Auto, json!({"functions": [{"name": "f"}]}), Kind::ToolCall),
    ] {
        assert_eq!(reader(&reading, fields.clone()).kind(), kind, "{reading:?} {fields}");
    }
}

#[test]
fn a_key_is_read_as_its_kind_says() {
    for (reading, said, shown) in [
        (Reading::Choice(None), "<think>(A)?</think>It is (B).", Some("B")),
        (
            Reading::Choice(Some(pattern("verdict: (\\w+)"))),
            "verdict: no\nVerdict: verdict: Yes",
            Some("YES"),
        ),
        (Reading::Choice(Some(pattern("verdict:([^.]*)"))), "verdict: Yes .", Some("YES")),
        (Reading::Choice(Some(pattern("verdict:([^.]*)"))), "B", None),
        (Reading::Choice(Some(pattern("verdict:([^.]*)"))), "verdict: .", None),
        (number(None, None), "<think>7</think>It is 18.0.", Some("18")),
        (number(None, None), "<think>It is 18.", None),
        (number(Some("[0-9]+ eggs"), None), "9 eggs, 18 eggs, 3 days", Some("18")),
        (number(Some("total: (.*)"), None), "total: $1,234\nin 3 days", Some("1234")),
        (number(Some("total: (.*)"), None), "total: 1,23,4\nin 3 days", None),
        (number(Some("total: (.*)"), None), "It is 18.", None),
        (number(None, Some("/a/1")), r#"{"a": ["x", "$18.50", 3]}"#, Some("18.5")),
        (number(None, Some("/a")), "```json\n{\"a\": -1e1}\n```", Some("-10")),
        (number(None, Some("/a")), r#"{"b": 1}"#, None),
        (number(None, Some("/a")), r#"{"a": {"b": 1}}"#, None),
        (number(None, Some("/a")), "18", None),
        (number(Some("([0-9]+)%"), Some("/a")), r#"{"b": "1%", "a": "2 of 3, or 66%"}"#, Some("66")),
    ] {
        let key = reader(&reading, json!({})).key(&says(said));
        assert_eq!(key.map(|key| key.shown()).as_deref(), shown, "{reading:?} in {said:?}");
    }
}

#[test]
fn equal_answers_have_the_same_key() {
    let pointer = |text| Some(Pointer::parse(text).unwrap());
    for (reading, a, b, same) in [
        (Reading::Choice(None), "(b)", "The answer is B.", Some(true)),
        (Reading::Choice(None), "A", "B", Some(false)),
        (Reading::Choice(Some(pattern(".+"))), "straße", "STRASSE", Some(true)),
        (number(None, None), "1/2", "$0.50", Some(true)),
        (number(None, None), "0.3333", "1/3", Some(false)),
        (Reading::Json(None), r#"{"a":1,"b":"x"}"#, "```\n{ \"b\": \"x\", \"a\": 1.0 }\n```", Some(true)),
        (Reading::Json(None), "{\"a\":1}", "{\"a\":2}", Some(false)),
        (Reading::Json(pointer("/a")), r#"{"a":1,"b":2}"#, r#"{"a":1.0,"b":3}"#, Some(true)),
        (Reading::Json(pointer("/a")), r#"{"a":1}"#, r#"{"b":1}"#, None),
        (Reading::Json(None), "{}", "none", None),
        (Reading::Regex(pattern("#(.*?)#")), "# a #", "x #b# #a#", Some(true)),
        (Reading::Regex(pattern("#(.*?)#")), "#a#", "#A#", Some(false)),
        (Reading::Regex(pattern("#(.*?)#")), "#a#", "# #", None),
        (Reading::Code, "A:\n```\nx\n```", "B:\n~~~py\r\nx  \r\n\r\n~~~", Some(true)),
        (Reading::Code, "```\nx\n```", "```\n x\n```", Some(false)),
        (Reading::Code, "```\nx\n```", "x", None),
        (Reading::Text, "the same", "the same", Some(false)),
        (Reading::Text, "x", " ", None),
    ] {
        let reader = reader(&reading, json!({}));
        let [x, y] = [a, b].map(|said| reader.key(&says(said)));
        let compared = x.as_ref().zip(y.as_ref()).map(|(x, y)| (x.same(y), y.same(x)));
        assert_eq!(compared, same.map(|same| (same, same)), "{reading:?}: {a:?} and {b:?}");
        if same == Some(true) {
            assert_eq!(x.unwrap().shown(), y.unwrap().shown());
        }
    }
}

#[test]
fn where_tools_are_offered_a_text_is_the_decision_to_call_none() {
    let call = |id: &str, content: Value| {
        let function = json!({"name": "f", "arguments": "{}"});
        message(json!({"content": content, "tool_calls": [{"id": id, "function": function}]}), "tool_calls")
    };
    let free = reader(&Reading::Auto, json!({"tools": tools()}));
    let (one, other) =
        (free.key(&call("a", json!(null))).unwrap(), free.key(&call("b", json!("Look:"))).unwrap());
    let (hello, bye) = (free.key(&says("Hello.")).unwrap(), free.key(&says("Bye.")).unwrap());
    assert!(matches!(&one, Key::Calls(_)) && one.same(&other), "ids and text beside calls are nothing");
    assert!(matches!(&hello, Key::Prose(_)) && hello.same(&bye) && !hello.same(&one) && !one.same(&hello));
    assert_ne!(hello.shown(), bye.shown());
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "f"}})] {
        let bound = reader(&Reading::Auto, json!({"tools": tools(), "tool_choice": choice}));
        assert!(bound.key(&says("Hello.")).is_none() && bound.key(&call("a", json!(null))).is_some());
    }
    let legacy = json!({"functions": [{"name": "f"}], "function_call": {"name": "f"}});
    assert!(reader(&Reading::Auto, legacy).key(&says("Hello.")).is_none());
    assert!(free.key(&says(" ")).is_none());
}

#[test]
fn the_last_line_of_a_cut_answer_is_not_its_last() {
    let reader = reader(&number(None, None), json!({}));
    let cut =
        |text: &str| reader.number(&message(json!({"content": text}), "length")).map(|f| f.value.to_string());
    assert_eq!(cut("She has 16 eggs and"), None);
    assert_eq!(cut("The answer is 18. It took 3"), Some("18".to_owned()));
}

#[test]
fn a_number_is_read_whatever_the_kind_and_stands_in_the_content() {
    for (reading, fields, content, printed) in [
        (Reading::Auto, json!({}), "<think>é 1</think>é: it makes $18.50.", "18.50"),
        (Reading::Auto, json!({"tools": tools()}), "18", "18"),
        (number(Some("é=(.*);"), None), json!({}), "é=1; é=$2.0;", "2.0"),
        (number(None, Some("/é")), json!({}), "<think></think> {\"a\": 1, \"é\": \"\\u20ac 2.0\"}", "2.0"),
        (
            Reading::Json(Some(Pointer::parse("/a").unwrap())),
            json!({"response_format": {"type": "json_object"}}),
            r#"{"a": 1.50, "answer": 2}"#,
            "1.50",
        ),
    ] {
        let found = reader(&reading, fields).number(&says(content)).unwrap();
        assert_eq!(&content[found.span], printed, "{content}");
    }
    let calls = message(json!({"content": null, "tool_calls": [{"id": "a"}]}), "tool_calls");
    assert_eq!(reader(&Reading::Auto, json!({})).number(&calls), None);
}

#[test]
fn records_show_no_text() {
    for (reading, said) in [
        (Reading::Choice(Some(pattern(".+"))), "x".repeat(65)),
        (number(None, None), "1e64".to_owned()),
        (Reading::Regex(pattern(".+")), "secret".to_owned()),
        (Reading::Json(None), "\"secret\"".to_owned()),
        (Reading::Code, "```\nsecret\n```".to_owned()),
        (Reading::Text, "secret".to_owned()),
    ] {
        let shown = reader(&reading, json!({})).key(&says(&said)).unwrap().shown();
        assert!(shown.len() == 16 && shown.bytes().all(|b| b.is_ascii_hexdigit()), "{shown}");
    }
    let longest = reader(&number(None, None), json!({})).key(&says("1e63")).unwrap().shown();
    assert_eq!(longest.len(), 64);
}
