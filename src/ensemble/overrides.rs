//! What callers may change of an ensemble by `x-ensemble-…` headers.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::alias::{Cascade, Ensemble, Execution, Member, Trace};
use super::strategy::Strategy;
use crate::upstream::DirectModel;

/// The name of a strategy.
const STRATEGY: &str = "x-ensemble-strategy";
/// A comma-separated list of models: the panel.
const MODELS: &str = "x-ensemble-models";
/// The model that judges.
const JUDGE: &str = "x-ensemble-judge";
/// The quorum.
const MIN_RESPONSES: &str = "x-ensemble-min-responses";
/// `false` sends the request where `otherwise` says.
const ENABLE: &str = "x-ensemble-enable";
/// `true` asks for the decision.
const TRACE: &str = "x-ensemble-trace";

/// What callers may change of an ensemble by headers. Nothing, unless the operator lists it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `x-ensemble-strategy`: the strategies that may be chosen, each complete.
    pub strategies: Vec<Strategy>,
    /// `x-ensemble-models`: the members that a panel may be formed of, found by their models' names.
    pub models: Vec<Member>,
    /// Whether a panel must be formed: the ensemble has none of its own.
    pub panel_required: bool,
    /// `x-ensemble-judge`: the models that may judge.
    pub judges: Vec<Arc<DirectModel>>,
    /// Whether `x-ensemble-min-responses` may set the quorum.
    pub min_responses: bool,
    /// Whether `x-ensemble-enable: false` may send a request where `otherwise` says.
    pub enable: bool,
    /// How many members a panel may have.
    pub max_panel: usize,
    /// Whether the quorum is the default one, which follows the size of the panel.
    pub quorum_follows: bool,
}

/// What a caller's headers say, as they came; of a header that came more than once, the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `x-ensemble-strategy`
    pub strategy: Option<String>,
    /// `x-ensemble-models`
    pub models: Option<String>,
    /// `x-ensemble-judge`
    pub judge: Option<String>,
    /// `x-ensemble-min-responses`
    pub min_responses: Option<String>,
    /// `x-ensemble-enable`
    pub enable: Option<String>,
    /// `x-ensemble-trace`
    pub trace: Option<String>,
}

/// An ensemble as a caller wants it.
#[derive(Clone, Debug)]
pub struct Wished {
    /// The ensemble; the operator's own one where nothing is changed.
    pub ensemble: Arc<Ensemble>,
    /// Whether the request is the ensemble's, as far as its caller is concerned.
    pub enabled: bool,
    /// Whether the caller gets to see the decision.
    pub trace: bool,
    /// The headers that were sent and mean nothing here.
    pub ignored: Vec<&'static str>,
    /// The headers that were sent and heeded.
    pub applied: Vec<&'static str>,
}

/// A header that cannot be heeded. What is allowed is what the operator has listed for callers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header} {}; allowed: {allowed}", told(value.as_deref()))]
pub struct OverrideError {
    /// Its name.
    pub header: &'static str,
    /// Its value; none where it is missing.
    pub value: Option<String>,
    /// What would be right.
    pub allowed: String,
}

/// How much of a header's value a message cites, in bytes.
const CITED: usize = 64;

/// A value as a message cites it: cut, and without control characters.
fn told(value: Option<&str>) -> String {
    let Some(value) = value else {
        return "is required here".to_owned();
    };
    let cited = value.get(..value.floor_char_boundary(CITED)).unwrap_or_default();
    let cut = if cited.len() < value.len() { "…" } else { "" };
    format!("cannot be {cited:?}{cut}")
}

impl Wishes {
    /// Reads them by a look-up of headers' values.
    pub fn read(value: impl Fn(&'static str) -> Option<String>) -> Self {
        Self {
            strategy: value(STRATEGY),
            models: value(MODELS),
            judge: value(JUDGE),
            min_responses: value(MIN_RESPONSES),
            enable: value(ENABLE),
            trace: value(TRACE),
        }
    }
}

impl Ensemble {
    /// The ensemble as these headers want it. Headers that the operator does not allow are ignored.
    ///
    /// A strategy, judge or quorum holds for the panel that `x-ensemble-models` forms. Where the quorum is the
    /// default one, it follows that panel; a cascade starts with no more members than there are, and is none
    /// with a single one; who is required and left out is not missed.
    ///
    /// # Errors
    /// When a header that is allowed has a value that is not, or one that must be there is missing.
    pub fn wished(self: &Arc<Self>, wishes: &Wishes) -> Result<Wished, OverrideError> {
        let may = &self.overrides;
        let mut heard = Heard::default();
        let strategy = heard.take(STRATEGY, &wishes.strategy, !may.strategies.is_empty());
        let models = heard.take(MODELS, &wishes.models, !may.models.is_empty());
        let judge = heard.take(JUDGE, &wishes.judge, !may.judges.is_empty());
        let quorum = heard.take(MIN_RESPONSES, &wishes.min_responses, may.min_responses);
        let enable = heard.take(ENABLE, &wishes.enable, may.enable);
        let trace = heard.take(TRACE, &wishes.trace, self.trace == Trace::Header);
        if models.is_none() && may.panel_required {
            return Err(OverrideError { header: MODELS, value: None, allowed: may.panels() });
        }
        let enabled = enable.map_or(Ok(true), |value| switch(ENABLE, value))?;
        let trace = trace.map_or(Ok(self.trace == Trace::Always), |value| switch(TRACE, value))?;
        let ensemble = if strategy.is_none() && models.is_none() && judge.is_none() && quorum.is_none() {
            Arc::clone(self)
        } else {
            let mut ensemble = Self::clone(self);
            if let Some(name) = strategy {
                ensemble.strategy = may.strategy(name)?;
            }
            if let Some(names) = models {
                ensemble.panel = may.panel(names)?;
            }
            if let Some(name) = judge {
                ensemble.be_judged(name)?;
            }
            ensemble.need(quorum, models)?;
            ensemble.fit();
            Arc::new(ensemble)
        };
        Ok(Wished { ensemble, enabled, trace, ignored: heard.ignored, applied: heard.applied })
    }

