//! What callers may change, or form, by headers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::bound;
use super::judge::Seat;
use super::limits;
use super::models::Resolver;
use super::strategy::Parts;
use crate::config::problem::Path;
use crate::config::schema;
use crate::ensemble::{
    Ensemble, Execution, Member, OnJudgeFailure, OnQuorumFailure, Overrides, Reasoning, SingleCandidate,
    Strategy, Trace,
};
use crate::upstream::DirectModel;

impl Resolver<'_> {
    /// What callers may change of an ensemble with this panel and these strategies.
    pub(super) fn overrides(
        &mut self,
        ensemble: &schema::Ensemble,
        panel: Option<&[Member]>,
        parts: &Parts,
        path: &Path,
    ) -> Option<Overrides> {
        let written = &ensemble.overrides;
        let models = self.listed(&written.models, &path.key("models"));
        let judges = self.listed(&written.judge, &path.key("judge"));
        let panel = panel?;
        let member = |model: Arc<DirectModel>| {
            let same = panel.iter().find(|member| member.model.name == model.name);
            same.cloned().unwrap_or_else(|| plain(model))
        };
        Some(Overrides {
            strategies: strategies(&written.strategy, parts)?,
            models: models?.into_iter().map(member).collect(),
            panel_required: false,
            judges: judges?,
            min_responses: written.min_responses,
            enable: written.enable,
            max_panel: self.file.limits.max_panel,
            quorum_follows: ensemble.min_responses.is_none(),
        })
    }

    /// The alias whose panel callers form.
    pub(super) fn ad_hoc(&mut self, ad_hoc: &schema::AdHoc, path: &Path) -> Option<Ensemble> {
        let written: &[schema::Strategy] = match &ad_hoc.strategy {
            Some(strategies) => strategies,
            None if ad_hoc.judge.is_empty() => &[schema::Strategy::Vote],
            None => &[schema::Strategy::Judge],
        };
        let own = written.first().copied();
        self.ad_hoc_rules(ad_hoc, written, path);
        let models = self.listed(&ad_hoc.models, &path.key("models"));
        let judges = self.listed(&ad_hoc.judge, &path.key("judge"));
        let reading = self.reading(&ad_hoc.answer, own, &path.key("answer"));
        let quorum = self.quorum(ad_hoc.min_responses, ad_hoc.models.len(), own, path);
        let rate_limit = limits::of_ensemble(ad_hoc.rate_limit.as_ref(), path, self.report);
        let (models, judges) = (models?, judges?);
        let judge = judges.first().map(|model| Seat::plain(Arc::clone(model)));
        let parts = Parts { graders: judge.iter().cloned().collect(), judge, ..Parts::default() };
        let panel: Vec<Member> = models.into_iter().map(plain).collect();
        Some(Ensemble {
            name: ad_hoc.alias.as_str().into(),
            panel: panel.clone(),
            strategy: parts.strategy(own?)?,
            reading: reading?,
            quorum: quorum?,
            timeout: bound(ad_hoc.timeout_ms),
            deadline: bound(ad_hoc.deadline_ms),
            straggler_grace: ad_hoc.straggler_grace_ms.map(Duration::from_millis),
            on_quorum_failure: OnQuorumFailure::Fail,
            on_judge_failure: OnJudgeFailure::Best,
            single_candidate: SingleCandidate::Return,
            execution: Execution::Parallel,
            when: None,
            otherwise: None,
            max_inflight: ad_hoc.max_inflight.and_then(NonZeroUsize::new),
            rate_limit,
            budget: limits::budget(ad_hoc.budget),
            overrides: Overrides {
                strategies: strategies(written, &parts)?,
                models: panel,
                panel_required: true,
                judges,
                min_responses: true,
                enable: false,
                max_panel: self.file.limits.max_panel,
                quorum_follows: ad_hoc.min_responses.is_none(),
            },
            trace: Trace::Off,
            reasoning: Reasoning::Pass,
        })
    }

    fn ad_hoc_rules(&mut self, ad_hoc: &schema::AdHoc, strategies: &[schema::Strategy], path: &Path) {
        let (list, judge) = (path.key("strategy"), path.key("judge"));
        let certain = !self.report.doubts(&judge) && !self.report.doubts(&list);
        self.distinct(strategies, &list);
        if !certain {
            return;
        }
        let asks = |strategy: &&schema::Strategy| {
            matches!(strategy, schema::Strategy::Judge | schema::Strategy::Rank | schema::Strategy::Score)
        };
        let may_ask = |strategy: &schema::Strategy| {
            asks(&strategy) || matches!(strategy, schema::Strategy::Vote | schema::Strategy::Weighted)
        };
        match strategies.iter().find(asks) {
            Some(strategy) if ad_hoc.judge.is_empty() => {
                self.report.add(judge, format!("is required by strategy `{}`", strategy.word()));
            }
            None if !ad_hoc.judge.is_empty() && !strategies.iter().any(may_ask) => {
                self.report.add(judge, "is never used: no strategy here asks a judge");
            }
            _ => {}
        }
    }
}

fn strategies(names: &[schema::Strategy], parts: &Parts) -> Option<Vec<Strategy>> {
    names.iter().map(|name| parts.strategy(*name)).collect()
}

/// A member with nothing of its own.
fn plain(model: Arc<DirectModel>) -> Member {
    let schema::Member { weight, required, .. } = schema::Member::default();
    Member { model, weight, params: Vec::new(), system: None, required }
}
