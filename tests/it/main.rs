//! Consort as its users meet it: the real program, beside a real Envoy with the shipped files,
//! before a strict scripted provider.

mod clients;
mod main_job;
mod provider_streams;
mod schema;
mod stack;
mod streaming;
