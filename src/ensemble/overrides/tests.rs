use std::time::Duration;

use super::*;
use crate::chat::ApiError;
use crate::ensemble::strategy::{Judge, OnNoConsensus, Require, Score, Vote};
use crate::ensemble::{RunError, fixture};

fn vote(on_no_consensus: OnNoConsensus) -> Strategy {
    Strategy::Vote(Vote { require: Require::Plurality, on_no_consensus, similarity: 0.8 })
}

fn judge() -> Judge {
    let Strategy::Judge(judge) = fixture::ensemble("team").strategy else { panic!("the fixture judges") };
    Judge { fallback: Some(fixture::model("b")), ..judge }
}

/// `a` (weight 2, required), `b`, `c`, judged, a quorum of two that follows; everything may be changed.
fn open() -> Ensemble {
    let mut team = fixture::ensemble("team");
    team.panel[0].weight = 2.0;
    team.panel[0].required = true;
    team.strategy = Strategy::Judge(judge());
    team.trace = Trace::Header;
    let strategies = vec![team.strategy.clone(), vote(OnNoConsensus::First), Strategy::First];
    let models = team.panel.iter().cloned().chain([fixture::member("d")]).collect();
    team.overrides = Overrides {
        strategies,
        models,
        panel_required: false,
        judges: vec![fixture::model("judge"), fixture::model("b")],
        min_responses: true,
        enable: true,
        max_panel: 4,
        quorum_follows: true,
    };
    team
}

