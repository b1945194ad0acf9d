//! The hand-off: Envoy's door gives a ticket, the plain door answers for it.

use serde_json::json;

use crate::stack::Options;

#[tokio::test]
async fn an_ensembles_request_is_answered_by_the_plain_door() {
    let stack = Options::handoff().start().await;
    let answer = stack.ask(json!({})).send().await;
    println!("{} {:?} {}", answer.status, answer.headers, answer.text());
    println!("{:#?}", stack.envoy.wait_access_log(1).await);
    println!("{:#?}", stack.service.logs());
    assert_eq!(answer.status, 200);
}
