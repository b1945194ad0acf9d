//! Where strategies, paces and bounds meet, over scripted callers in paused time.

use std::num::NonZeroUsize;

use super::strategies::{asked, decision, judge_of, numbers, results, say, vote};
use super::*;
use crate::ensemble::prompt::Purpose;
use crate::ensemble::{
    Average, Cascade, Confidence, OnNoConsensus, Rank, RankMode, Require, Vote, Weighted, Wishes,
};

#[tokio::test(start_paused = true)]
async fn a_sequence_asks_nobody_after_the_deadline() {
    let caller = Arc::new(say(&["1", "2", "3", "4", "5"]).model("a", says(5000, "late")));
    let mut e = numbers(Strategy::Vote(vote()), 5);
    e.execution = Execution::Sequential;
    e.deadline = Some(Duration::from_millis(100));
    let failed = run(Arc::clone(&caller), e, json!({})).await.err().unwrap();
    assert_eq!((failed.error.status, asked(&caller)), (504, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn what_everybody_who_was_asked_found_wrong_with_a_request_is_told() {
    let bad = || status(400, "context too long", None);
    let caller = say(&["1", "2"]).model("a", fails(1, bad)).model("b", fails(1, bad));
    let mut e = numbers(Strategy::Vote(vote()), 2);
    e.execution = Execution::Sequential;
    let (s, code, _) = error(caller, e).await;
    assert_eq!((s, &*code), (400, ""));
}

#[tokio::test(start_paused = true)]
async fn first_is_not_won_by_who_thinks_and_never_answers() {
    let thought = Event::Delta(Delta {
        json: Bytes::from_static(br#"{"reasoning_content":"hm"}"#),
        logprobs: None,
        speaks: true,
    });
    let now = Duration::ZERO;
    // Thinks first, and is cut before it says a word.
    let thinker = vec![
        (Duration::from_millis(1), Ok(thought)),
        (Duration::from_millis(5), Ok(Event::Finish("length".into()))),
        (now, Ok(Event::Usage(fixture::tokens(10, 5)))),
    ];
    let caller = Arc::new(
        panel().model("a", thinker).model("b", streams(3, &["a good ", "answer"])).model("c", says(50, "x")),
    );
    let e = with(|e| {
        e.strategy = Strategy::First;
        e.quorum = NonZeroUsize::MIN;
    });
    let outcome = run(Arc::clone(&caller), e, json!({"stream": true})).await.ok().unwrap();
    let text = collect(outcome).await.0;
    assert_eq!(text, "a good answer");
}

#[tokio::test(start_paused = true)]
async fn confidences_too_small_to_be_told_from_nothing_agree_with_nobody() {
    let with_logprobs = |text: &str| {
        let j = json!({"choices":[{"message":{"role":"assistant","content":text},"logprobs":{"content":[{"token":"x","logprob":-9999.0}]},"finish_reason":"stop"}]});
        let m = Completion::parse(j.to_string().as_bytes()).unwrap();
        vec![
            (Duration::from_millis(1), Ok(Event::Message(Box::new(m)))),
            (Duration::ZERO, Ok(Event::Finish("stop".into()))),
        ]
    };
    let caller = Arc::new(
        say(&["7", "8", "9"])
            .model("a", with_logprobs("7"))
            .model("b", with_logprobs("8"))
            .model("c", with_logprobs("8")),
    );
    let mut e = numbers(Strategy::Weighted(Weighted { vote: vote(), confidence: Confidence::Logprob }), 3);
    let size = |n| NonZeroUsize::new(n).unwrap();
    e.execution = Execution::Cascade(Cascade { start: size(2), step: size(1), agreement: 1.0 });
    let outcome = run(Arc::clone(&caller), e, json!({})).await.ok().unwrap();
    assert_eq!(
        (asked(&caller).len(), outcome.head.outcome.map(How::label)),
        (3, Some("full")),
        "7 and 8 do not agree"
    );
}

#[tokio::test(start_paused = true)]
async fn an_average_in_json_leaves_it_json() {
    let caller = Arc::new(say(&["{\"answer\": \"\\u221218\"}", "{\"answer\": \"\\u221220\"}"]));
    let text = answer(&caller, numbers(Strategy::Average(Average::Median), 2)).await.0;
    assert!(serde_json::from_str::<Value>(&text).is_ok(), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_judge_is_told_to_call_nothing_only_where_there_are_tools() {
    for tools in [Value::Null, json!([])] {
        let caller = Arc::new(panel().model("judge", says(5, r#"{"best":"A"}"#)));
        let e = with(|e| {
            e.strategy =
                Strategy::Rank(Rank { judge: judge_of(Purpose::Ranking, "judge"), mode: RankMode::Listwise })
        });
        run(Arc::clone(&caller), e, json!({"tools": tools})).await.ok().unwrap();
        let calls = caller.calls.lock().unwrap();
        assert!(calls[3].1.get("tool_choice").is_none(), "{}", calls[3].1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cause_of_degradation_is_told_once() {
    let caller = Arc::new(panel().model("judge", fails(1, down)).model("spare", says(1, r#"{"best":"A"}"#)));
    let mut judge = judge_of(Purpose::Ranking, "judge");
    judge.fallback = Some(fixture::model("spare"));
    let e = with(|e| e.strategy = Strategy::Rank(Rank { judge, mode: RankMode::Pairwise }));
    let d = decision(&caller, e, json!({})).await;
    assert_eq!(d["degraded"], json!(["judge_fallback"]));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_was_never_asked_is_not_disclosed() {
    let caller =
        Arc::new(panel().model("judge", says(5000, "late")).model("spare", says(1, r#"{"best":"A"}"#)));
    let mut judge = judge_of(Purpose::Ranking, "judge");
    judge.fallback = Some(fixture::model("spare"));
    let e = with(|e| {
        e.deadline = Some(Duration::from_millis(100));
        e.strategy = Strategy::Rank(Rank { judge, mode: RankMode::Listwise })
    });
    let d = decision(&caller, e, json!({})).await;
    assert_eq!((d["degraded"].clone(), asked(&caller).len()), (json!(["judge_failed"]), 4));
}

#[test]
fn the_longest_run_counts_every_wave_of_verdicts() {
    let e = with(|e| {
        e.panel = std::iter::repeat_with(|| fixture::member("a")).take(16).collect();
        e.timeout = Some(Duration::from_secs(10));
        e.strategy =
            Strategy::Rank(Rank { judge: judge_of(Purpose::Ranking, "judge"), mode: RankMode::Pairwise });
    });
    // 240 questions, 16 at once: 15 waves of up to 10 s even when every judge answers the first time.
    assert!(e.longest_run().unwrap() >= Duration::from_secs(10 + 150), "{:?}", e.longest_run());
}

#[tokio::test(start_paused = true)]
async fn callers_are_told_how_many_were_asked() {
    let size = |n| NonZeroUsize::new(n).unwrap();
    let caller = Arc::new(say(&["7", "7", "7.0", "7", "7"]));
    let mut e = numbers(Strategy::Vote(vote()), 5);
    e.execution = Execution::Cascade(Cascade { start: size(2), step: size(1), agreement: 1.0 });
    let outcome = run(Arc::clone(&caller), e, json!({})).await.ok().unwrap();
    assert_eq!((outcome.head.panel, asked(&caller).len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn thoughts_in_tags_are_kept_from_callers_of_a_stream_as_well() {
    let caller = Arc::new(panel().model("judge", streams(1, &["<think>", "secret", "</think>", "said"])));
    let e = with(|e| e.reasoning = Reasoning::Drop);
    let outcome = run(Arc::clone(&caller), e, json!({"stream": true})).await.ok().unwrap();
    let text = collect(outcome).await.0;
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_order_of_preference_is_no_verdict() {
    for best in ["B > A > C", "B, not A", "A or B", "B (better than C)"] {
        let verdict = json!({"reasons": "", "best": best}).to_string();
        let caller = Arc::new(panel().model("judge", says(5, &verdict)));
        let e = with(|e| {
            e.strategy =
                Strategy::Rank(Rank { judge: judge_of(Purpose::Ranking, "judge"), mode: RankMode::Listwise })
        });
        let d = decision(&caller, e, json!({})).await;
        assert_eq!(results(&d, "judges")[0], "unreadable", "{best}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_average_that_a_caller_chooses_compares_numbers() {
    let long = |n: u32| {
        format!(
            "We add the distances of the first and of the second leg, convert all of them from miles, and round the sum at the very end of it. The answer is {n}"
        )
    };
    let (a, b, c) = (long(10), long(90), long(50));
    let caller = Arc::new(say(&[&a, &b, &c]));
    let size = |n| NonZeroUsize::new(n).unwrap();
    // `strategy: vote`, `answer: auto`, `cascade`, `overrides.strategy: [average]`, and x-ensemble-strategy: average
    let own = with(|e| {
        e.strategy = Strategy::Vote(vote());
        e.execution = Execution::Cascade(Cascade { start: size(2), step: size(1), agreement: 1.0 });
        e.overrides.strategies = vec![Strategy::Average(Average::Median)];
        e.overrides.quorum_follows = true;
        e.overrides.max_panel = 16;
    });
    let wishes = Wishes { strategy: Some("average".into()), ..Default::default() };
    let e = Arc::new(own).wished(&wishes).unwrap().ensemble;
    assert!(matches!(e.strategy, Strategy::Average(_)));
    let (text, how, ..) = answer(&caller, Ensemble::clone(&e)).await;
    assert_eq!((&*text, how), (&*c, "full"));
}

#[tokio::test(start_paused = true)]
async fn a_vote_that_must_be_unanimous_and_is_split_asks_nobody_else_for_an_error() {
    let on_no_consensus = |on_no_consensus| {
        let vote = Vote { require: Require::Unanimous, on_no_consensus, ..vote() };
        let mut ensemble = numbers(Strategy::Vote(vote), 4);
        ensemble.execution = Execution::Sequential;
        ensemble
    };
    let caller = Arc::new(say(&["7", "8", "7", "7"]));
    let failed =
        run(Arc::clone(&caller), on_no_consensus(OnNoConsensus::Fail), json!({})).await.err().unwrap();
    assert_eq!((failed.error.label, asked(&caller)), ("no_consensus", vec!["a".to_owned(), "b".to_owned()]));
    let caller = Arc::new(say(&["7", "8", "7", "7"]));
    assert_eq!(answer(&caller, on_no_consensus(OnNoConsensus::First)).await.1, "degraded");
    assert_eq!(asked(&caller).len(), 4, "who stands in is chosen of all");
}

#[tokio::test(start_paused = true)]
async fn a_cascade_that_agrees_with_its_last_member_needs_no_judge() {
    let size = |n| NonZeroUsize::new(n).unwrap();
    let caller = Arc::new(say(&["7", "8", "7"]));
    let mut ensemble = numbers(with_judge(|_| {}).strategy, 3);
    ensemble.execution = Execution::Cascade(Cascade { start: size(2), step: size(1), agreement: 0.6 });
    assert_eq!(answer(&caller, ensemble).await, ("7".to_owned(), "full", 45, 50));
}

#[tokio::test(start_paused = true)]
async fn where_an_answer_is_sent_in_one_piece_first_hears_whole_answers() {
    let mut late = streams(10, &["a"]);
    late.insert(1, (Duration::from_millis(1), Err(down)));
    let caller = Arc::new(panel().model("a", late));
    let first = with(|e| {
        e.strategy = Strategy::First;
        e.quorum = NonZeroUsize::MIN;
    });
    let runner = Runner::new(Arc::clone(&caller) as Arc<dyn Caller>, Admission::new(8), 1 << 20);
    let admitted = runner.admit(Arc::new(first), context()).await.ok().unwrap();
    let limit = Some(Duration::from_secs(60));
    let outcome = admitted.run(request(&json!({"stream": true})), limit).await.ok().unwrap();
    assert_eq!(collect(outcome).await.0, "two", "who breaks off before anything is sent is replaced");
    assert_eq!(caller.calls.lock().unwrap()[0].1["stream"], false);
}

#[test]
fn callers_do_not_speak_in_the_words_of_a_wire_format_and_operators_may() {
    use crate::ensemble::member_body;
    use crate::upstream::Adapter;
    let body =
        json!({"generationConfig": {"candidateCount": 8}, "thinking": {"type": "enabled"}, "top_p": 0.5});
    let sent = |adapter: Adapter, params: &[(&str, &str)]| {
        let mut member = fixture::member("a");
        let model = Arc::get_mut(&mut member.model).unwrap();
        Arc::get_mut(&mut model.provider).unwrap().adapter = adapter;
        let param = |(name, json): &(&str, &str)| ((*name).to_owned(), Bytes::from((*json).to_owned()));
        member.params = params.iter().map(param).collect();
        let sent: Value = serde_json::from_slice(&member_body(&request(&body), &member).to_bytes()).unwrap();
        (sent["generationConfig"].clone(), sent["thinking"].clone(), sent["top_p"].clone())
    };
    let thinking = json!({"type": "enabled"});
    assert_eq!(sent(Adapter::Gemini, &[]), (Value::Null, thinking, json!(0.5)));
    let config = json!({"candidateCount": 8});
    assert_eq!(sent(Adapter::Anthropic, &[]), (config, Value::Null, json!(0.5)));
    assert_eq!(sent(Adapter::Gemini, &[("generationConfig", "{\"seed\":1}")]).0, json!({"seed": 1}));
}
