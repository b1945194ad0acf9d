//! Plain HTTP: the door for callers without an Envoy, and the operators' listener with the gRPC beside it.
//!
//! [`serve`] takes connections, [`admin`] answers operators, [`console`] is their page, [`door`] answers callers.

pub mod admin;
pub mod console;
mod decisions;
pub mod door;
mod linger;
mod reply;
mod serve;
mod tls;
mod watch;

pub use decisions::routes as decision_routes;
pub use linger::Lingering;
pub use serve::{Bounds, serve};
pub use tls::{Secured, ServerTls, TlsError, TlsFile, TlsFiles, secured};
pub use watch::{DecisionLogServer, Streams, decision_log};
