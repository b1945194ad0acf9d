//! Consort as its users meet it: the real program, beside a real Envoy with the shipped files,
//! before a strict scripted provider.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failure here is a failed test"
)]

mod errors;
mod faults;
mod fidelity;
mod house;
mod main_job;
mod passthrough;
mod stack;
mod upstream;
