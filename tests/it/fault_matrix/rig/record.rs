//! What is recorded of the three runs.

use std::fs;

use consort_testkit::eventually;
use serde_json::Value;

use super::{DEADLINE, DECISIONS, Fault, Rig, id_of};
use crate::fault_matrix::{MARGIN, bill};
use crate::stack::ms;

impl Rig {
    /// Everything that is not as it should be about the record of a run: how it ended, in one of these ways, and that no
    /// call is missing, nor any token.
    pub(in crate::fault_matrix) async fn recorded(&self, id: &str, outcomes: &[&str]) -> Vec<String> {
        let decision = self.decision(id).await;
        let mut wrong = bill::wrong(&decision);
        let told = decision["outcome"].as_str().unwrap_or_default();
        if !outcomes.contains(&told) {
            wrong.push(format!("recorded as {told}, not {outcomes:?}: {decision}"));
        }
        if told == "full" && !bill::calls(&decision).all(bill::is_whole) {
            wrong.push(format!("full, and not everybody has answered: {decision}"));
        }
        if self.decisions(id).len() != 1 {
            wrong.push("recorded more than once".to_owned());
        }
        let made: u64 = bill::calls(&decision).filter_map(|call| call["attempts"].as_u64()).sum();
        let received =
            self.provider.requests().iter().filter(|received| id_of(received) == id).count() as u64;
        // Not every call reaches a provider that is gone; a run that nothing hurt has made no other ones.
        if made < received || told == "full" && made != received {
            wrong.push(format!("{received} calls, {made} recorded: {decision}"));
        }
        if bill::calls(&decision).filter(|call| bill::is_whole(call)).count() < 2 {
            wrong.push(format!("two members had answered when it struck: {decision}"));
        }
        // Whatever becomes of the clock.
        let took = decision["total_ms"].as_f64().unwrap_or(f64::MAX);
        if self.fault != Fault::ConsortFrozen && took > (DEADLINE + MARGIN).as_secs_f64() * 1000.0 {
            wrong.push(format!("took {took} ms: {decision}"));
        }
        if self.fault == Fault::ConsortKilled {
            wrong.extend(self.left_by_a_kill(id, &decision).await);
        }
        wrong.into_iter().map(|wrong| format!("{:?}, {id}: {wrong}", self.fault)).collect()
    }

    /// What is wrong with what another process has recorded of a run that was killed: it names every call that was made and how
    /// far it had come, is in the file as between the log's lines, and Envoy's access log has the run.
    async fn left_by_a_kill(&self, id: &str, decision: &Value) -> Vec<String> {
        let mut wrong = self.logged_by_envoy(id).await;
        let told = |call: &Value| format!("{}={}", call["model"], call["result"]).replace('"', "");
        let told = bill::calls(decision).map(told).collect::<Vec<_>>().join(" ");
        let made = match id {
            "panel" => "a=usable b=usable c=killed",
            _ => "a=usable b=usable c=usable judge=killed",
        };
        if told != made || decision["error_code"] != "killed" {
            wrong.push(format!("{told}, not {made}: {decision}"));
        }
        let file = fs::read_to_string(self.dir.path().join(DECISIONS)).unwrap_or_default();
        let lines = file.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line"));
        // A second record would have a `sequence` of its own.
        let of_it: Vec<Value> = lines.filter(|line: &Value| line["request_id"] == id).collect();
        if of_it != [decision.clone()] {
            wrong.push(format!("the file has {file}"));
        }
        wrong
    }

    pub(super) async fn decision(&self, id: &str) -> Value {
        let decided = async || self.decisions(id).pop();
        eventually(&format!("{:?}: a decision on {id}", self.fault), ms(20_000), decided).await
    }

    fn decisions(&self, id: &str) -> Vec<Value> {
        let mut lines = self.service.logs();
        lines.retain(|line| line["request_id"] == id && line["members"].is_array());
        lines
    }

    async fn logged_by_envoy(&self, id: &str) -> Vec<String> {
        let envoy = self.envoy.as_ref().expect("an Envoy that has logged");
        let line = eventually(&format!("Envoy's line on {id}"), ms(10_000), async || {
            envoy.access_log().into_iter().find(|line| line["request_id"] == id)
        })
        .await;
        let is_told = line["upstream"].is_null() && line["extproc"].as_str().is_some_and(|e| !e.is_empty());
        if is_told { Vec::new() } else { vec![format!("Envoy has logged {line}")] }
    }
}
