//! Consort as its users meet it: the real program, beside a real Envoy with the shipped files,
//! before a strict scripted provider.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failure in a test's helper is a failed test"
)]

mod adapters;
mod aimock;
mod clients;
mod collector;
mod controls;
mod egress;
mod envoy;
mod errors;
mod fault_table;
mod faults;
mod fidelity;
mod gemini;
mod house;
mod main_job;
mod overrides;
mod passthrough;
mod provider_streams;
mod quality;
mod retries;
mod schema;
mod stack;
mod strategies;
mod streaming;
mod survival;
mod tls;
mod traces;
mod upstream;
