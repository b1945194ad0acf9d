//! What is recorded of a run.

mod account;
mod attempts;
mod cost;
mod decisions;
mod line;
mod live;
mod log;
pub mod metrics;
mod record;
mod seldom;
mod settlement;
mod trace;

pub use account::{About, Account, Ended, Seat};
pub use attempts::Attempts;
pub use cost::{Bill, Cost};
pub use decisions::{DecisionFile, Decisions, SinkError, Sinks, Told, Wanted, Watch};
pub use log::{Log, LogFormat, LogLevel};
pub use record::{Door, Part};
pub use seldom::Seldom;
pub use settlement::Spent;
pub use trace::{Asked, AttemptSpan, CallTrace, RunSpan, TraceHeaders, Traces};

/// The record of a run, as it goes over wires (`proto/consort/decision/v1/decision.proto`).
pub mod decision {
    #![expect(
        missing_docs,
        unused_qualifications,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        clippy::large_enum_variant,
        reason = "as tonic and prost generate it"
    )]

    include!(concat!(env!("OUT_DIR"), "/consort.decision.v1.rs"));
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
