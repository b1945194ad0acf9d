//! What fuzz targets need of verdicts.

use super::{Candidate, Form};
use crate::chat::Completion;

/// The mark of each of these candidates by the choice that `completion` is.
pub fn best(completion: &Completion, candidates: &[&Completion]) -> Option<Vec<Option<f64>>> {
    find(Form::Best, completion, candidates)
}

/// The mark of each of these candidates by the grades that `completion` is.
pub fn grades(completion: &Completion, candidates: &[&Completion]) -> Option<Vec<Option<f64>>> {
    find(Form::Grades, completion, candidates)
}

fn find(form: Form, completion: &Completion, candidates: &[&Completion]) -> Option<Vec<Option<f64>>> {
    let of = |said: &&Completion| Candidate {
        member: 0,
        weight: 1.0,
        completion: Completion::clone(said),
        key: None,
    };
    let candidates: Vec<Candidate> = candidates.iter().map(of).collect();
    form.find(completion, &candidates.iter().collect::<Vec<_>>(), usize::MAX)
}
