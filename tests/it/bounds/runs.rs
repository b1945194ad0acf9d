//! How many runs there are at once.

use consort_testkit::eventually;
use consort_testkit::http;
use consort_testkit::provider::Reply;
use serde_json::json;

use crate::stack::{CHAT, Options, ms, question};

#[tokio::test]
async fn an_alias_has_as_many_runs_in_flight_as_its_own_cap_says_whoever_asks() {
    let other = "- {display_name: other, ensemble: {panel: [{model: b}], strategy: first}}";
    let options = Options::new().ensemble("max_inflight: 2").models(other);
    let stack = options.config("limits: {caller_key: {header: x-caller}}").start().await;
    for door in [stack.envoy.addr(), stack.service.http()] {
        let ask = |caller: &str| http::post(door, CHAT).header("x-caller", caller).json(&question(json!({})));
        stack.provider.model("model-a").reply(Reply::stall());
        let before = stack.provider.requests_for("model-a").len();
        let running = ["ann", "bob"].map(|caller| tokio::spawn(ask(caller).try_open()));
        stack.provider.wait_for("model-a", before + 2).await;
        let refused = ask("carol").send().await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["error"]["code"], refused.header("retry-after")),
            (503, &json!("overloaded"), "1")
        );
        let other = http::post(door, CHAT).json(&question(json!({"model": "other"}))).send().await;
        assert_eq!(other.status, 200, "another alias has its own: {}", other.text());
        stack.provider.model("model-a").reply(Reply::text("one"));
        running.iter().for_each(tokio::task::JoinHandle::abort);
        eventually("both places again", ms(10_000), async || {
            let (one, other) = tokio::join!(ask("carol").send(), ask("dave").send());
            Some(()).filter(|()| one.status == 200 && other.status == 200)
        })
        .await;
    }
}
