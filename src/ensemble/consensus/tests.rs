use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chat::{Completion, Request};
use crate::ensemble::answer::{Number, Reader, Reading};

/// What a member says: a number, or nothing that can be read; and its weight.
type Said = (Option<i64>, f64);

fn candidates(said: &[Said]) -> Vec<Candidate> {
    let of = |(member, (number, weight)): (usize, &Said)| Candidate {
        member,
        weight: *weight,
        completion: completion(&json!({"content": "x"})),
        key: number.map(|number| Key::Number(Number::from(number))),
    };
    said.iter().enumerate().map(of).collect()
}

fn completion(message: &Value) -> Completion {
    let json = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    Completion::parse(json.to_string().as_bytes()).unwrap()
}

fn equal_votes(numbers: &[i64]) -> Vec<Said> {
    numbers.iter().map(|n| (Some(*n), 1.0)).collect()
}

fn by_members(said: &[Said]) -> Tally {
    Tally::of(&candidates(said), &vec![1.0; said.len()], 0.8)
}

fn by_weight(said: &[Said]) -> Tally {
    let weights: Vec<f64> = said.iter().map(|(_, weight)| *weight).collect();
    Tally::of(&candidates(said), &weights, 0.8)
}

/// The place of the winner.
fn won(count: fn(&[Said]) -> Tally, said: &[Said], require: Require) -> Option<usize> {
    count(said).winner(require, &candidates(said))
}

#[test]
fn the_most_members_win_and_a_tie_goes_to_the_greater_weight_and_then_to_panel_order() {
    for (said, winner) in [
        (equal_votes(&[1, 2, 2]), 1),
        (equal_votes(&[1, 2, 2, 1]), 0),
        (equal_votes(&[1, 2, 3]), 0),
        (vec![(Some(1), 1.0), (Some(2), 2.0)], 1),
        (vec![(Some(1), 9.0), (Some(2), 1.0), (Some(2), 3.0)], 2),
        (vec![(None, 9.0), (Some(7), 1.0)], 1),
    ] {
        assert_eq!(won(by_members, &said, Require::Plurality), Some(winner), "{said:?}");
    }
    assert_eq!(won(by_members, &[(None, 1.0)], Require::Plurality), None);
}

#[test]
fn by_weight_one_strong_member_outvotes_two_weak_ones() {
    let said = [(Some(1), 3.0), (Some(2), 1.0), (Some(2), 1.5)];
    assert_eq!(won(by_weight, &said, Require::Plurality), Some(0));
    assert!((by_weight(&said).agreement().unwrap() - 3.0 / 5.5).abs() < 1e-12);
    // Sums of the same weights are the same sum.
    let said = [(Some(1), 0.1), (Some(2), 0.3), (Some(1), 0.2)];
    assert_eq!(won(by_weight, &said, Require::Plurality), Some(2), "a tie, which panel order decides for 1");
}

#[test]
fn a_majority_is_of_all_candidates_and_unanimity_of_those_who_answered() {
    let said = [(Some(1), 1.0), (Some(1), 1.0), (None, 1.0), (None, 1.0)];
    assert_eq!(won(by_members, &said, Require::Majority), None, "two of four are not more than half");
    assert_eq!(won(by_members, &said[..3], Require::Majority), Some(0));
    assert_eq!(won(by_members, &said, Require::Unanimous), Some(0));
    assert_eq!(won(by_members, &equal_votes(&[1, 1, 2]), Require::Unanimous), None);
}

#[test]
fn agreement_is_the_share_of_those_who_answered_and_needs_two() {
    let tally = by_members(&[(Some(1), 1.0), (Some(1), 1.0), (Some(2), 1.0), (None, 1.0)]);
    assert!((tally.agreement().unwrap() - 2.0 / 3.0).abs() < 1e-12);
    assert!(tally.reaches(2.0 / 3.0) && !tally.reaches(0.67));
    assert!(!by_members(&[(Some(1), 1.0), (None, 1.0)]).reaches(1.0), "nobody to agree with");
    assert_eq!(by_members(&[(None, 1.0)]).agreement(), None);
}

fn open(members: std::ops::Range<usize>) -> Vec<Open> {
    members.map(|member| Open { member, score: 1.0, weight: 1.0 }).collect()
}

