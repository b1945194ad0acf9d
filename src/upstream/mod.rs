//! The calls beneath an ensemble: one provider, one model, one attempt at a time.

mod adapter;
mod caller;
mod client;
mod failure;
mod model;
mod rules;

pub use caller::{Call, Caller, Events, HttpCaller, Passed, bound};
pub use client::{Client, ClientSettings};
pub use failure::{Failure, ProviderError};
pub use model::{Adapter, Credential, DirectModel, Endpoint, Provider, ResponseFormat};
pub use rules::{Rules, Unsupported};
