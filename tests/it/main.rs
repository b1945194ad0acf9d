//! Consort as its users meet it: the real program, beside a real Envoy with the shipped files,
//! before a strict scripted provider.

mod errors;
mod faults;
mod fidelity;
mod main_job;
mod passthrough;
mod stack;
