//! An alias becomes an answer: panel, quorum, strategy, outcome.

mod alias;
pub mod prompt;

pub use alias::{
    Ensemble, Judge, Member, OnJudgeFailure, OnQuorumFailure, Params, SingleCandidate, Snapshot, Strategy,
};
