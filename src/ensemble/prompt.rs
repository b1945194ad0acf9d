//! The text that presents candidates to a judge.

/// The placeholder that every judge prompt must contain.
pub const CANDIDATES: &str = "{{candidates}}";
/// The placeholder for the caller's last user message.
pub const QUESTION: &str = "{{question}}";
/// The placeholder for how many candidates there are.
pub const COUNT: &str = "{{count}}";

/// A judge prompt cut at its placeholders, so that filling it is one pass: text that looks like a
/// placeholder inside a conversation or a candidate stays text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Candidates,
    Question,
    Count,
}

/// Why a judge prompt is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// A judge that is shown no candidates cannot judge.
    #[error("must contain the placeholder {CANDIDATES}")]
    NoCandidates,
    /// Candidates shown twice cost twice.
    #[error("contains the placeholder {CANDIDATES} more than once")]
    CandidatesTwice,
    /// A placeholder that is none of ours is more likely a slip than text.
    #[error("unknown placeholder {0} (known: {CANDIDATES}, {QUESTION}, {COUNT})")]
    Unknown(String),
}

impl Template {
    /// Cuts `text` at its placeholders.
    ///
    /// # Errors
    /// When the candidates are missing or doubled, or a placeholder is unknown.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, tail)) = after.split_once("}}") else {
                break;
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name.trim() {
                "candidates" => Part::Candidates,
                "question" => Part::Question,
                "count" => Part::Count,
                _ => return Err(TemplateError::Unknown(format!("{{{{{name}}}}}"))),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        match parts.iter().filter(|p| **p == Part::Candidates).count() {
            0 => Err(TemplateError::NoCandidates),
            1 => Ok(Self { parts }),
            _ => Err(TemplateError::CandidatesTwice),
        }
    }
}