    fn be_judged(&mut self, name: &str) -> Result<(), OverrideError> {
        let refused = |allowed| OverrideError { header: JUDGE, value: Some(name.to_owned()), allowed };
        let judges = self.overrides.judges.iter();
        let Some(model) = judges.clone().find(|judge| *judge.name == *name.trim()).cloned() else {
            return Err(refused(listed(judges.map(|judge| &*judge.name))));
        };
        let strategy = self.strategy.name();
        let seats = self.strategy.judges_mut();
        if seats.is_empty() {
            return Err(refused(format!("nothing, since the strategy {strategy} asks no judge")));
        }
        for judge in seats {
            judge.model = Arc::clone(&model);
            judge.fallback.take_if(|fallback| fallback.name == model.name);
        }
        Ok(())
    }

    /// Sets the quorum for a panel and a strategy that may have changed.
    fn need(&mut self, quorum: Option<&str>, models: Option<&str>) -> Result<(), OverrideError> {
        let panel = self.panel.len();
        let is_first = matches!(self.strategy, Strategy::First);
        if let Some(text) = quorum {
            let most = if is_first { 1 } else { panel };
            let wanted = text.trim().parse().ok().filter(|wanted: &NonZeroUsize| wanted.get() <= most);
            self.quorum = wanted.ok_or_else(|| OverrideError {
                header: MIN_RESPONSES,
                value: Some(text.to_owned()),
                allowed: match (is_first, most) {
                    (true, _) => "1, since the strategy first takes the first answer".to_owned(),
                    (false, 1) => "1, the size of the panel".to_owned(),
                    (false, most) => format!("1 to {most}, the size of the panel"),
                },
            })?;
        } else if is_first {
            self.quorum = NonZeroUsize::MIN;
        } else if self.overrides.quorum_follows {
            self.quorum = NonZeroUsize::new(panel.min(2)).unwrap_or(NonZeroUsize::MIN);
        } else if self.quorum.get() > panel {
            return Err(OverrideError {
                header: MODELS,
                value: models.map(str::to_owned),
                allowed: format!("at least {} models, since as many answers are needed here", self.quorum),
            });
        }
        Ok(())
    }

    /// Brings into line what goes with a panel and a strategy.
    fn fit(&mut self) {
        let panel = self.panel.len();
        let is_first = matches!(self.strategy, Strategy::First);
        self.execution = match &self.execution {
            Execution::Cascade(_) if is_first || panel < 2 => Execution::Parallel,
            Execution::Cascade(cascade) => {
                let start = NonZeroUsize::new(panel).map_or(cascade.start, |panel| cascade.start.min(panel));
                Execution::Cascade(Cascade { start, ..*cascade })
            }
            // A delay between members is a matter of `first`.
            Execution::Hedged(_) if !is_first => Execution::Parallel,
            unchanged => unchanged.clone(),
        };
        if is_first {
            self.panel.iter_mut().for_each(|member| member.required = false);
        }
    }
}

impl Overrides {
    fn strategy(&self, name: &str) -> Result<Strategy, OverrideError> {
        self.strategies.iter().find(|strategy| strategy.name() == name.trim()).cloned().ok_or_else(|| {
            OverrideError {
                header: STRATEGY,
                value: Some(name.to_owned()),
                allowed: listed(self.strategies.iter().map(Strategy::name)),
            }
        })
    }

    fn panel(&self, names: &str) -> Result<Vec<Member>, OverrideError> {
        let member =
            |name: &str| self.models.iter().find(|member| *member.model.name == *name.trim()).cloned();
        // One past the bound tells that it is passed.
        let panel: Option<Vec<Member>> = names.split(',').take(self.max_panel + 1).map(member).collect();
        panel.filter(|panel| panel.len() <= self.max_panel).ok_or_else(|| OverrideError {
            header: MODELS,
            value: Some(names.to_owned()),
            allowed: self.panels(),
        })
    }

    /// Which panels may be formed.
    fn panels(&self) -> String {
        let models = listed(self.models.iter().map(|member| &*member.model.name));
        format!("a comma-separated list of 1 to {} of these, repeats included: {models}", self.max_panel)
    }
}

/// The headers that were sent, sorted.
#[derive(Default)]
struct Heard {
    ignored: Vec<&'static str>,
    applied: Vec<&'static str>,
}

impl Heard {
    /// The value to heed, if the header was sent and is allowed.
    fn take<'w>(
        &mut self,
        header: &'static str,
        value: &'w Option<String>,
        allowed: bool,
    ) -> Option<&'w str> {
        let value = value.as_deref()?;
        if allowed {
            self.applied.push(header)
        } else {
            self.ignored.push(header)
        }
        allowed.then_some(value)
    }
}

fn switch(header: &'static str, value: &str) -> Result<bool, OverrideError> {
    match value.trim() {
        on if on.eq_ignore_ascii_case("true") => Ok(true),
        off if off.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(OverrideError { header, value: Some(value.to_owned()), allowed: "true, false".to_owned() }),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
