//! What fuzz targets need of verdicts.

use super::Form;
use crate::chat::Completion;

/// The mark of each of `count` candidates by the choice that `completion` is.
pub fn best(completion: &Completion, count: usize) -> Option<Vec<Option<f64>>> {
    Form::Best.find(completion, count)
}

/// The mark of each of `count` candidates by the grades that `completion` is.
pub fn grades(completion: &Completion, count: usize) -> Option<Vec<Option<f64>>> {
    Form::Grades.find(completion, count)
}
