//! `GET /v1/models` through Envoy: the aliases among the upstream's models, or in their place.

use ::http::Response;
use bytes::Bytes;
use consort_testkit::envoy::replace_once;
use consort_testkit::http::{self, Answer};
use consort_testkit::upstream::Upstream;
use consort_testkit::{eventually, workspace};
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
    let blocks =
        section.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap_or_default());
    let route = blocks.filter(|block| block.starts_with("- name: models")).next().expect("the route");
    let route: String = route.lines().map(|line| format!("              {line}\n")).collect();
    replace_once(yaml, "              - name: rest\n", &format!("{route}              - name: rest\n"))
}

async fn start(options: Options, how: &str) -> Stack {
    let stack = options.config(&format!("ext_proc: {{list_models: {how}}}")).edit(with_route).start().await;
    lists(&stack.upstream, THEIRS);
    stack
}

fn lists(upstream: &Upstream, list: &'static str) {
    upstream.answer(MODELS, move |_| json_of(list).body(Bytes::from(list)).expect("a response"));
}

fn json_of(_list: &str) -> ::http::response::Builder {
    Response::builder().header("content-type", "application/json").header("etag", "\"theirs\"")
}

async fn listed(stack: &Stack) -> Answer {
    http::get(stack.envoy.addr(), MODELS).send().await
}

async fn streams(stack: &Stack) -> u64 {
    stack.envoy.stats("http.llm.ext_proc.consort.streams_started").await
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|model| model["id"].as_str().expect("a name"))
        .collect()
}

#[tokio::test]
async fn the_aliases_are_added_to_the_upstreams_list() {
    for options in [Options::new(), Options::buffered()] {
        let stack = start(options, "add").await;
        for h2c in [false, true] {
            let call = http::get(stack.envoy.addr(), MODELS).header("accept-encoding", "gzip, br");
            let answer = if h2c { call.h2c() } else { call }.send().await;
            assert_eq!(answer.status, 200);
            assert_eq!(ids(&answer.json()), ["gpt-4o", ALIAS]);
            let theirs = THEIRS.split("\n  ]").next().expect("their part");
            assert!(answer.text().starts_with(theirs), "{}", answer.text());
            assert_eq!(answer.header("content-length"), answer.text().len().to_string());
            assert_eq!(answer.header("etag"), "", "what is told of another body");
            let alias = &answer.json()["data"][1];
            assert_eq!((&alias["object"], &alias["owned_by"]), (&json!("model"), &json!("consort")));
            let arrived = stack.upstream.requests().pop().expect("the upstream was asked");
            assert_eq!(arrived.headers["accept-encoding"], "identity");
        }
    }
}
