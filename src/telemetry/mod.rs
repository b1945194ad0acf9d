//! What is recorded of a run.

mod account;
mod attempts;
mod trace;

pub use account::{Account, Ended, Seat};
pub use attempts::Attempts;
pub use trace::{Asked, AttemptSpan, CallTrace, RunSpan, TraceHeaders, Traces};

/// The record of a run, as it goes over wires (`proto/consort/decision/v1/decision.proto`).
pub mod decision {
    include!(concat!(env!("OUT_DIR"), "/consort.decision.v1.rs"));
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
