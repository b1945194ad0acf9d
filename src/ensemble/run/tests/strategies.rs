//! Each strategy over scripted callers, in paused time.

use super::*;
use crate::ensemble::{
    Average, Cascade, Confidence, Judge, OnNoConsensus, Rank, RankMode, Reading, Require, Score, Vote,
    Weighted,
};

/// What is the same for all answers that are numbers.
pub(super) fn numbers(strategy: Strategy, members: usize) -> Ensemble {
    with(|e| {
        e.strategy = strategy;
        e.reading = Reading::Number { pattern: None, pointer: None };
        e.panel = NAMES.into_iter().take(members).map(fixture::member).collect();
    })
}

pub(super) const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A member for each text, in panel order; each answers 10 ms after the one before.
pub(super) fn say(texts: &[&str]) -> Scripted {
    let members = NAMES.into_iter().zip(texts).zip(1..);
    members
        .fold(Scripted::default(), |caller, ((name, text), turn)| caller.model(name, says(turn * 10, text)))
        .model("judge", says(5, "judged"))
}

pub(super) fn vote() -> Vote {
    Vote { require: Require::Plurality, on_no_consensus: OnNoConsensus::First, similarity: 0.8 }
}

pub(super) fn judge() -> Judge {
    judge_of(crate::ensemble::prompt::Purpose::Synthesis, "judge")
}

pub(super) fn judge_of(purpose: crate::ensemble::prompt::Purpose, name: &str) -> Judge {
    Judge {
        model: fixture::model(name),
        fallback: None,
        prompt: crate::ensemble::prompt::Template::of(purpose),
        params: Vec::new(),
        max_candidate_bytes: 1000,
    }
}

/// The decision of a run, as its caller may see it.
pub(super) async fn decision(caller: &Arc<Scripted>, ensemble: Ensemble, body: Value) -> Value {
    let runner = Runner::new(Arc::clone(caller) as Arc<dyn Caller>, Admission::new(8), 1 << 20);
    let traced = Context { trace: true, ..context() };
    let outcome =
        runner.admit(Arc::new(ensemble), traced).await.ok().unwrap().run(request(&body), None).await;
    let decision = match outcome {
        Err(failed) => failed.head.decision.unwrap().get().to_owned(),
        Ok(outcome) => {
            let mut collected = Collected::default();
            let events: Vec<_> = outcome.events.collect().await;
            events.into_iter().for_each(|event| collected.push(event.unwrap()).unwrap());
            collected.decision.unwrap().get().to_owned()
        }
    };
    serde_json::from_str(&decision).unwrap()
}

