//! `GET /v1/models` through Envoy: the aliases among the upstream's models, or in their place.

use ::http::Response;
use bytes::Bytes;
use consort_testkit::envoy::replace_once;
use consort_testkit::http::{self, Answer, Call};
use consort_testkit::workspace;
use serde_json::{Value, json};

use crate::clients::{node_at, node_packages, python_at};
use crate::stack::{ALIAS, Options, Stack, ms};

const MODELS: &str = "/v1/models";
/// Spelled as nobody else would: what is theirs stays byte for byte.
const THEIRS: &str = "{\n  \"object\": \"list\",\n  \"data\": [\n    { \"id\": \"gpt-4o\", \"object\": \"model\", \"created\": 1.0e9, \
                      \"owned_by\": \"u\\u00e9\" }\n  ]\n}\n";

/// The route as the documentation tells to add it.
fn with_route(yaml: String) -> String {
    let text = std::fs::read_to_string(workspace().join("docs/attaching.md")).expect("a document");
    let section = text.split("\n## `/v1/models` through Envoy\n").nth(1).expect("the section");
    let mut blocks = section
        .split("```yaml envoy=routes\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap_or_default());
    let route = blocks.find(|block| block.starts_with("- name: models")).expect("the route");
    let route: String = route.lines().map(|line| format!("              {line}\n")).collect();
    replace_once(yaml, "              - name: rest\n", &format!("{route}              - name: rest\n"))
}

/// How callers find the aliases, and what the upstream lists.
async fn start(options: Options, how: &str) -> Stack {
    let stack = options.config(&format!("ext_proc: {{list_models: {how}}}")).edit(with_route).start().await;
    answers(
        &stack,
        || Response::builder().header("content-type", "application/json").header("etag", "\"1\""),
        THEIRS,
    );
    stack
}

/// From now on, this is the upstream's list.
fn answers(
    stack: &Stack,
    head: impl Fn() -> ::http::response::Builder + Send + Sync + 'static,
    body: impl Into<Bytes>,
) {
    let body = body.into();
    stack.upstream.answer(MODELS, move |_| head().body(body.clone()).expect("a response"));
}

fn list(stack: &Stack) -> Call {
    http::get(stack.envoy.addr(), MODELS)
}

async fn streams(stack: &Stack) -> u64 {
    stack.envoy.stats("http.llm.ext_proc.consort.streams_started").await
}

fn ids(answer: &Answer) -> Vec<String> {
    let id = |model: &Value| model["id"].as_str().expect("a name").to_owned();
    answer.json()["data"].as_array().expect("a list").iter().map(id).collect()
}

#[tokio::test]
async fn the_aliases_are_added_to_the_upstreams_list() {
    for options in [Options::new(), Options::buffered()] {
        let stack = start(options, "add").await;
        for h2c in [false, true] {
            let call = list(&stack).header("accept-encoding", "gzip, br");
            let answer = if h2c { call.h2c() } else { call }.send().await;
            assert_eq!(answer.status, 200);
            assert_eq!(ids(&answer), ["gpt-4o", ALIAS]);
            let theirs = THEIRS.split("\n  ]").next().expect("their part");
            assert!(answer.text().starts_with(theirs), "{}", answer.text());
            assert_eq!(answer.header("content-length"), "", "Envoy tells no length in this mode");
            assert_eq!(answer.header("etag"), "", "what is told of another body");
            let alias = &answer.json()["data"][1];
            assert_eq!((&alias["object"], &alias["owned_by"]), (&json!("model"), &json!("consort")));
            let arrived = stack.upstream.requests().pop().expect("the upstream was asked");
            assert_eq!(arrived.headers["accept-encoding"], "identity");
        }
        let chunked = || {
            let head = Response::builder().header("content-type", "application/json");
            head.header("transfer-encoding", "chunked")
        };
        answers(&stack, chunked, THEIRS);
        assert_eq!(ids(&list(&stack).send().await), ["gpt-4o", ALIAS]);
        let one = http::get(stack.envoy.addr(), &format!("{MODELS}/{ALIAS}")).send().await;
        assert_eq!((one.status.as_u16(), &one.json()["id"]), (200, &json!(ALIAS)));
        let other = http::get(stack.envoy.addr(), "/v1/models/gpt-4o").send().await;
        assert_eq!(other.header("x-upstream"), "echo");
    }
}

#[tokio::test]
async fn what_is_no_list_of_models_passes_as_it_came() {
    for options in [Options::new(), Options::buffered()] {
        let stack = start(options, "add").await;
        let json = || Response::builder().header("content-type", "application/json");
        let as_it_came = async |head: fn() -> ::http::response::Builder, body: Bytes, status: u16| {
            answers(&stack, head, body.clone());
            let answer = list(&stack).send().await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.body.len(), body.len(), "{:?}", answer.broken);
            assert!(answer.body == body, "the same bytes");
        };
        let refusal = || Response::builder().status(401).header("content-type", "application/json");
        as_it_came(refusal, Bytes::from_static(br#"{"object":"list","data":[]}"#), 401).await;
        as_it_came(json, Bytes::from_static(b"no JSON"), 200).await;
        let gzip = || Response::builder().header("content-encoding", "gzip");
        as_it_came(gzip, Bytes::from_static(b"\x1f\x8b\x08 and so on"), 200).await;
        // Longer than Envoy's buffer, and than what is read.
        let long = Bytes::from(format!("{}{THEIRS}", " ".repeat(5 << 20)));
        as_it_came(json, long.clone(), 200).await;
        let chunked = || Response::builder().header("transfer-encoding", "chunked");
        answers(&stack, chunked, long.clone());
        let answer = list(&stack).send().await;
        assert!(answer.status == 200 && answer.body == long, "{} {:?}", answer.status, answer.broken);
        answers(&stack, json, THEIRS);
        let head = Call::new(::http::Method::HEAD, stack.envoy.addr(), MODELS).send().await;
        assert_eq!(head.header("content-length"), THEIRS.len().to_string());
    }
}

/// For those who know how long the list is: the length is told, and it is the right one.
#[tokio::test]
async fn a_list_that_envoy_keeps_whole_has_its_length() {
    let buffered = |yaml| {
        replace_once(with_route(yaml), "response_body_mode: BUFFERED_PARTIAL", "response_body_mode: BUFFERED")
    };
    let stack = Options::new().config("ext_proc: {list_models: add}").edit(buffered).start().await;
    answers(&stack, || Response::builder().header("content-type", "application/json"), THEIRS);
    let answer = list(&stack).send().await;
    assert_eq!(ids(&answer), ["gpt-4o", ALIAS]);
    assert_eq!(answer.header("content-length"), answer.body.len().to_string());
}

#[tokio::test]
async fn the_aliases_are_the_answer() {
    for options in [Options::new(), Options::buffered()] {
        let stack = start(options, "answer").await;
        let answer = list(&stack).send().await;
        assert_eq!((answer.status.as_u16(), ids(&answer)), (200, vec![ALIAS.to_owned()]));
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(stack.upstream.requests().is_empty());
        let other = http::get(stack.envoy.addr(), "/v1/models/gpt-4o").send().await;
        assert_eq!(other.header("x-upstream"), "echo");
    }
}

/// What the route costs where nothing is listed, and that the shipped files are without it.
#[tokio::test]
async fn nothing_changes_where_nothing_is_listed() {
    let stack = start(Options::new(), "off").await;
    let answer = list(&stack).send().await;
    assert_eq!((answer.text(), answer.header("etag")), (THEIRS, "\"1\""));
    assert_eq!(streams(&stack).await, 1);
    let shipped = Options::new().config("ext_proc: {list_models: add}").start().await;
    assert_eq!(list(&shipped).send().await.header("x-upstream"), "echo");
    assert_eq!(streams(&shipped).await, 0);
}

#[tokio::test]
async fn the_upstreams_list_is_there_without_consort() {
    let stack = start(Options::new(), "add").await;
    // It dies with the upstream's list on its way.
    let slowly = || Response::builder().header("content-type", "application/json").extension(ms(400));
    answers(&stack, slowly, THEIRS);
    let before = stack.upstream.requests().len();
    let (answer, ()) = tokio::join!(list(&stack).send(), async {
        stack.upstream.wait_for(before + 1).await;
        stack.service.kill();
    });
    assert_eq!((answer.status.as_u16(), answer.text()), (200, THEIRS));
    let answer = list(&stack).send().await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, THEIRS));
}

#[tokio::test]
async fn official_sdks_find_the_aliases_through_envoy() {
    let stack = start(Options::new(), "add").await;
    let said = python_at("models", stack.envoy.addr()).await;
    assert_eq!(said, json!({"ids": ["gpt-4o", ALIAS], "one": ALIAS}));
    if let Some(packages) = node_packages().await {
        assert_eq!(node_at("models", &packages, stack.envoy.addr()).await, said);
    }
}
