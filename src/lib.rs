//! Consort makes one model alias out of several models, beside Envoy.
//!
//! One request, in the order in which it walks through the modules:
//!
//! 1. [`ext_proc`]: Envoy opens a stream and sends the caller's headers and body. A pure phase
//!    machine (`ext_proc::exchange`) decides what may be said when; a request whose `model` is no
//!    alias is handed back untouched.
//! 2. [`chat`]: an alias's body becomes a view over the caller's bytes, to be patched, never
//!    re-rendered.
//! 3. [`dispatch`]: what every door does from here on: who answers, and what its caller is told. [`http`] is
//!    the other door, for callers without an Envoy.
//! 4. [`limits`]: the run is admitted, or refused: too many are in flight, its caller has asked too much, or the alias
//!    has spent its budget.
//! 5. [`ensemble`]: the alias's condition and the caller's headers decide what is asked for; the panel
//!    is asked by one fan-out, the quorum collects usable candidates, keys are read from them where they
//!    are compared, the strategy makes one answer of them.
//! 6. [`upstream`]: each call goes to its provider over hyper, again where that may help, and not at all
//!    while its model cools down or is over its limit.
//! 7. [`telemetry`]: the run's decision is recorded once, however the run ended; [`http`] shows it to whoever
//!    watches.
//! 8. [`ext_proc`] again: the outcome goes back to Envoy as an immediate response, or as a stream
//!    of them.
//!
//! Between Consort and itself there is [`signing`]: tickets by which Envoy's door hands a request to the plain one, and
//! marks by which it knows a request of its own.
//!
//! [`http`] is the operators' listener. [`config`] reads the operator's file into the types of all of these,
//! and [`app`] binds, serves, reloads and drains.

pub mod app;
pub mod chat;
pub mod cli;
pub mod config;
pub mod dispatch;
pub mod ensemble;
pub mod ext_proc;
pub mod http;
pub mod limits;
pub mod signing;
pub mod telemetry;
pub mod upstream;
