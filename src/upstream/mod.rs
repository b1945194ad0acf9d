//! The calls beneath an ensemble: one provider, one model, one attempt at a time, and another one when that may help.

mod adapter;
mod caller;
mod check;
mod client;
mod failure;
#[cfg(test)]
pub(crate) mod fixture;
mod limited;
mod model;
mod pools;
mod retry;
mod rules;
mod traced;

#[cfg(fuzzing)]
#[doc(hidden)]
pub use adapter::fuzzing;
pub use caller::{Bounds, Call, Caller, Events, HttpCaller, Passed, bound};
pub use check::check;
pub use client::{Client, ClientCertificate, ClientSettings, Http2, Proxy, Tls, TlsError};
pub use failure::{Failure, ProviderError};
pub use limited::Limited;
pub use model::{Adapter, BackgroundCheck, Credential, DirectModel, Endpoint, Provider, ResponseFormat};
pub use pools::Pools;
pub use retry::Retrying;
pub use rules::{Rules, Unsupported};