pub(super) fn results(decision: &Value, of: &str) -> Vec<String> {
    let calls = decision[of].as_array().unwrap();
    calls.iter().map(|call| call["result"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn asked(caller: &Scripted) -> Vec<String> {
    caller.calls.lock().unwrap().iter().map(|(model, _)| model.clone()).collect()
}

mod votes {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn end_as_soon_as_the_leader_cannot_be_caught() {
        let caller = Arc::new(say(&["It is 7.", "8", "#### 7.0", "the answer is 7", "9"]));
        let outcome = answer(&caller, numbers(Strategy::Vote(vote()), 5)).await;
        // The third member's answer comes after 30 ms: 2 of 5 could still be caught, 3 of 5 cannot.
        assert_eq!(outcome, ("It is 7.".to_owned(), "quorum", 60, 40));
        assert_eq!(caller.open.load(Ordering::Relaxed), 0);
        let decision = decision(&caller, numbers(Strategy::Vote(vote()), 5), json!({})).await;
        assert_eq!(results(&decision, "members"), ["usable", "usable", "usable", "usable", "cancelled"]);
        assert_eq!(decision["calls_saved"], 1);
        assert_eq!(
            (&decision["members"][2]["key"], &decision["members"][0]["chosen"]),
            (&json!("7"), &json!(true))
        );
        assert_eq!(decision["agreement"], 0.75);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_the_quorum_even_when_they_are_settled() {
        let all = |e: &mut Ensemble| e.quorum = std::num::NonZeroUsize::new(3).unwrap();
        let caller = Arc::new(say(&["7", "7", "8"]));
        let mut ensemble = numbers(Strategy::Vote(vote()), 3);
        assert_eq!(answer(&caller, ensemble.clone()).await, ("7".to_owned(), "quorum", 30, 20));
        all(&mut ensemble);
        assert_eq!(answer(&caller, ensemble).await, ("7".to_owned(), "full", 45, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn by_weight_follow_the_strong_member() {
        let weighted = |confidence| Strategy::Weighted(Weighted { vote: vote(), confidence });
        let mut ensemble = numbers(weighted(Confidence::Flat), 3);
        ensemble.panel[2].weight = 2.5;
        let caller = Arc::new(say(&["7", "7", "8"]));
        assert_eq!(answer(&caller, ensemble.clone()).await, ("8".to_owned(), "full", 45, 30));
        // Early enough, the strong member alone decides.
        let quick = Arc::new(say(&["7", "7", "8"]).model("c", says(1, "8")));
        assert_eq!(answer(&quick, ensemble.clone()).await, ("8".to_owned(), "quorum", 30, 10));
        ensemble.strategy = weighted(Confidence::Logprob);
        assert_eq!(answer(&quick, ensemble).await.3, 20, "confidences are known at the end only");
    }

    #[tokio::test(start_paused = true)]
    async fn without_consensus_go_to_the_judge_or_the_first_candidate_or_are_an_error() {
        let unanimous = |on_no_consensus| {
            let vote = Vote { require: Require::Unanimous, on_no_consensus, ..vote() };
            numbers(Strategy::Vote(vote), 3)
        };
        let caller = Arc::new(say(&["7", "7", "8"]));
        assert_eq!(answer(&caller, unanimous(OnNoConsensus::First)).await.0, "7");
        let judged = unanimous(OnNoConsensus::Judge(judge()));
        assert_eq!(answer(&caller, judged.clone()).await, ("judged".to_owned(), "degraded", 60, 35));
        assert_eq!(decision(&caller, judged, json!({})).await["degraded"], json!(["no_consensus"]));
        let (status, code, e) = error(say(&["7", "7", "8"]), unanimous(OnNoConsensus::Fail)).await;
        assert_eq!((status, &*code, e.should_retry), (502, "no_consensus", Some(false)));
        let silent = Arc::new(say(&["dunno", "no idea", "hm"]));
        assert_eq!(answer(&silent, numbers(Strategy::Vote(vote()), 3)).await.1, "degraded");
    }

    #[tokio::test(start_paused = true)]
    async fn count_no_refusal_and_no_failure_and_an_abstention_only_in_the_panel() {
        let caller = say(&["8", "dunno", "7", "7"]).model("a", fails(1, down)).model("d", says(2, ""));
        let majority = Strategy::Vote(Vote { require: Require::Majority, ..vote() });
        // One vote and one abstention: half of the candidates is no majority.
        assert_eq!(answer(&Arc::new(caller), numbers(majority.clone(), 4)).await.1, "degraded");
        let caller = Arc::new(say(&["8", "7", "7", "7"]).model("a", fails(1, down)).model("d", says(2, "")));
        assert_eq!(answer(&caller, numbers(majority, 4)).await, ("7".to_owned(), "quorum", 45, 30));
    }
}

mod judged {
    use super::*;
    use crate::ensemble::prompt::Purpose;

    fn rank(mode: RankMode) -> Ensemble {
        with(|e| e.strategy = Strategy::Rank(Rank { judge: judge_of(Purpose::Ranking, "judge"), mode }))
    }

    /// The label under which a judge is shown a text.
    fn label_of(prompt: &str, text: &str) -> String {
        let before = prompt.split(text).next().unwrap();
        let fence = before.lines().rfind(|line| line.starts_with("BEGIN ")).unwrap();
        fence.split(' ').nth(1).unwrap().to_owned()
    }

    /// What the judge was shown in its last call.
    fn prompt(caller: &Scripted) -> (Value, String) {
        let calls = caller.calls.lock().unwrap();
        let body = calls.iter().rfind(|(model, _)| model == "judge").unwrap().1.clone();
        let text =
            body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        (body, text)
    }

    #[tokio::test(start_paused = true)]
    async fn a_ranking_judge_chooses_and_the_choice_is_returned_as_it_was_given() {
        // The order depends on the request's id alone: a first run tells which letter is whose.
        let learn = Arc::new(panel().model("judge", says(5, "none")));
        answer(&learn, rank(RankMode::Listwise)).await;
        let letter = label_of(&prompt(&learn).1, "\ntwo\n");
        let verdict = format!("Well… ```json\n{{\"reasons\": \"x\", \"best\": \"{letter}\"}}\n```");
        let caller = Arc::new(panel().model("judge", says(5, &verdict)));
        assert_eq!(answer(&caller, rank(RankMode::Listwise)).await, ("two".to_owned(), "full", 60, 35));
        let decision = decision(&caller, rank(RankMode::Listwise), json!({})).await;
        assert_eq!(results(&decision, "judges"), ["answered"]);
        let scores: Vec<_> = (0..3).map(|i| decision["members"][i]["score"].as_f64().unwrap()).collect();
        assert_eq!(scores, [0.0, 1.0, 0.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_verdict_is_asked_for_once_more_and_then_the_best_candidate_is_disclosed() {
        let caller = Arc::new(panel().model("judge", says(5, "B, I think")));
        assert_eq!(answer(&caller, rank(RankMode::Listwise)).await, ("one".to_owned(), "degraded", 75, 40));
        assert_eq!(asked(&caller), ["a", "b", "c", "judge", "judge"]);
        let decision = decision(&caller, rank(RankMode::Listwise), json!({})).await;
        assert_eq!(results(&decision, "judges"), ["unreadable", "unreadable"]);
        assert_eq!(decision["degraded"], json!(["judge_failed"]));
        let strict = |mode| {
            let mut ensemble = rank(mode);
            ensemble.on_judge_failure = OnJudgeFailure::Fail;
            ensemble
        };
        for mode in [RankMode::Listwise, RankMode::Pairwise] {
            assert_eq!(error(panel().model("judge", says(5, "?")), strict(mode)).await.1, "judge_failed");
        }
        let limited = panel().model("judge", fails(1, || status(429, "x", None)));
        assert_eq!(error(limited, strict(RankMode::Listwise)).await.0, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_judge_is_replaced_by_its_fallback() {
        let mut ensemble = rank(RankMode::Listwise);
        ensemble.strategy.judges_mut()[0].fallback = Some(fixture::model("spare"));
        let verdict = r#"{"reasons":"","best":"A"}"#;
        let caller = Arc::new(panel().model("judge", fails(1, down)).model("spare", says(3, verdict)));
        let (text, outcome, ..) = answer(&caller, ensemble).await;
        assert!(["one", "two", "three"].contains(&&*text));
        assert_eq!(
            (outcome, asked(&caller)[3..].to_vec()),
            ("degraded", vec!["judge".to_owned(), "spare".to_owned()])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pairs_are_compared_in_both_orders_so_that_a_favoured_place_wins_nothing() {
        let always_first = Arc::new(panel().model("judge", says(5, r#"{"reasons":"","best":"A"}"#)));
        // Whoever stands first wins: all pairs are drawn, and panel order decides.
        assert_eq!(
            answer(&always_first, rank(RankMode::Pairwise)).await,
            ("one".to_owned(), "full", 45 + 6 * 15, 35)
        );
        let decision = decision(&always_first, rank(RankMode::Pairwise), json!({})).await;
        assert_eq!(decision["judges"].as_array().unwrap().len(), 6);
        assert!((0..3).all(|i| decision["members"][i]["score"] == 0.0));
    }

    #[tokio::test(start_paused = true)]
    async fn sixteen_verdicts_are_asked_for_at_once_and_further_ones_wait() {
        for (members, elapsed) in
            [(&["a", "b", "c", "a"][..], 30 + 5), (&["a", "b", "c", "a", "b"], 30 + 2 * 5)]
        {
            let judge = Arc::new(panel().model("judge", says(5, r#"{"reasons":"","best":"A"}"#)));
            let mut ensemble = rank(RankMode::Pairwise);
            ensemble.panel = members.iter().copied().map(fixture::member).collect();
            assert_eq!(
                answer(&judge, ensemble).await.3,
                elapsed,
                "{} pairs",
                members.len() * (members.len() - 1)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_judge_for_a_verdict_gets_the_conversation_and_the_tools_and_calls_none() {
        let caller = Arc::new(panel().model("judge", says(5, "?")));
        let mut ensemble = rank(RankMode::Listwise);
        ensemble.strategy.judges_mut()[0].params = vec![("temperature".to_owned(), Bytes::from_static(b"0"))];
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let body = json!({"stream": true, "stream_options": {"include_usage": true}, "tools": tools, "tool_choice": "required",
            "response_format": {"type": "text"}, "max_tokens": 5, "stop": ["x"], "temperature": 1.5, "logprobs": true,
            "reasoning_effort": "low", "metadata": {"k": "v"}, "vendor": 1, "seed": 3});
        run(Arc::clone(&caller), ensemble, body).await.ok().unwrap();
        let (body, prompt) = prompt(&caller);
        let keys: std::collections::BTreeSet<&str> = body.as_object().unwrap().keys().map(|k| &**k).collect();
        let kept = ["messages", "model", "reasoning_effort", "temperature", "tool_choice", "tools"];
        assert_eq!(keys, kept.into());
        assert_eq!((&body["tool_choice"], &body["temperature"]), (&json!("none"), &json!(0)));
        assert_eq!(body["messages"][0], json!({"role": "user", "content": "why?"}));
        assert!(prompt.contains("one of A, B, C.") && !prompt.contains("provider/"));
    }

    fn score(judges: &[&str]) -> Ensemble {
        let judges = judges.iter().map(|name| judge_of(Purpose::Scoring, name)).collect();
        with(|e| e.strategy = Strategy::Score(Score { judges }))
    }

    #[tokio::test(start_paused = true)]
    async fn graders_decide_by_their_mean_and_a_failed_one_counts_nowhere() {
        let same = r#"{"reasons":"","scores":{"A":5,"B":5,"C":5}}"#;
        let caller = Arc::new(panel().model("judge", says(5, same)));
        assert_eq!(answer(&caller, score(&["judge"])).await, ("one".to_owned(), "full", 60, 35));
        let mut heavy = score(&["judge"]);
        heavy.panel[2].weight = 2.0;
        assert_eq!(answer(&caller, heavy).await.0, "three", "a tie is decided by weight");
        let two_of_three = Arc::new(
            panel().model("judge", says(5, same)).model("g2", says(5, same)).model("g3", fails(1, down)),
        );
        let graded = decision(&two_of_three, score(&["judge", "g2", "g3"]), json!({})).await;
        assert_eq!((&graded["outcome"], &graded["members"][0]["score"]), (&json!("full"), &json!(0.5)));
        let one_of_two = Arc::new(panel().model("judge", says(5, same)).model("g2", fails(1, down)));
        assert_eq!(
            answer(&one_of_two, score(&["judge", "g2"])).await.1,
            "degraded",
            "half the grades are too few"
        );
    }
}

mod averages {
    use super::*;

    fn average(average: Average, members: usize) -> Ensemble {
        numbers(Strategy::Average(average), members)
    }

    #[tokio::test(start_paused = true)]
    async fn the_median_is_a_members_own_answer_or_is_written_into_the_nearest() {
        let odd = Arc::new(say(&["About $1,200.50 in all.", "900", "1300 dollars"]));
        let median = average(Average::Median, 3);
        assert_eq!(answer(&odd, median.clone()).await.0, "About $1,200.50 in all.");
        let even = Arc::new(say(&["It is 10.00 km", "13", "dunno"]));
        // 11.5 is as near to 10.00 as to 13: the first carries it, in its own precision.
        assert_eq!(answer(&even, median).await, ("It is 11.50 km".to_owned(), "full", 45, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn the_mean_leaves_outliers_out() {
        let caller = Arc::new(say(&["10", "11", "12", "13", "1000"]));
        assert_eq!(
            answer(&caller, average(Average::Mean, 5)).await.0,
            "12",
            "11.5 in whole numbers, rounded"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_number_is_the_callers_to_mend() {
        let tools = json!({"tools": [{"type": "function", "function": {"name": "f"}}]});
        let failed =
            run(Arc::new(say(&["1", "2", "3"])), average(Average::Median, 3), tools).await.err().unwrap();
        assert_eq!((failed.error.status, failed.error.param.as_deref()), (400, Some("tools")));
        let json = json!({"response_format": {"type": "json_object"}});
        let failed =
            run(Arc::new(say(&["1", "2", "3"])), average(Average::Median, 3), json).await.err().unwrap();
        assert_eq!((failed.error.status, failed.error.param.as_deref()), (400, Some("response_format")));
        let (status, code, e) = error(say(&["a poem", "an ode", "no"]), average(Average::Median, 3)).await;
        assert_eq!((status, &*code, e.should_retry), (400, "answer_not_numeric", Some(false)));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    #[test]
    fn unanimous_panels_decide_alike_by_vote_by_weight_and_in_a_cascade(
        spellings in proptest::collection::vec(0..5usize, 2..6), weights in proptest::collection::vec(1..9u8, 5),
        start in 2..6usize, step in 1..3usize,
    ) {
        let texts: Vec<&str> =
            spellings.iter().map(|i| ["#### 7", "7", "7.0", "the answer is 7", "\\boxed{7}"][*i]).collect();
        let size = |n: usize| std::num::NonZeroUsize::new(n).unwrap();
        let weighted = Strategy::Weighted(Weighted { vote: vote(), confidence: Confidence::Flat });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            for strategy in [Strategy::Vote(vote()), weighted] {
                let mut plain = numbers(strategy, texts.len());
                plain.panel.iter_mut().zip(&weights).for_each(|(m, weight)| m.weight = f64::from(*weight));
                let mut cascade = plain.clone();
                let start = size(start.min(texts.len()));
                cascade.execution = Execution::Cascade(Cascade { start, step: size(step), agreement: 1.0 });
                for ensemble in [plain, cascade] {
                    let caller = Arc::new(say(&texts));
                    let decision = decision(&caller, ensemble, json!({})).await;
                    let chosen = decision["members"].as_array().unwrap().iter().find(|m| m["chosen"] == true).unwrap();
                    assert_eq!((&chosen["key"], &decision["agreement"]), (&json!("7"), &json!(1.0)));
                    assert_eq!(decision["degraded"], json!([]));
                }
            }
        });
    }
}
