//! What callers may change by `x-ensemble-…` headers.

use consort_testkit::http::Answer;
use consort_testkit::provider::Reply;
use serde_json::{Value, json};

use crate::stack::{ALIAS, Options, Stack};

/// Everything that may be changed, and an alias whose panel callers form.
const OPEN: &str =
    "overrides: {strategy: [judge, vote, first], models: [b, c], judge: [judge, a], min_responses: true}";
const AD_HOC: &str = "overrides: {ad_hoc: {alias: pick, models: [a, b], judge: [judge]}}";

async fn open(options: Options) -> Stack {
    options.ensemble(OPEN).config(AD_HOC).start().await
}

async fn asked(stack: &Stack, alias: &str, headers: &[(&str, &str)]) -> Answer {
    let call = stack.ask(json!({"model": alias}));
    headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send().await
}

/// The answer in a few words: its text, and what its headers say of the run.
fn told(answer: &Answer) -> String {
    let header = |name| answer.header(name);
    if answer.status != 200 {
        return format!("{} {}", answer.status.as_u16(), answer.json()["error"]["code"].as_str().unwrap());
    }
    format!(
        "{} ({} of {}: {})",
        answer.json()["choices"][0]["message"]["content"].as_str().unwrap(),
        header("x-ensemble-strategy"),
        header("x-ensemble-panel"),
        header("x-ensemble-outcome"),
    )
}

#[tokio::test]
async fn each_header_that_is_allowed_is_heeded() {
    for options in [Options::new(), Options::buffered()] {
        let stack = open(options).await;
        stack.provider.model("model-c").reply(Reply::status(500, json!({"error": "no"})));
        for (headers, expected) in [
            (&[][..], "the judge's answer (judge of 3: quorum)"),
            (&[("X-Ensemble-Judge", "a")], "one (judge of 3: quorum)"),
            (&[("X-Ensemble-Models", "b, b")], "the judge's answer (judge of 2: full)"),
            (&[("X-Ensemble-Models", "b")], "two (judge of 1: single)"),
            (&[("X-Ensemble-Strategy", "vote"), ("X-Ensemble-Models", "b")], "two (vote of 1: single)"),
            (&[("X-Ensemble-Strategy", "vote")], "one (vote of 3: quorum)"),
            (&[("X-Ensemble-Strategy", "first"), ("X-Ensemble-Models", "c,b")], "two (first of 2: quorum)"),
            (&[("X-Ensemble-Min-Responses", "1"), ("X-Ensemble-Models", "c,b")], "two (judge of 2: single)"),
            (&[("X-Ensemble-Min-Responses", "3")], "502 quorum_not_met"),
            // Of a header that comes twice, the last counts.
            (&[("X-Ensemble-Models", "nonsense"), ("X-Ensemble-Models", "b")], "two (judge of 1: single)"),
        ] {
            let answer = asked(&stack, ALIAS, headers).await;
            assert_eq!(told(&answer), expected, "{headers:?} {}", answer.text());
        }
        let before = stack.provider.requests_for("model-b").len();
        asked(&stack, ALIAS, &[("X-Ensemble-Models", "b,b,b")]).await;
        assert_eq!(stack.provider.requests_for("model-b").len() - before, 3, "asked as often as named");
        let stream = stack.ask_stream().header("x-ensemble-models", "b,b").header("x-ensemble-judge", "a");
        let answer = stream.send().await;
        assert_eq!((answer.header("x-ensemble-panel"), answer.header("x-ensemble-outcome")), ("2", "full"));
        assert!(answer.text().contains("one"), "{}", answer.text());
        assert!(stack.upstream.requests().is_empty());
        stack.provider.assert_clean();
    }
}

#[tokio::test]
async fn a_header_that_is_allowed_and_wrong_is_a_400_that_says_what_is_right() {
    for options in [Options::new(), Options::buffered()] {
        let stack = open(options).await;
        let panels =
            |models| format!("a comma-separated list of 1 to 16 of these, repeats included: {models}");
        for (alias, header, value, told) in [
            (
                ALIAS,
                "x-ensemble-strategy",
                "score",
                "cannot be \"score\"; allowed: judge, vote, first".to_owned(),
            ),
            (ALIAS, "x-ensemble-models", "a,b", format!("cannot be \"a,b\"; allowed: {}", panels("b, c"))),
            (ALIAS, "x-ensemble-judge", "b", "cannot be \"b\"; allowed: judge, a".to_owned()),
            (
                ALIAS,
                "x-ensemble-min-responses",
                "4",
                "cannot be \"4\"; allowed: 1 to 3, the size of the panel".to_owned(),
            ),
            ("pick", "x-ensemble-models", "b,c", format!("cannot be \"b,c\"; allowed: {}", panels("a, b"))),
            ("pick", "x-unrelated", "x", format!("is required here; allowed: {}", panels("a, b"))),
        ] {
            for stream in [false, true] {
                let ask = stack.ask(json!({"model": alias, "stream": stream})).header(header, value);
                let answer = ask.send().await;
                let error = &answer.json()["error"];
                let named = if header == "x-unrelated" { "x-ensemble-models" } else { header };
                let expected = json!({
                    "message": format!("{named} {told}"), "type": "invalid_request_error",
                    "param": named, "code": "invalid_header",
                });
                assert_eq!((answer.status.as_u16(), error), (400, &expected));
                assert_eq!(answer.header("x-ensemble-alias"), alias);
                assert_eq!(answer.header("x-should-retry"), "", "nobody was asked");
            }
        }
        assert!(stack.provider.requests().is_empty() && stack.upstream.requests().is_empty());
    }
}

#[tokio::test]
async fn what_is_not_allowed_is_ignored() {
    let stack = Stack::start().await;
    let all = ["strategy", "models", "judge", "min-responses", "enable", "trace", "unheard-of"];
    let headers: Vec<(String, &str)> =
        all.iter().map(|name| (format!("x-ensemble-{name}"), "nonsense")).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, *value)).collect();
    let answer = asked(&stack, ALIAS, &headers).await;
    assert_eq!(told(&answer), "the judge's answer (judge of 3: full)");
    let logged = stack.run_logged().await;
    let ignored = "x-ensemble-strategy,x-ensemble-models,x-ensemble-judge,x-ensemble-min-responses,x-ensemble-enable,x-ensemble-trace";
    assert_eq!((&logged["ignored"], &logged["overrides"]), (&json!(ignored), &Value::Null));
    let plain: Value =
        stack.ask(json!({"model": "gpt-4o"})).header("x-ensemble-models", "b").send().await.json();
    assert_eq!(stack.upstream.requests().len(), 1, "what is no alias passes: {plain}");
}

#[tokio::test]
async fn a_caller_forms_a_panel_by_headers_alone() {
    for options in [Options::new(), Options::buffered()] {
        let stack = open(options).await;
        for (headers, expected) in [
            (&[("X-Ensemble-Models", "a,b")][..], "the judge's answer (judge of 2: full)"),
            (
                &[("X-Ensemble-Models", "b,b,b"), ("X-Ensemble-Min-Responses", "3")],
                "the judge's answer (judge of 3: full)",
            ),
            (&[("X-Ensemble-Models", "a")], "one (judge of 1: single)"),
        ] {
            let answer = asked(&stack, "pick", headers).await;
            assert_eq!(told(&answer), expected, "{headers:?} {}", answer.text());
            assert_eq!(
                (answer.header("x-ensemble-alias"), &answer.json()["model"]),
                ("pick", &json!("pick"))
            );
        }
        stack.provider.assert_clean();
    }
}
