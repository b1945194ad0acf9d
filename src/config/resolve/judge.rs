//! Judges, whatever a strategy asks them for.

use std::sync::Arc;

use super::ensemble::if_written;
use super::models::Resolver;
use super::panel::params;
use crate::config::problem::Path;
use crate::config::schema;
use crate::ensemble::prompt::{Purpose, Template};
use crate::ensemble::{Judge, Params};
use crate::upstream::DirectModel;

/// A judge that may be asked for anything.
#[derive(Clone)]
pub(super) struct Seat {
    model: Arc<DirectModel>,
    fallback: Option<Arc<DirectModel>>,
    prompts: Prompts,
    params: Params,
    max_candidate_bytes: usize,
}

/// One prompt for each purpose.
#[derive(Clone)]
struct Prompts {
    synthesis: Template,
    ranking: Template,
    scoring: Template,
}

impl Seat {
    /// A judge with nothing of its own.
    pub(super) fn plain(model: Arc<DirectModel>) -> Self {
        Self {
            model,
            fallback: None,
            prompts: Prompts::default(),
            params: Params::new(),
            max_candidate_bytes: schema::Judge::default().max_candidate_bytes,
        }
    }

    /// The judge, asked for this.
    pub(super) fn judge(&self, purpose: Purpose) -> Judge {
        Judge {
            model: Arc::clone(&self.model),
            fallback: self.fallback.clone(),
            prompt: match purpose {
                Purpose::Synthesis => self.prompts.synthesis.clone(),
                Purpose::Ranking => self.prompts.ranking.clone(),
                Purpose::Scoring => self.prompts.scoring.clone(),
            },
            params: self.params.clone(),
            max_candidate_bytes: self.max_candidate_bytes,
        }
    }
}

impl Default for Prompts {
    fn default() -> Self {
        Self {
            synthesis: Template::of(Purpose::Synthesis),
            ranking: Template::of(Purpose::Ranking),
            scoring: Template::of(Purpose::Scoring),
        }
    }
}

impl Prompts {
    fn of(&mut self, purpose: Purpose) -> &mut Template {
        match purpose {
            Purpose::Synthesis => &mut self.synthesis,
            Purpose::Ranking => &mut self.ranking,
            Purpose::Scoring => &mut self.scoring,
        }
    }
}

impl Resolver<'_> {
    /// The judge that is written at `path`; a prompt that is a text is for the purpose `own`, and is not read
    /// where that is not certain.
    pub(super) fn seat(&mut self, judge: &schema::Judge, own: Option<Purpose>, path: &Path) -> Option<Seat> {
        let model = self.direct(&judge.model, path.key("model"));
        let fallback = judge.fallback.as_ref().map(|name| {
            let path = path.key("fallback");
            if *name == judge.model {
                self.report.add(path.clone(), "must be another model than the judge's own");
            }
            self.direct(name, path)
        });
        let prompts = self.prompts(judge.prompt.as_ref(), own, &path.key("prompt"));
        Some(Seat {
            model: model?,
            fallback: if_written(fallback)?,
            prompts: prompts?,
            params: params(&judge.params),
            max_candidate_bytes: judge.max_candidate_bytes,
        })
    }

    fn prompts(
        &mut self,
        written: Option<&schema::Prompt>,
        own: Option<Purpose>,
        path: &Path,
    ) -> Option<Prompts> {
        let texts: Vec<(Purpose, &String, Path)> = match written {
            None => Vec::new(),
            Some(schema::Prompt::Own(text)) => own.into_iter().map(|own| (own, text, path.clone())).collect(),
            Some(schema::Prompt::Each(schema::Prompts { judge, rank, score })) => [
                (Purpose::Synthesis, judge, "judge"),
                (Purpose::Ranking, rank, "rank"),
                (Purpose::Scoring, score, "score"),
            ]
            .into_iter()
            .filter_map(|(purpose, text, key)| Some((purpose, text.as_ref()?, path.key(key))))
            .collect(),
        };
        let mut prompts = Prompts::default();
        let mut sound = true;
        for (purpose, text, path) in texts {
            match self.template(text, purpose, path) {
                Some(template) => *prompts.of(purpose) = template,
                None => sound = false,
            }
        }
        sound.then_some(prompts)
    }

    fn template(&mut self, text: &str, purpose: Purpose, path: Path) -> Option<Template> {
        let template = Template::parse(text, purpose);
        self.parsed(template, path, "is no prompt template as interpolated")
    }
}