#[test]
fn a_vote_is_settled_when_the_leader_cannot_be_caught() {
    for (numbers, panel, settled) in [
        (&[1, 1][..], 3, true),
        // One more 2 and one more 2: a tie, which the earlier member's class wins.
        (&[1, 1], 4, true),
        (&[1, 1], 5, false),
        (&[2, 1, 1], 4, false),
        (&[1, 2, 1], 4, true),
        (&[1, 2], 2, true),
    ] {
        let tally = by_members(&equal_votes(numbers));
        let open = open(numbers.len()..panel);
        assert_eq!(tally.is_settled(Require::Plurality, &open), settled, "{numbers:?} of {panel}");
    }
    let two = by_members(&equal_votes(&[1, 1]));
    assert!(
        two.is_settled(Require::Majority, &open(2..3)) && !two.is_settled(Require::Majority, &open(2..4))
    );
    assert!(!two.is_settled(Require::Unanimous, &open(2..3)));
}

/// A request with tools, or with nothing but a question.
fn read(messages: &[Value], fields: Value) -> Vec<Candidate> {
    let mut body = json!({"messages": [{"role": "user", "content": "?"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let reader = Reader::of(&Reading::Auto, &Request::parse(Bytes::from(body.to_string())).unwrap());
    let of = |(member, message): (usize, &Value)| {
        let completion = completion(message);
        let key = reader.key(&completion);
        Candidate { member, weight: 1.0, completion, key }
    };
    messages.iter().enumerate().map(of).collect()
}

fn winner(candidates: &[Candidate]) -> Option<usize> {
    Tally::of(candidates, &vec![1.0; candidates.len()], 0.8).winner(Require::Plurality, candidates)
}

mod tool_calls {
    use super::*;

    fn text(text: &str) -> Value {
        json!({"content": text})
    }

    fn call(name: &str, arguments: &str) -> Value {
        let function = json!({"name": name, "arguments": arguments});
        json!({"content": null, "tool_calls": [{"id": "x", "type": "function", "function": function}]})
    }

    fn chosen(messages: &[Value]) -> Option<usize> {
        winner(&read(messages, json!({"tools": [{"type": "function", "function": {"name": "f"}}]})))
    }

    #[test]
    fn text_wins_against_the_most_common_identical_call() {
        let (a, b) = (call("f", r#"{"x":1}"#), call("f", r#"{"x":2}"#));
        assert_eq!(chosen(&[text("no"), a.clone(), b.clone()]), Some(0), "one against one and one");
        assert_eq!(chosen(&[text("no"), a.clone(), call("f", "{ \"x\": 1.0 }")]), Some(1));
        assert_eq!(chosen(&[a.clone(), text("no"), a.clone(), text("nor I")]), Some(1), "a tie is text's");
    }

    #[test]
    fn names_are_decided_before_arguments() {
        // `g` has the most common call, `f` the most callers.
        let f = |x: i64| call("f", &format!(r#"{{"x":{x}}}"#));
        let g = call("g", "{}");
        assert_eq!(chosen(&[g.clone(), f(1), f(2), f(3), g]), Some(1));
    }

    #[test]
    fn the_text_that_is_most_like_the_others_speaks_for_them() {
        let texts = ["Where do you live?", "In which city do you live?", "In which city do you live now?"];
        assert_eq!(chosen(&texts.map(text)), Some(1));
    }
}

#[test]
fn similar_texts_are_one_class_and_the_medoid_speaks_for_it() {
    let texts = [
        "Paris is the capital of France and its largest city by far.",
        "The capital is Lyon.",
        "Paris is the capital of France and its largest city by far!",
        "Paris is the capital of France and its largest city, by far, today.",
    ];
    let candidates = read(&texts.map(|text| json!({"content": text})), json!({}));
    assert_eq!(winner(&candidates), Some(0));
    let tally = Tally::of(&candidates, &[1.0; 4], 0.8);
    assert_eq!(tally.agreement(), Some(0.75));
    assert!(!tally.is_settled(Require::Plurality, &open(4..5)), "a new text may join two classes");
    assert_eq!(Tally::of(&candidates, &[1.0; 4], 1.0).agreement(), Some(0.5));
}

proptest! {
    /// Without ties, panel order decides nothing.
    #[test]
    fn a_winner_with_a_lead_wins_in_any_order(
        (votes, shuffled) in prop::collection::vec((prop::option::weighted(0.9, 0..4i64), 1..5u8), 1..9)
            .prop_flat_map(|votes| (Just(votes.clone()), Just(votes).prop_shuffle())),
    ) {
        let said = |votes: &[(Option<i64>, u8)]| votes.iter().map(|(n, w)| (*n, f64::from(*w) / 10.0)).collect::<Vec<Said>>();
        let (said, shuffled) = (said(&votes), said(&shuffled));
        for (a, b) in [(by_members(&said), by_members(&shuffled)), (by_weight(&said), by_weight(&shuffled))] {
            let mut standings: Vec<Standing> = a.classes.iter().map(|class| class.standing).collect();
            standings.sort_by(|a, b| b.compare(*a));
            let is_tie = standings.windows(2).next().is_some_and(|two| {
                compare(two[0].score, two[1].score).is_eq() && compare(two[0].weight, two[1].weight).is_eq()
            });
            let won = |tally: &Tally, said: &[Said]| {
                tally.winner(Require::Plurality, &candidates(said)).and_then(|place| said[place].0)
            };
            if !is_tie {
                prop_assert_eq!(won(&a, &said), won(&b, &shuffled));
            }
            let share = |tally: &Tally| tally.agreement().map(|share| (share * 1e6).round());
            if !is_tie {
                prop_assert_eq!(share(&a), share(&b));
            }
        }
    }

    /// One more vote for the winner never makes another one win.
    #[test]
    fn a_further_vote_for_the_winner_changes_nothing(
        numbers in prop::collection::vec(0..4i64, 1..9), weights in prop::collection::vec(1..5u8, 9), more in 1..5u8,
    ) {
        let mut said: Vec<Said> =
            numbers.iter().zip(&weights).map(|(n, w)| (Some(*n), f64::from(*w) / 10.0)).collect();
        for tally in [by_members as fn(&[Said]) -> Tally, by_weight] {
            let winning = |said: &[Said]| said[won(tally, said, Require::Plurality).unwrap()].0;
            let before = winning(&said);
            said.push((before, f64::from(more) / 10.0));
            prop_assert_eq!(winning(&said), before);
            said.pop();
        }
    }

    /// What is settled stays so, whatever the others say and whoever of them fails.
    #[test]
    fn a_settled_vote_is_what_the_whole_panel_would_have_said(
        panel in prop::collection::vec((prop::option::weighted(0.8, 0..3i64), 1..4u8, any::<bool>()), 2..8),
        asked in 1..8usize,
    ) {
        let asked = asked.min(panel.len());
        let said: Vec<Said> = panel.iter().map(|(n, weight, _)| (*n, f64::from(*weight) / 10.0)).collect();
        let answering = |(at, (_, _, fails)): &(usize, &(_, _, bool))| *at < asked || !fails;
        let whole: Vec<Said> = panel.iter().enumerate().filter(answering).map(|(at, _)| said[at]).collect();
        for (count, weighs) in [(by_members as fn(&[Said]) -> Tally, false), (by_weight, true)] {
            let open: Vec<Open> = (asked..said.len())
                .map(|member| Open { member, score: if weighs { said[member].1 } else { 1.0 }, weight: said[member].1 })
                .collect();
            for require in [Require::Plurality, Require::Majority] {
                if count(&said[..asked]).is_settled(require, &open) {
                    let key = |said: &[Said]| won(count, said, require).and_then(|place| said[place].0);
                    prop_assert_eq!(key(&said[..asked]), key(&whole));
                }
            }
        }
    }

    /// The same of tool calls, where text, names and arguments are decided one after the other.
    #[test]
    fn a_settled_call_is_what_the_whole_panel_would_have_called(
        picks in prop::collection::vec(0..5usize, 2..7), asked in 1..7usize,
    ) {
        let asked = asked.min(picks.len());
        let messages: Vec<Value> = picks.iter().map(|pick| match pick {
            0 => json!({"content": "no"}),
            pick => {
                let (name, x) = (if pick % 2 == 0 { "f" } else { "g" }, pick / 2);
                    let function = json!({"name": name, "arguments": format!("{{\"x\":{x}}}")});
                json!({"tool_calls": [{"id": "x", "type": "function", "function": function}]})
            }
        }).collect();
        let whole = read(&messages, json!({"tools": [{"type": "function", "function": {"name": "f"}}]}));
        let ones = vec![1.0; picks.len()];
        let early = Tally::of(&whole[..asked], &ones[..asked], 0.8);
        if early.is_settled(Require::Plurality, &open(asked..picks.len())) {
            let key = |place: Option<usize>| picks[place.unwrap()];
            let later = Tally::of(&whole, &ones, 0.8).winner(Require::Plurality, &whole);
            prop_assert_eq!(key(early.winner(Require::Plurality, &whole[..asked])), key(later));
        }
    }
}
