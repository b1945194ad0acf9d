//! What the fields of an ensemble may not say together.

use super::ensemble::Draft;
use super::models::Resolver;
use crate::config::problem::Path;
use crate::config::schema::{Execution, OnNoConsensus, Prompt, Prompts, SingleCandidate, Strategy};

impl Resolver<'_> {
    /// Reports what contradicts itself, is missing, or would be read by nothing.
    pub(super) fn rules(&mut self, draft: &Draft<'_>) {
        self.distinct(&draft.ensemble.overrides.strategy, &draft.path.key("overrides").key("strategy"));
        self.needed_judges(draft);
        self.used_settings(draft);
        self.used_judges(draft);
        self.first(draft);
        self.cascade(draft);
        self.ways_past(draft);
    }

    /// No strategy stands twice in a list.
    pub(super) fn distinct(&mut self, strategies: &[Strategy], list: &Path) {
        for (i, strategy) in strategies.iter().enumerate() {
            if strategies.iter().take(i).any(|earlier| earlier == strategy) {
                self.report.add(list.index(i), format!("`{}` stands here twice", strategy.word()));
            }
        }
    }

    fn needed_judges(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        let Some(strategies) = &draft.strategies else { return };
        if ensemble.judge.is_some() || self.report.doubts(&path.key("judge")) {
            return;
        }
        let graded = ensemble.judges.is_some() || self.report.doubts(&path.key("judges"));
        let chosen = path.key("overrides").key("strategy");
        for (i, strategy) in strategies.iter().enumerate() {
            let missing = match strategy {
                Strategy::Judge | Strategy::Rank => "`judge`",
                Strategy::Score if !graded => "`judge` and no `judges`",
                _ => continue,
            };
            let word = strategy.word();
            // The first is the ensemble's own.
            match i.checked_sub(1) {
                None => self.report.add(path.key("judge"), format!("is required by strategy `{word}`")),
                Some(i) => {
                    let what = format!("strategy `{word}` asks a judge, and there is no {missing}");
                    self.report.add(chosen.index(i), what);
                }
            }
        }
        let votes = strategies.iter().any(|s| matches!(s, Strategy::Vote | Strategy::Weighted));
        if votes && ensemble.vote.and_then(|vote| vote.on_no_consensus) == Some(OnNoConsensus::Judge) {
            let what = "asks a judge, and there is no `judge` beside `vote`";
            self.report.add(path.key("vote").key("on_no_consensus"), what);
        }
    }

    fn used_settings(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        let Some(strategies) = &draft.strategies else { return };
        let settings: [(&str, bool, &[Strategy]); 6] = [
            ("judges", ensemble.judges.is_some(), &[Strategy::Score]),
            ("rank", ensemble.rank.is_some(), &[Strategy::Rank]),
            ("vote", ensemble.vote.is_some(), &[Strategy::Vote, Strategy::Weighted]),
            ("weighted", ensemble.weighted.is_some(), &[Strategy::Weighted]),
            ("average", ensemble.average.is_some(), &[Strategy::Average]),
            ("first", ensemble.first.is_some(), &[Strategy::First]),
        ];
        for (key, written, readers) in settings {
            if written && !readers.iter().any(|reader| strategies.contains(reader)) {
                let (readers, here) = (words(readers, " or "), words(strategies, ", "));
                let what = format!("is never used: it is for strategy {readers}, and here is {here}");
                self.report.add(path.key(key), what);
            }
        }
        let writes = strategies.contains(&Strategy::Judge);
        if matches!(ensemble.single_candidate, SingleCandidate::Judge) && !writes {
            let what = "`judge` needs strategy `judge`, which writes an answer: expected `return`";
            self.report.add(path.key("single_candidate"), what);
        }
    }

    fn used_judges(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        for (i, judge) in ensemble.judges.iter().flatten().enumerate() {
            let Some(Prompt::Each(Prompts { judge, rank, .. })) = &judge.prompt else { continue };
            let prompt = path.key("judges").index(i).key("prompt");
            for (key, text) in [("judge", judge), ("rank", rank)] {
                if text.is_some() {
                    self.report.add(prompt.key(key), "is never used: `judges` are asked for scores alone");
                }
            }
        }
        let Some(strategies) = &draft.strategies else { return };
        if self.report.doubts(&path.key("judge")) || self.report.doubts(&path.key("vote")) {
            return;
        }
        let asks = |strategy: &Strategy| match strategy {
            Strategy::Judge | Strategy::Rank | Strategy::Score => true,
            Strategy::Vote | Strategy::Weighted => {
                match ensemble.vote.and_then(|vote| vote.on_no_consensus) {
                    Some(otherwise) => otherwise == OnNoConsensus::Judge,
                    None => ensemble.judge.is_some(),
                }
            }
            Strategy::Average | Strategy::First => false,
        };
        if !ensemble.overrides.judge.is_empty() && !strategies.iter().any(asks) {
            let what = format!("is never used: no judge is asked by {}", words(strategies, ", "));
            self.report.add(path.key("overrides").key("judge"), what);
        }
    }

    /// What ends with the first usable candidate needs no more, and waits for nobody. Where only callers choose it,
    /// what belongs to the ensemble's own strategy does not hold for them.
    fn first(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        let Some(strategies) = &draft.strategies else { return };
        if !strategies.contains(&Strategy::First) {
            return;
        }
        let is_own = draft.own == Some(Strategy::First);
        for (i, _) in ensemble.panel.iter().enumerate().filter(|(_, member)| is_own && member.required) {
            let what = "cannot stand beside strategy `first`, which waits for no particular member";
            self.report.add(path.key("panel").index(i).key("required"), what);
        }
        if is_own && ensemble.cascade.is_some() {
            let what = "cannot stand beside strategy `first`, which compares no answers";
            self.report.add(path.key("cascade"), what);
        }
        if ensemble.first.is_none_or(|first| first.hedge_ms.is_none()) {
            return;
        }
        let hedge = path.key("first").key("hedge_ms");
        if !is_own {
            let what = "is for ensembles whose own strategy is `first`: one that callers choose has no delay";
            self.report.add(hedge, what);
        } else if ensemble.execution == Execution::Sequential {
            self.report.add(hedge, "cannot stand beside `execution: sequential`: choose one");
        }
    }

    fn cascade(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        let Some(cascade) = ensemble.cascade else { return };
        let size = ensemble.panel.len();
        if ensemble.execution == Execution::Sequential {
            let what = "cannot stand beside `execution: sequential`: choose one";
            self.report.add(path.key("cascade"), what);
        }
        if size > 0 && cascade.start > size {
            let what = format!("{} is more than the panel's {size}", cascade.start);
            self.report.add(path.key("cascade").key("start"), what);
        }
    }

    /// Requests that are not the ensemble's need a place to go, and the place a reason.
    fn ways_past(&mut self, draft: &Draft<'_>) {
        let Draft { ensemble, path, .. } = draft;
        let (when, otherwise) = (path.key("when"), path.key("otherwise"));
        let enable = path.key("overrides").key("enable");
        let reason = match (&ensemble.when, ensemble.overrides.enable) {
            (Some(_), _) => Some("when"),
            (None, true) => Some("overrides.enable"),
            (None, false) => None,
        };
        match (&ensemble.otherwise, reason) {
            (None, Some(reason)) => {
                let what =
                    format!("is required by `{reason}`: the direct model that the other requests go to");
                self.report.add(otherwise, what);
            }
            (Some(_), None) if !self.report.doubts(&when) && !self.report.doubts(&enable) => {
                let what = "is never used: it needs `when`, or `overrides.enable: true`";
                self.report.add(otherwise, what);
            }
            _ => {}
        }
    }
}

fn words(strategies: &[Strategy], between: &str) -> String {
    let words: Vec<String> = strategies.iter().map(|strategy| format!("`{}`", strategy.word())).collect();
    words.join(between)
}
