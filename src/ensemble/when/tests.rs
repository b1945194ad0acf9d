use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::chat::Request;

const ASKED: &str = r#"{"model":"team","stream":true,"max_tokens":500,"user":"ann","tools":[{},{}],"messages":[
    {"role":"system","content":"Be kind."},{"role":"user","content":"Why is the Sky blue?"}]}"#;
const BARE: &str = r#"{"messages":[{"role":"user","content":"hi"}]}"#;

fn holds(expression: &str, body: &str, headers: &[(&str, &str)]) -> Result<bool, WhenFailed> {
    held(&When::parse(expression).unwrap_or_else(|e| panic!("{expression}: {e}")), body, headers, "id-1")
}

fn held(when: &When, body: &str, headers: &[(&str, &str)], request_id: &str) -> Result<bool, WhenFailed> {
    let request = Request::parse(Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let headers: HashMap<String, String> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let headers = || headers.clone();
    let path = "/v1/chat/completions";
    when.holds(&Facts { model: "team", request: &request, request_id, path, headers: &headers })
}

#[test]
fn every_fact_is_what_the_request_says() {
    let headers = [("x-tier", "gold"), ("x-many", "a, b")];
    for expression in [
        r#"request.model == "team""#,
        r#"request.headers["x-tier"] == "gold""#,
        r#"request.headers["x-many"] == "a, b""#,
        r#""x-tier" in request.headers && !("x-none" in request.headers)"#,
        r#"request.headers[?"x-none"].orValue("none") == "none""#,
        r#"request.headers.exists(name, name.startsWith("x-t") && request.headers[name] == "gold")"#,
        r#"request.path == "/v1/chat/completions""#,
        "request.messages == 2",
        "request.prompt_chars == size(\"Be kind.Why is the Sky blue?\")",
        r#"request.last_user.matches("(?i)sky")"#,
        r#"["code", "blue"].exists(word, request.last_user.contains(word))"#,
        "request.tools == 2",
        "request.stream",
        "request.max_tokens == 500",
        r#"request.user == "ann""#,
        "random >= 0.0 && random < 1.0",
        "type(random) == double && type(request.max_tokens) == int",
    ] {
        assert_eq!(holds(expression, ASKED, &headers), Ok(true), "{expression}");
        assert_eq!(holds(&format!("!({expression})"), ASKED, &headers), Ok(false), "{expression}");
    }
}

#[test]
fn what_a_request_does_not_say_is_null_empty_or_zero() {
    for expression in [
        "request.max_tokens == null",
        "request.max_tokens == null || request.max_tokens > 5",
        r#"request.user == """#,
        "request.tools == 0 && !request.stream",
        "request.messages == 1",
        "size(request.headers) == 0",
    ] {
        assert_eq!(holds(expression, BARE, &[]), Ok(true), "{expression}");
    }
    let renamed = r#"{"messages":[{}],"max_completion_tokens":7,"max_tokens":9}"#;
    assert_eq!(holds("request.max_tokens == 7", renamed, &[]), Ok(true), "the newer name wins");
}

#[test]
fn a_failure_is_counted_and_says_nothing_of_the_request() {
    for (expression, why) in [
        (r#"request.headers["x-tier"] == "gold""#, "a header or key that it reads is missing"),
        ("request.max_tokens > 5", "found no matching overload for '_>_' applied to '(null_type, int)'"),
        ("int(request.last_user) > 5", "'int' cannot take a value"),
        ("1 / request.tools > 0", "a division by zero"),
    ] {
        let when = When::parse(expression).unwrap();
        let again = when.clone();
        for failures in 1..=2 {
            assert_eq!(held(&when, BARE, &[], "id").unwrap_err().to_string(), why, "{expression}");
            assert_eq!(again.failures(), failures, "clones count together");
        }
    }
    let when = When::parse("request.tools == 0").unwrap();
    assert_eq!((held(&when, BARE, &[], "id"), when.failures()), (Ok(true), 0));
}

#[test]
fn random_is_the_same_for_the_same_id_and_even_over_many() {
    let when = When::parse("random < 0.25").unwrap();
    let mut taken = 0;
    for id in 0..4000 {
        let id = format!("{id:08x}-5717-4562-b3fc-2c963f66afa6");
        let first = held(&when, BARE, &[], &id).unwrap();
        assert_eq!(held(&when, ASKED, &[("x", "y")], &id), Ok(first), "{id}");
        taken += u32::from(first);
    }
    assert!((900..1100).contains(&taken), "{taken} of 4000 for a quarter");
}

#[test]
fn what_can_never_be_true_or_false_is_told_at_load() {
    for (expression, told) in [
        ("", "is no CEL expression: line 1, column 1: "),
        ("request.tools ==", "is no CEL expression: line 1, column 17: "),
        ("request.tools == 1\n  && && true", "is no CEL expression: line 2, column 6: "),
        ("request.last_user.matches(request.user)", "has a pattern in `matches` that is no text in quotes"),
        ("request.modle == 'x'", "knows no `request.modle`: a request has model, headers, path, "),
        ("true || request.modle == 'x'", "knows no `request.modle`"),
        ("has(request.modle)", "knows no `request.modle`"),
        ("has(request.max_tokens)", "asks has(request.max_tokens), which always holds"),
        ("request['model'] == 'x'", "can use `request` only with a field"),
        ("size(request) > 1", "can use `request` only with a field"),
        ("rand < 0.5", "knows no variable `rand`: "),
        ("true || rand < 0.5", "knows no variable `rand`: "),
        ("[1].exists(x, x == y)", "knows no variable `y`: "),
        ("true || lower(request.user) == 'x'", "knows no function `lower`"),
        ("true || request.user.lower() == 'x'", "knows no function `lower`"),
        ("request.headers.all(x)", "knows no function `all`"),
        (
            "request.headers['X-Tier'] == 'gold'",
            "names a header in upper case: here all names are in lower case, \"x-tier\"",
        ),
        ("'X-Tier' in request.headers", "names a header in upper case"),
        ("request.headers.Tier == 'gold'", "names a header in upper case"),
        ("true || request.user.matches('(')", "has the pattern \"(\", which is none: unclosed group"),
        (
            "[1].exists(x, request.user.matches('['))",
            "has the pattern \"[\", which is none: unclosed character class",
        ),
        ("request.tools", "must be true or false, and is of the type int"),
        ("request.stream ? 1 : 2", "must be true or false, and is of the type int"),
        ("request.user + request.tools == 'x'", "can never be evaluated: "),
        ("true || request.user > 5", "can never be evaluated: found no matching overload for '_>_'"),
        (
            "true || request.headers['x-tier'] > 5",
            "can never be evaluated: found no matching overload for '_>_'",
        ),
        (
            "request.tools.startsWith('x')",
            "can never be evaluated: found no matching overload for 'startsWith'",
        ),
        (
            "request.headers.exists(a, request.headers.exists(b, a == b))",
            "has a comprehension (`all`, `exists`, `filter`, `map`) within",
        ),
        ("request.last_user.map(c, c) == []", "has a comprehension (`all`, `exists`, `filter`, `map`) over"),
        (
            "request.headers.map(h, h).exists(h, h == 'x')",
            "has a comprehension (`all`, `exists`, `filter`, `map`) over",
        ),
    ] {
        let error = When::parse(expression).expect_err(expression).to_string();
        assert!(error.starts_with(told), "{expression}: {error}");
    }
}

#[test]
fn an_expression_is_bounded_in_length_and_depth() {
    let clauses = vec!["request.stream"; 200];
    assert!(When::parse(&clauses.join(" || ")).is_ok(), "many clauses are no depth");
    assert_eq!(When::parse(&format!("true{}", " ".repeat(MAX_BYTES))).unwrap_err(), WhenError::TooLong);
    assert_eq!(
        holds(&format!("{}1 == 24", "1+".repeat(23)), BARE, &[]),
        Ok(true),
        "evaluated on a thread's stack"
    );
    for deep in [
        format!("{}true{}", "(".repeat(2000), ")".repeat(2000)),
        format!("1{} == 1", "+1".repeat(2000)),
        format!("request.user{} == ''", "[0]".repeat(1300)),
        format!("request.headers{} == ''", ".a".repeat(2000)),
        format!("{}1{} == []", "[".repeat(2000), "]".repeat(2000)),
        format!("{}true", "true?true:".repeat(400)),
        format!("{}1{}", "size(".repeat(600), ")".repeat(600)),
        format!("{}1{}", "{1:".repeat(1000), "}".repeat(1000)),
    ] {
        let begun = Instant::now();
        assert_eq!(When::parse(&deep).unwrap_err(), WhenError::TooDeep, "{deep:.40}");
        assert!(begun.elapsed().as_secs() < 5, "{deep:.40} took {:?}", begun.elapsed());
    }
}

#[test]
fn what_lies_deeper_than_the_bound_is_not_read() {
    let holds = |depth: usize| {
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        holds(
            "request.messages == 1",
            &format!(r#"{{"messages":[{{"role":"user","content":{nested}}}]}}"#),
            &[],
        )
    };
    assert_eq!(holds(100), Ok(true));
    assert!(holds(200_000).is_ok(), "and takes no stack");
}

#[test]
fn the_dearest_expressions_end_soon() {
    let words: Vec<String> = (0..200).map(|i| format!("'{i}'")).collect();
    let text = "a".repeat(1 << 20);
    let body = format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    for expression in [
        format!("[{}].exists(w, request.last_user.contains(w))", words.join(",")),
        r#"request.last_user.matches("(a*)*(a*)*b")"#.to_owned(),
        format!(
            "{}.contains('b')",
            vec!["request.last_user"; 20].join(" + ").replacen("request", "(request", 1) + ")"
        ),
    ] {
        let begun = Instant::now();
        assert_eq!(holds(&expression, &body, &[]), Ok(false), "{expression:.40}");
        assert!(begun.elapsed().as_secs() < 10, "{expression:.40} took {:?}", begun.elapsed());
    }
}

#[test]
fn only_what_an_expression_names_is_read() {
    let request = Request::parse(Bytes::from_static(BARE.as_bytes())).unwrap();
    let headers = || panic!("nobody asked for headers");
    let facts = Facts { model: "team", request: &request, request_id: "id", path: "/", headers: &headers };
    assert_eq!(
        When::parse("request.messages == 1 || request.headers['x'] == 'y'").unwrap().holds(&facts),
        Ok(true)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever an operator writes is a condition or an error, and a condition says yes, no or fails.
    #[test]
    fn nothing_that_is_written_panics(
        words in proptest::collection::vec(
            prop_oneof![
                Just("request"), Just("."), Just("headers"), Just("model"), Just("random"), Just("("), Just(")"),
                Just("["), Just("]"), Just("{"), Just("}"), Just(","), Just(":"), Just("?"), Just("'x'"), Just("\"\\u00e9\""),
                Just("1"), Just("-1"), Just("1.5"), Just("1u"), Just("null"), Just("true"), Just("=="), Just("<"),
                Just("&&"), Just("||"), Just("!"), Just("in"), Just("has"), Just("exists"), Just("size"), Just("matches"),
                Just("x"), Just("\\"), Just("'"), Just("é"), Just("`a`"), Just("b'\\xff'"), Just("+"), Just("%"),
            ],
            0..12,
        ),
        spaced in any::<bool>(),
    ) {
        if let Ok(when) = When::parse(&words.join(if spaced { " " } else { "" })) {
            let _ = held(&when, ASKED, &[("x", "y")], "id");
        }
    }
}
