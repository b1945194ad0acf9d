//! The ways of asking a panel, and the first answer of one, over scripted callers in paused time.

use super::strategies::{NAMES, asked, decision, judge, numbers, results, say, vote};
use super::*;
use crate::ensemble::{Cascade, Reading};

mod pace {
    use super::*;

    fn cascade(start: usize, agreement: f64) -> Execution {
        let size = |n| std::num::NonZeroUsize::new(n).unwrap();
        Execution::Cascade(Cascade { start: size(start), step: size(1), agreement })
    }

    #[tokio::test(start_paused = true)]
    async fn a_cascade_that_agrees_asks_nobody_else_and_no_judge() {
        let caller = Arc::new(say(&["7", "7.0", "8", "9"]));
        let mut ensemble = numbers(Strategy::Judge(judge()), 4);
        ensemble.execution = cascade(2, 1.0);
        assert_eq!(answer(&caller, ensemble.clone()).await, ("7".to_owned(), "cascade", 30, 20));
        assert_eq!(asked(&caller), ["a", "b"]);
        let decision = decision(&caller, ensemble, json!({})).await;
        assert_eq!(results(&decision, "members"), ["usable", "usable", "not_asked", "not_asked"]);
        assert_eq!((&decision["calls_saved"], &decision["outcome"]), (&json!(2), &json!("cascade")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cascade_that_disagrees_asks_one_after_the_other_and_then_the_judge() {
        let caller = Arc::new(say(&["7", "8", "7", "9"]));
        let mut ensemble = numbers(Strategy::Judge(judge()), 4);
        ensemble.execution = cascade(2, 0.75);
        // Two of three are not enough, two of four neither: 20 + 30 + 40 ms, and the judge's 5.
        assert_eq!(answer(&caller, ensemble.clone()).await, ("judged".to_owned(), "full", 75, 95));
        ensemble.execution = cascade(2, 0.6);
        assert_eq!(answer(&caller, ensemble.clone()).await, ("7".to_owned(), "cascade", 45, 50));
        ensemble.strategy = Strategy::Vote(vote());
        ensemble.execution = cascade(2, 1.0);
        // After three, 7 leads by one with one member left: a tie would be the earlier class's.
        assert_eq!(answer(&caller, ensemble).await, ("7".to_owned(), "cascade", 45, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cascade_replaces_who_fails_or_abstains_and_does_not_wait_for_stragglers_forever() {
        let mut ensemble = numbers(Strategy::Vote(vote()), 4);
        ensemble.execution = cascade(2, 1.0);
        let failing = Arc::new(say(&["7", "8", "7", "9"]).model("b", fails(1, down)));
        assert_eq!(answer(&failing, ensemble.clone()).await, ("7".to_owned(), "cascade", 30, 40));
        let abstaining = Arc::new(say(&["7", "dunno", "7", "9"]));
        assert_eq!(answer(&abstaining, ensemble.clone()).await, ("7".to_owned(), "cascade", 45, 50));
        ensemble.execution = cascade(3, 1.0);
        ensemble.straggler_grace = Some(Duration::from_millis(100));
        let slow = Arc::new(say(&["7", "8", "7", "7"]).model("c", says(9000, "7")));
        // The grace begins with the second answer and ends with the fourth member being asked.
        assert_eq!(answer(&slow, ensemble).await, ("7".to_owned(), "quorum", 45, 20 + 100 + 40));
        assert_eq!(slow.open.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sequence_ends_with_the_quorum_or_the_settled_vote() {
        let mut ensemble = numbers(Strategy::Judge(judge()), 4);
        ensemble.execution = Execution::Sequential;
        let caller = Arc::new(say(&["7", "8", "7", "7"]));
        assert_eq!(answer(&caller, ensemble.clone()).await, ("judged".to_owned(), "quorum", 45, 10 + 20 + 5));
        assert_eq!(asked(&caller), ["a", "b", "judge"]);
        ensemble.strategy = Strategy::Vote(vote());
        assert_eq!(answer(&caller, ensemble.clone()).await, ("7".to_owned(), "quorum", 45, 60));
        let failing = Arc::new(say(&["7", "8", "7", "7"]).model("a", fails(1, down)));
        ensemble.strategy = Strategy::First;
        ensemble.quorum = std::num::NonZeroUsize::MIN;
        assert_eq!(answer(&failing, ensemble).await, ("8".to_owned(), "quorum", 15, 21));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hedge_asks_the_next_one_after_its_delay_or_at_once_after_a_failure() {
        let mut ensemble = numbers(Strategy::First, 3);
        ensemble.quorum = std::num::NonZeroUsize::MIN;
        ensemble.execution = Execution::Hedged(Duration::from_millis(300));
        let caller = Arc::new(say(&["7", "8", "9"]).model("a", says(1000, "late")));
        assert_eq!(answer(&caller, ensemble.clone()).await, ("8".to_owned(), "quorum", 15, 300 + 20));
        assert_eq!(asked(&caller), ["a", "b"]);
        let failing = Arc::new(say(&["7", "8", "9"]).model("a", fails(5, down)));
        assert_eq!(answer(&failing, ensemble).await, ("8".to_owned(), "quorum", 15, 5 + 20));
    }
}

mod first {
    use super::*;

    fn first() -> Ensemble {
        let mut ensemble = numbers(Strategy::First, 3);
        ensemble.reading = Reading::Auto;
        ensemble.quorum = std::num::NonZeroUsize::MIN;
        ensemble
    }

    async fn streamed(
        caller: &Arc<Scripted>,
        ensemble: Ensemble,
        body: Value,
    ) -> (String, u128, Option<String>) {
        let began = Instant::now();
        let outcome = run(Arc::clone(caller), ensemble, body).await.ok().unwrap();
        let first = began.elapsed().as_millis();
        let events: Vec<_> = outcome.events.collect().await;
        let (mut text, mut broken) = (String::new(), None);
        for event in events {
            match event {
                Ok(Event::Delta(delta)) => {
                    let delta: Value = serde_json::from_slice(&delta.json).unwrap();
                    text.push_str(delta["content"].as_str().unwrap_or_default());
                }
                Ok(Event::Message(message)) => text.push_str(&message.content.unwrap()),
                Ok(_) => {}
                Err(e) => broken = Some(e.label.to_owned()),
            }
        }
        (text, first, broken)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_usable_answer_is_returned_and_the_rest_are_cancelled() {
        let caller =
            Arc::new(say(&["slow", "two", "three"]).model("a", says(500, "slow")).model("b", says(1, "")));
        assert_eq!(answer(&caller, first()).await, ("three".to_owned(), "quorum", 30, 30));
        assert_eq!(caller.open.load(Ordering::Relaxed), 0);
        let decision = decision(&caller, first(), json!({})).await;
        assert_eq!(results(&decision, "members"), ["cancelled", "empty", "usable"]);
        assert_eq!(decision["calls_saved"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_to_speak_is_passed_on_live_and_the_others_are_cancelled_at_that_moment() {
        let caller = Scripted::default()
            .model("a", streams(100, &["a", "aa"]))
            .model("b", streams(50, &["b", "bb", "bbb"]))
            .model("c", streams(70, &["c"]));
        let caller = Arc::new(caller);
        let began = Instant::now();
        let mut outcome = run(Arc::clone(&caller), first(), json!({"stream": true})).await.ok().unwrap();
        assert_eq!(began.elapsed().as_millis(), 50);
        assert_eq!(caller.open.load(Ordering::Relaxed), 1, "the others are cancelled");
        let mut seen = Vec::new();
        while let Some(event) = outcome.events.next().await {
            if let Event::Delta(delta) = event.unwrap() {
                seen.push((began.elapsed().as_millis(), String::from_utf8(delta.json.to_vec()).unwrap()));
            }
        }
        let piece = |text: &str| json!({"content": text}).to_string();
        assert_eq!(seen, [(50, piece("b")), (100, piece("bb")), (150, piece("bbb"))]);
        let calls = caller.calls.lock().unwrap();
        assert_eq!(calls[0].1["stream_options"], json!({"include_usage": true}));
    }

    #[tokio::test(start_paused = true)]
    async fn who_breaks_before_its_first_words_is_replaced_and_after_them_is_an_error() {
        let broken = vec![(Duration::from_millis(5), Err(down as fn() -> Failure))];
        let mut late = streams(10, &["a"]);
        late.insert(1, (Duration::from_millis(1), Err(down)));
        let before = Scripted::default()
            .model("a", broken.clone())
            .model("b", streams(50, &["b"]))
            .model("c", streams(70, &["c"]));
        assert_eq!(
            streamed(&Arc::new(before), first(), json!({"stream": true})).await,
            ("b".to_owned(), 50, None)
        );
        let after = Scripted::default()
            .model("a", late)
            .model("b", streams(50, &["b"]))
            .model("c", streams(70, &["c"]));
        let (text, first_words, error) = streamed(&Arc::new(after), first(), json!({"stream": true})).await;
        assert_eq!((&*text, first_words, error.as_deref()), ("a", 10, Some("answer_broken_off")));
        let none = NAMES
            .into_iter()
            .take(3)
            .fold(Scripted::default(), |caller, name| caller.model(name, broken.clone()));
        let failed = run(Arc::new(none), first(), json!({"stream": true})).await.err().unwrap();
        assert_eq!(failed.error.label, "quorum_not_met");
    }

    #[tokio::test(start_paused = true)]
    async fn where_json_is_asked_for_the_first_valid_answer_is_streamed_when_it_is_whole() {
        let caller = Scripted::default()
            .model("a", says(10, "no json"))
            .model("b", says(30, r#"{"a":1}"#))
            .model("c", says(500, r#"{"a":2}"#));
        let body = json!({"stream": true, "response_format": {"type": "json_object"}});
        let caller = Arc::new(caller);
        let (text, first_words, error) = streamed(&caller, first(), body).await;
        assert_eq!((&*text, first_words, error), (r#"{"a":1}"#, 30, None));
        assert_eq!(caller.calls.lock().unwrap()[0].1["stream"], false);
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_thinks_has_not_spoken_and_its_thoughts_are_told_or_kept() {
        let thinks: fn() -> Event = || {
            let json = json!({"reasoning_content": "hm"}).to_string().into();
            Event::Delta(Delta { json, logprobs: None, speaks: true })
        };
        let caller = || {
            let mut script = streams(100, &["a"]);
            script.insert(0, (Duration::from_millis(1), Ok(thinks())));
            let others = Scripted::default().model("b", streams(50, &["b"])).model("c", streams(70, &["c"]));
            Arc::new(others.model("a", script))
        };
        assert_eq!(streamed(&caller(), first(), json!({"stream": true})).await.0, "b");
        let aloud = streams(20, &["<think>hm", "</think>", "a"]);
        let slower = || Scripted::default().model("b", streams(50, &["b"])).model("c", streams(70, &["c"]));
        let caller = Arc::new(slower().model("a", aloud.clone()));
        assert_eq!(streamed(&caller, first(), json!({"stream": true})).await.0, "b");
        let quick = Arc::new(slower().model("a", streams(10, &["<think>hm", "</think>", "a"])));
        assert_eq!(streamed(&quick, first(), json!({"stream": true})).await.0, "<think>hm</think>a");
        let mut quiet = first();
        quiet.reasoning = Reasoning::Drop;
        assert_eq!(streamed(&quick, quiet, json!({"stream": true})).await.0, "a");
    }
}
