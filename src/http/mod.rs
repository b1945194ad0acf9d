//! What is served over HTTP, and the gRPC beside it.

mod decisions;
mod watch;

pub use decisions::routes as decision_routes;
pub use watch::{DecisionLogServer, decision_log};
