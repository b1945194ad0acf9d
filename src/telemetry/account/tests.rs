//! The account of one run.

use super::*;
use crate::telemetry::line;

fn tokens(total: u64) -> Usage {
    serde_json::from_value(serde_json::json!({"total_tokens": total})).unwrap()
}

fn account() -> Account {
    let about = About { request_id: "r", alias: "team", strategy: "judge", quorum: 2, door: Door::default() };
    Account::open(&Decisions::default(), about, [("a", 1.0), ("b", 1.0)].into_iter())
}

#[test]
fn attempts_are_counted_and_what_they_cost_is_billed_once_however_the_call_ends() {
    let mut account = account();
    let [a, b] = [0, 1].map(|index| account.member_began(index, None));
    a.begin();
    a.failed_at(&tokens(3));
    a.begin();
    let ended = Ended { result: USABLE, usage: Some(tokens(10)), estimate: None };
    account.ended(Seat::Member(0), &ended);
    b.begin();
    b.failed_at(&tokens(4));
    assert_eq!(account.usage().count("total_tokens"), 13);
    account.panel_ended(0, None);
    assert_eq!(account.usage().count("total_tokens"), 17, "what follows the panel is told of all of it");
    let (judge, _) = account.judge_began("judge", Part::Judge, None);
    account.ended(judge, &Ended { result: "cooling", usage: None, estimate: None });
    assert_eq!(account.usage().count("total_tokens"), 17);
    let decision: serde_json::Value = serde_json::from_str(account.to_json().unwrap().get()).unwrap();
    let told = |call: &serde_json::Value| {
        (call["result"].clone(), call["attempts"].clone(), call["usage"]["total_tokens"].clone())
    };
    assert_eq!(told(&decision["members"][0]), ("usable".into(), 2.into(), 13.into()));
    assert_eq!(told(&decision["members"][1]), ("cancelled".into(), 1.into(), 4.into()));
    assert_eq!(told(&decision["judges"][0]), ("cooling".into(), 0.into(), serde_json::Value::Null));
    assert_eq!(decision["usage"]["total_tokens"], 17);
    assert!(line::calls(&account.decision.members).ends_with("x2 b=cancelled@0"), "once needs no number");
}

#[test]
fn a_line_tells_of_the_first_calls_and_counts_the_others() {
    let mut account = account();
    let mut told = |calls: usize| {
        while account.decision.judges.len() < calls {
            let name = format!("{:0>20}", account.decision.judges.len());
            account.judge_began(&name, Part::Judge, None);
        }
        line::calls(&account.decision.judges)
    };
    let each = told(1).len() + 1;
    let most = 4096usize.div_ceil(each);
    assert!(!told(most).contains("more"), "up to the bound");
    let more = told(most + 200);
    assert!(more.ends_with(" … and 200 more") && more.len() < 4096 + each + 20, "{more}");
}

#[test]
fn a_run_costs_what_its_calls_cost_and_nothing_is_known_of_models_without_a_price() {
    let cost = Some(Cost { input: 0.0, cached_input: 0.0, output: 1000.0 });
    let mut account = account();
    let bill = account.follow_cost();
    account.member_began(0, None);
    let reported = |total| Ended { result: USABLE, usage: Some(tokens(total)), estimate: None };
    account.ended(Seat::Member(0), &reported(9));
    assert_eq!((account.cost_usd(), bill.usd()), (None, None));
    let b = account.member_began(1, cost);
    assert_eq!(account.cost_usd(), Some(0.0), "what has a price may yet cost nothing");
    b.begin();
    b.failed_at(&tokens(4));
    b.begin();
    account.ended(Seat::Member(1), &Ended { result: USABLE, usage: None, estimate: Some(tokens(2)) });
    let (judge, _) = account.judge_began("judge", Part::Judge, cost);
    account.ended(judge, &reported(10));
    assert_eq!((account.cost_usd(), bill.usd()), (Some(16.0), Some(16.0)));
    let calls = [&account.decision.members[0], &account.decision.members[1], &account.decision.judges[0]];
    assert_eq!(calls.map(|call| call.cost_usd), [None, Some(6.0), Some(10.0)]);
    assert_eq!(calls.map(|call| call.usage.unwrap().estimated), [false, true, false]);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_its_times_and_one_that_never_ends_ends_with_its_call() {
    let pass = |ms| tokio::time::advance(Duration::from_millis(ms));
    let mut account = account();
    pass(5).await;
    let [a, b] = [0, 1].map(|index| account.member_began(index, None));
    a.queued(Duration::from_millis(3));
    a.begin();
    b.begin();
    pass(10).await;
    a.heard();
    a.ended("server_error", Some(503));
    b.heard();
    pass(20).await;
    a.begin();
    pass(30).await;
    a.heard();
    pass(1).await;
    a.heard();
    a.ended("answered", None);
    pass(4).await;
    account.ended(Seat::Member(0), &Ended { result: USABLE, usage: None, estimate: None });
    account.quorum_met();
    pass(1).await;
    account.quorum_met();
    account.panel_ended(0, None);
    let told = |call: &Call| {
        let tries: Vec<String> = call
            .tries
            .iter()
            .map(|t| format!("{}+{} {} {:?}", t.started_ms, t.elapsed_ms, t.result, t.status))
            .collect();
        (call.first_byte_ms, call.queued_ms, tries.join(", "))
    };
    let [a, b] = [0, 1].map(|index| told(&account.decision.members[index]));
    assert_eq!(a, (Some(65.0), 3.0, "5+10 server_error Some(503), 35+31 answered None".to_owned()));
    assert_eq!(b, (Some(15.0), 0.0, "5+66 cancelled None".to_owned()));
    assert_eq!(account.decision.quorum_ms, Some(70.0));
}

#[test]
fn a_text_is_kept_up_to_the_bound_and_cut_past_it() {
    let sinks = crate::telemetry::Sinks { max_content_bytes: Some(4), ..Default::default() };
    let about = About { request_id: "r", alias: "team", strategy: "judge", quorum: 2, door: Door::default() };
    let mut account = Account::open(&Decisions::open(&sinks).unwrap(), about, std::iter::empty());
    for (text, kept) in [("four", "four"), ("fours", "four"), ("fouré", "four"), ("fooé", "foo")] {
        account.asked(text);
        assert_eq!(account.decision.question.as_deref(), Some(kept));
    }
}
