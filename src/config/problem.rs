//! What is wrong with a configuration: all of it at once, each with its path.

use std::fmt;
use std::path::PathBuf;

/// A place in a configuration, shown as `models[2].ensemble.judge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Vec<Segment>);

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// An element of a list, from 0.
    Index(usize),
    /// A key of a mapping.
    Key(String),
}

impl Path {
    /// The whole configuration.
    pub fn root() -> Self {
        Self::default()
    }

    /// The value of `key` here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.join(Segment::Key(key.to_owned()))
    }

    /// The element `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.join(Segment::Index(index))
    }

    /// The steps from the root.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// Whether `other` is this place or beneath it.
    pub fn contains(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// This place, then each that it is beneath, but for the root.
    pub(super) fn upwards(&self) -> impl Iterator<Item = Self> {
        (1..=self.0.len())
            .rev()
            .filter_map(|length| self.0.get(..length))
            .map(|segments| Self(segments.to_vec()))
    }

    fn join(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }
}

impl FromIterator<Segment> for Path {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Self(segments.into_iter().collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One thing that is wrong. No part of it shows a secret, or a value that came from the
/// environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where; the root when the file as a whole is meant.
    pub path: Path,
    /// What, with the nearest valid name where there is one.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.segments().is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "{}: {}", self.path, self.what)
        }
    }
}

/// Everything that is wrong with a configuration, in the order of the paths; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    all: Vec<Problem>,
    files: Vec<PathBuf>,
}

impl Problems {
    /// A single problem with the file as a whole.
    pub(super) fn with_file(what: String) -> Self {
        Self { all: vec![Problem { path: Path::root(), what }], files: Vec::new() }
    }

    /// The problems, in the order of their paths.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Problem> {
        self.all.iter()
    }

    /// The files that the configuration names, whether they could be read or not: another content of one may mend it.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.all.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Collects problems over the stages of a load, and which files were to be read.
#[derive(Debug, Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    files: Vec<PathBuf>,
}

impl Report {
    /// Notes a problem, unless its place is known to be wrong already: a later stage sees a
    /// stand-in there and would only report the consequence.
    pub(super) fn add(&mut self, path: Path, what: impl Into<String>) {
        if self.problems.iter().any(|known| known.path.contains(&path)) {
            return;
        }
        self.problems.push(Problem { path, what: what.into() });
    }

    /// Whether what a later stage sees at `path` may be a stand-in, as a whole or in part.
    pub(super) fn doubts(&self, path: &Path) -> bool {
        self.problems.iter().any(|known| known.path.contains(path) || path.contains(&known.path))
    }

    /// Whether nothing was found so far.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes that this file is named, once.
    pub(super) fn names(&mut self, file: PathBuf) {
        if !self.files.contains(&file) {
            self.files.push(file);
        }
    }

    /// The files that are named, in the order in which they were first read.
    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Hands the problems out; `remark` may add to each.
    pub(super) fn into_problems(mut self, remark: impl Fn(&Path) -> Option<String>) -> Problems {
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
        for problem in &mut self.problems {
            if let Some(remark) = remark(&problem.path) {
                problem.what.push_str(&remark);
            }
        }
        Problems { all: self.problems, files: self.files }
    }
}

/// ` (did you mean "…"?)` when one of `known` is close to `word`, and nothing otherwise.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    /// Jaro-Winkler similarity, which favours a common beginning: high enough that `when` suggests
    /// nothing, low enough that `timeout` suggests `timeout_ms`.
    const CLOSE: f64 = 0.84;
    let word = word.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&word, &name.to_lowercase()), name))
        .filter(|(similarity, _)| *similarity >= CLOSE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, name)| format!(" (did you mean \"{name}\"?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_it_would_be_written() {
        let path = Path::root().key("models").index(2).key("ensemble");
        assert_eq!(path.to_string(), "models[2].ensemble");
        assert_eq!(Path::root().to_string(), "");
    }

    #[test]
    fn a_consequence_of_a_known_problem_is_not_reported() {
        let judge = Path::root().key("judge");
        let mut report = Report::default();
        report.add(judge.clone(), "is required");
        report.add(judge.key("model"), "unknown model");
        report.add(Path::root().key("judges"), "unknown key");
        let problems = report.into_problems(|_| None);
        assert_eq!(problems.to_string(), "judge: is required\njudges: unknown key");
    }

    #[test]
    fn only_a_close_name_is_suggested() {
        let known = ["gpt-4o-panel", "claude-panel", "timeout_ms"];
        let hint = |word| did_you_mean(word, known).unwrap_or_default();
        assert_eq!(hint("gpt4-panel"), r#" (did you mean "gpt-4o-panel"?)"#);
        assert_eq!(hint("claude"), r#" (did you mean "claude-panel"?)"#);
        assert_eq!(hint("Timeout"), r#" (did you mean "timeout_ms"?)"#);
        assert_eq!(hint("when"), "");
    }
}
