//! How answers are read for comparing.

use super::ensemble::if_written;
use super::models::Resolver;
use crate::config::problem::Path;
use crate::config::schema::{Answer, AnswerKind, AnswerSpec, AnswerWord, Strategy};
use crate::ensemble::{Pattern, Pointer, Reading};

impl Resolver<'_> {
    /// What is written at `path`, for an alias whose strategy is `own`.
    pub(super) fn reading(&mut self, answer: &Answer, own: Option<Strategy>, path: &Path) -> Option<Reading> {
        let reading = match answer {
            Answer::Word(word) => Some(match word {
                AnswerWord::Auto => Reading::Auto,
                AnswerWord::Number => Reading::Number { pattern: None, pointer: None },
                AnswerWord::Choice => Reading::Choice(None),
                AnswerWord::Json => Reading::Json(None),
                AnswerWord::Code => Reading::Code,
                AnswerWord::Text => Reading::Text,
            }),
            Answer::Spec(spec) => self.spec(spec, path),
        }?;
        match reading {
            reading if own != Some(Strategy::Average) => Some(reading),
            Reading::Auto | Reading::Number { .. } => Some(reading),
            _ => {
                let what = "strategy `average` is for numbers: expected `number`, or nothing";
                self.report.add(path.clone(), what);
                None
            }
        }
    }

    fn spec(&mut self, spec: &AnswerSpec, path: &Path) -> Option<Reading> {
        let at = |key: &str| path.key(key);
        let pattern = spec.pattern.as_deref().map(Pattern::parse);
        let pattern = pattern.map(|p| self.parsed(p, at("pattern"), "is no pattern as interpolated"));
        let pointer = spec.pointer.as_deref().map(Pointer::parse);
        let pointer = pointer.map(|p| self.parsed(p, at("pointer"), "is no JSON Pointer as interpolated"));
        let (finds, points) = match spec.kind {
            AnswerKind::Choice | AnswerKind::Regex => (true, false),
            AnswerKind::Number => (true, true),
            AnswerKind::Json => (false, true),
            AnswerKind::Code | AnswerKind::Text => (false, false),
        };
        if pattern.is_some() && !finds {
            self.report.add(at("pattern"), "is for the kinds `choice`, `number` and `regex` alone");
        }
        if pointer.is_some() && !points {
            self.report.add(at("pointer"), "is for the kinds `number` and `json` alone");
        }
        let (pattern, pointer) = (if_written(pattern)?, if_written(pointer)?);
        Some(match spec.kind {
            AnswerKind::Choice => Reading::Choice(pattern),
            AnswerKind::Number => Reading::Number { pattern, pointer },
            AnswerKind::Json => Reading::Json(pointer),
            AnswerKind::Code => Reading::Code,
            AnswerKind::Text => Reading::Text,
            AnswerKind::Regex => {
                if pattern.is_none() {
                    self.report.add(at("pattern"), "is required by kind `regex`");
                }
                Reading::Regex(pattern?)
            }
        })
    }
}
