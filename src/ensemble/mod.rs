//! An alias becomes an answer: panel, quorum, strategy, outcome.

mod alias;
mod answer;
mod begun;
mod candidate;
mod combine;
mod consensus;
mod direct;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod format;
mod member;
mod missed;
mod outcome;
mod overrides;
mod pace;
mod panel;
pub mod prompt;
mod quorum;
mod run;
mod seed;
mod strategy;
mod when;

pub use alias::{
    Cascade, Ensemble, Execution, Member, OnJudgeFailure, OnQuorumFailure, Params, Reasoning,
    SingleCandidate, Snapshot, Trace,
};
pub use answer::{
    Calls, Found, Key, Kind, Number, Pattern, PatternError, Pointer, PointerError, Reader, Reading, Text,
};
pub use candidate::Candidate;
pub use direct::Unanswered;
pub use error::RunError;
pub use member::member_body;
pub use outcome::{Failed, Head, Outcome};
pub use overrides::{OverrideError, Overrides, Wished, Wishes};
pub use run::{Admitted, Context, Runner};
#[cfg(fuzzing)]
#[doc(hidden)]
pub use strategy::fuzzing;
pub use strategy::{
    Average, Confidence, Judge, OnNoConsensus, Rank, RankMode, Require, Score, Strategy, Vote, Weighted,
};
pub use when::{Facts, When, WhenError, WhenFailed};
