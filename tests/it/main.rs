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
mod admin;
mod aimock;
mod books;
mod bounds;
mod cli;
mod clients;
mod collector;
mod console;
mod controls;
mod decisions;
mod docs;
mod doctor;
mod door;
mod drain;
mod egress;
mod envoy;
mod envoy_config;
mod errors;
mod fault_matrix;
mod fault_table;
mod faults;
mod fidelity;
mod gate;
mod gemini;
mod handoff;
mod health;
mod house;
mod injection;
mod kubernetes;
mod limits;
mod listing;
mod loops;
mod main_job;
mod matrix;
mod metrics;
mod overload;
mod overrides;
mod packaging;
mod passthrough;
mod provider_streams;
mod quality;
mod redis;
mod reload;
mod retries;
mod rolling;
mod schema;
mod secrets;
mod smuggling;
mod stack;
mod strategies;
mod streaming;
mod survival;
mod tls;
mod traces;
mod transport;
mod upstream;
