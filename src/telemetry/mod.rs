//! What is recorded of a run.

mod account;

pub use account::{Account, Ended};

/// The record of a run, as it goes over wires (`proto/consort/decision/v1/decision.proto`).
pub mod decision {
    include!(concat!(env!("OUT_DIR"), "/consort.decision.v1.rs"));
}
