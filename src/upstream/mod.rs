//! The calls beneath an ensemble: one provider, one model, one attempt at a time.

pub mod client;
mod model;

pub use model::{Adapter, Credential, DirectModel, Provider};