fn wishes(headers: &[(&str, &str)]) -> Wishes {
    Wishes::read(|name| headers.iter().rfind(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
}

fn wished(ensemble: Ensemble, headers: &[(&str, &str)]) -> Result<Wished, OverrideError> {
    Arc::new(ensemble).wished(&wishes(headers))
}

/// An ensemble in a few words: strategy, panel, quorum, execution, judges.
fn shown(ensemble: &Ensemble) -> String {
    let mut ensemble = ensemble.clone();
    let panel: Vec<String> = ensemble
        .panel
        .iter()
        .map(|m| format!("{}{}", m.model.name, if m.required { "!" } else { "" }))
        .collect();
    let execution = match &ensemble.execution {
        Execution::Parallel => String::new(),
        Execution::Cascade(cascade) => format!(" cascade {}+{}", cascade.start, cascade.step),
        other => format!(" {other:?}"),
    };
    let judges = ensemble.strategy.judges_mut().iter().map(|judge| {
        let fallback = judge.fallback.as_ref().map(|model| format!("/{}", model.name)).unwrap_or_default();
        format!(" by {}{fallback}", judge.model.name)
    });
    let judges: String = judges.collect();
    format!("{} of {} need {}{execution}{judges}", ensemble.strategy.name(), panel.join(","), ensemble.quorum)
}

#[test]
fn without_headers_the_ensemble_is_the_operators_own() {
    let team = Arc::new(open());
    for headers in [&[][..], &[("x-ensemble-enable", "true"), ("x-ensemble-trace", "False")]] {
        let wished = team.wished(&wishes(headers)).unwrap();
        assert!(Arc::ptr_eq(&wished.ensemble, &team) && wished.enabled && !wished.trace, "{headers:?}");
    }
}

#[test]
fn what_is_not_allowed_is_ignored_and_named() {
    let team = Arc::new(fixture::ensemble("team"));
    let all = [STRATEGY, MODELS, JUDGE, MIN_RESPONSES, ENABLE, TRACE];
    let sent: Vec<(&str, &str)> = all.iter().map(|name| (*name, "nonsense\n")).collect();
    let got = team.wished(&wishes(&sent)).unwrap();
    assert_eq!((got.ignored, got.applied), (all.to_vec(), vec![]));
    assert!(Arc::ptr_eq(&got.ensemble, &team) && got.enabled && !got.trace);
    let always = Ensemble { trace: Trace::Always, ..fixture::ensemble("team") };
    let shown = wished(always, &[(TRACE, "false")]).unwrap();
    assert!(shown.trace, "a caller cannot switch off what its operator shows always");
    assert_eq!(shown.ignored, [TRACE]);
}

#[test]
fn what_is_allowed_is_heeded() {
    for (headers, expected) in [
        (&[(STRATEGY, "vote")][..], "vote of a!,b,c need 2"),
        (&[(STRATEGY, " judge ")], "judge of a!,b,c need 2 by judge/b"),
        (&[(STRATEGY, "first")], "first of a,b,c need 1"),
        (&[(MODELS, "b , c")], "judge of b,c need 2 by judge/b"),
        (&[(MODELS, "d,d,d,d")], "judge of d,d,d,d need 2 by judge/b"),
        (&[(MODELS, "b")], "judge of b need 1 by judge/b"),
        (&[(MODELS, "a,d")], "judge of a!,d need 2 by judge/b"),
        (&[(JUDGE, "b")], "judge of a!,b,c need 2 by b"),
        (&[(JUDGE, "judge")], "judge of a!,b,c need 2 by judge/b"),
        (&[(MIN_RESPONSES, "3")], "judge of a!,b,c need 3 by judge/b"),
        (&[(MIN_RESPONSES, "1"), (STRATEGY, "first")], "first of a,b,c need 1"),
        (&[(MODELS, "a,b,c,d"), (MIN_RESPONSES, " 4")], "judge of a!,b,c,d need 4 by judge/b"),
        (&[(STRATEGY, "first"), (STRATEGY, "vote")], "vote of a!,b,c need 2"),
    ] {
        let wished = wished(open(), headers).unwrap();
        assert_eq!(shown(&wished.ensemble), expected, "{headers:?}");
        assert_eq!((wished.ignored.len(), wished.ensemble.name.as_ref()), (0, "team"));
        assert!(headers.iter().all(|(name, _)| wished.applied.contains(name)), "{headers:?}");
    }
    let member = wished(open(), &[(MODELS, "a")]).unwrap().ensemble.panel[0].clone();
    assert!((member.weight - 2.0).abs() < f64::EPSILON, "a member keeps what the operator gave it");
}

#[test]
fn switches_are_read_in_any_case() {
    for (value, on) in [("true", true), ("TRUE", true), (" False ", false), ("false", false)] {
        let wished = wished(open(), &[(ENABLE, value), (TRACE, value)]).unwrap();
        assert_eq!((wished.enabled, wished.trace), (on, on), "{value}");
        assert_eq!(wished.applied, [ENABLE, TRACE]);
    }
}

#[test]
fn every_judge_is_replaced_and_no_fallback_is_the_judge_itself() {
    for (strategy, expected) in [
        (Strategy::Score(Score { judges: vec![judge(), judge()] }), "score of a!,b,c need 2 by b by b"),
        (vote(OnNoConsensus::Judge(judge())), "vote of a!,b,c need 2 by b"),
    ] {
        let team = Ensemble { strategy, ..open() };
        assert_eq!(shown(&wished(team, &[(JUDGE, "b")]).unwrap().ensemble), expected);
    }
}

#[test]
fn what_goes_with_a_panel_and_a_strategy_follows_them() {
    let cascade = |start| {
        let of = |n| NonZeroUsize::new(n).unwrap();
        Execution::Cascade(Cascade { start: of(start), step: of(1), agreement: 1.0 })
    };
    let hedged = Execution::Hedged(Duration::from_millis(300));
    for (execution, headers, expected) in [
        (cascade(3), &[(MODELS, "b,c")][..], "judge of b,c need 2 cascade 2+1 by judge/b"),
        (cascade(2), &[(MODELS, "b,c,d")], "judge of b,c,d need 2 cascade 2+1 by judge/b"),
        (cascade(2), &[(MODELS, "b")], "judge of b need 1 by judge/b"),
        (cascade(2), &[(STRATEGY, "first")], "first of a,b,c need 1"),
        (hedged, &[(STRATEGY, "vote")], "vote of a!,b,c need 2"),
        (Execution::Sequential, &[(STRATEGY, "first")], "first of a,b,c need 1 Sequential"),
    ] {
        let team = Ensemble { execution, ..open() };
        assert_eq!(shown(&wished(team, headers).unwrap().ensemble), expected, "{headers:?}");
    }
    let first = Ensemble { strategy: Strategy::First, quorum: NonZeroUsize::MIN, ..open() };
    let wished = wished(first, &[(STRATEGY, "vote")]).unwrap();
    assert_eq!(wished.ensemble.quorum.get(), 2, "the default of the new strategy");
}

#[test]
fn a_quorum_of_the_operators_own_stays() {
    let own = |quorum| {
        let mut team = Ensemble { quorum: NonZeroUsize::new(quorum).unwrap(), ..open() };
        team.overrides.quorum_follows = false;
        team
    };
    assert_eq!(wished(own(1), &[(MODELS, "b,c,d")]).unwrap().ensemble.quorum.get(), 1);
    assert_eq!(wished(own(3), &[(MODELS, "b,c,d,d")]).unwrap().ensemble.quorum.get(), 3);
    assert_eq!(
        wished(own(3), &[(MODELS, "b,c"), (MIN_RESPONSES, "2")]).unwrap().ensemble.quorum.get(),
        2,
        "unless the caller may set it"
    );
    assert_eq!(
        wished(own(3), &[(MODELS, "b,c")]).unwrap_err().to_string(),
        "x-ensemble-models cannot be \"b,c\"; allowed: at least 3 models, since as many answers are needed here"
    );
}

#[test]
fn a_bad_value_is_a_400_that_names_the_header_the_value_and_what_is_allowed() {
    let models = "a comma-separated list of 1 to 4 of these, repeats included: a, b, c, d";
    let long = "x".repeat(100);
    for (headers, header, message) in [
        (
            &[(STRATEGY, "average")][..],
            STRATEGY,
            "cannot be \"average\"; allowed: judge, vote, first".to_owned(),
        ),
        (&[(STRATEGY, "Vote")], STRATEGY, "cannot be \"Vote\"; allowed: judge, vote, first".to_owned()),
        (
            &[(STRATEGY, "a\r\n\u{7}\"")],
            STRATEGY,
            r#"cannot be "a\r\n\u{7}\""; allowed: judge, vote, first"#.to_owned(),
        ),
        (
            &[(STRATEGY, &long)],
            STRATEGY,
            format!("cannot be \"{}\"…; allowed: judge, vote, first", "x".repeat(64)),
        ),
        (&[(MODELS, "")], MODELS, format!("cannot be \"\"; allowed: {models}")),
        (&[(MODELS, "a,,b")], MODELS, format!("cannot be \"a,,b\"; allowed: {models}")),
        (&[(MODELS, "a,secret")], MODELS, format!("cannot be \"a,secret\"; allowed: {models}")),
        (&[(MODELS, "a,b,c,d,a")], MODELS, format!("cannot be \"a,b,c,d,a\"; allowed: {models}")),
        (&[(JUDGE, "c")], JUDGE, "cannot be \"c\"; allowed: judge, b".to_owned()),
        (
            &[(STRATEGY, "vote"), (JUDGE, "b")],
            JUDGE,
            "cannot be \"b\"; allowed: nothing, since the strategy vote asks no judge".to_owned(),
        ),
        (
            &[(MIN_RESPONSES, "0")],
            MIN_RESPONSES,
            "cannot be \"0\"; allowed: 1 to 3, the size of the panel".to_owned(),
        ),
        (
            &[(MIN_RESPONSES, "4")],
            MIN_RESPONSES,
            "cannot be \"4\"; allowed: 1 to 3, the size of the panel".to_owned(),
        ),
        (
            &[(MIN_RESPONSES, "two")],
            MIN_RESPONSES,
            "cannot be \"two\"; allowed: 1 to 3, the size of the panel".to_owned(),
        ),
        (
            &[(MODELS, "a"), (MIN_RESPONSES, "2")],
            MIN_RESPONSES,
            "cannot be \"2\"; allowed: 1, the size of the panel".to_owned(),
        ),
        (
            &[(STRATEGY, "first"), (MIN_RESPONSES, "2")],
            MIN_RESPONSES,
            "cannot be \"2\"; allowed: 1, since the strategy first takes the first answer".to_owned(),
        ),
        (&[(ENABLE, "no")], ENABLE, "cannot be \"no\"; allowed: true, false".to_owned()),
        (&[(TRACE, "1")], TRACE, "cannot be \"1\"; allowed: true, false".to_owned()),
    ] {
        let error = RunError::from(wished(open(), headers).expect_err(header));
        let error = ApiError::from(&error);
        assert_eq!(
            (error.status, error.label, error.param.as_deref()),
            (400, "invalid_header", Some(header))
        );
        assert_eq!(error.message, format!("{header} {message}"));
        assert_eq!(error.should_retry, None, "nobody was asked");
    }
}

#[test]
fn an_ad_hoc_ensemble_wants_its_panel_named() {
    let ad_hoc = || {
        let mut team = open();
        team.overrides.panel_required = true;
        team
    };
    assert_eq!(
        wished(ad_hoc(), &[(STRATEGY, "vote")]).unwrap_err().to_string(),
        "x-ensemble-models is required here; allowed: a comma-separated list of 1 to 4 of these, repeats \
         included: a, b, c, d"
    );
    let wished = wished(ad_hoc(), &[(MODELS, "d, d,b")]).unwrap();
    assert_eq!(shown(&wished.ensemble), "judge of d,d,b need 2 by judge/b");
}
