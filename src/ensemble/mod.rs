//! An alias becomes an answer: panel, quorum, strategy, outcome.

mod alias;
mod answer;
mod begun;
mod candidate;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod format;
mod missed;
mod outcome;
mod panel;
pub mod prompt;
mod quorum;
mod run;
mod strategy;

pub use alias::{
    Ensemble, Judge, Member, OnJudgeFailure, OnQuorumFailure, Params, SingleCandidate, Snapshot, Strategy,
};
pub use answer::{
    Calls, Found, Key, Kind, Number, Pattern, PatternError, Pointer, PointerError, Reader, Reading, Text,
};
pub use candidate::Candidate;
pub use error::RunError;
pub use outcome::{Failed, Head, Outcome};
pub use panel::member_body;
pub use run::{Admitted, Context, Runner};
