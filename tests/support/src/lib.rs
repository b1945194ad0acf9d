//! What Consort's tests, benches and demo stand on: real peers where we can have them, strict ones where we cannot.
//!
//! - [`fetch`] finds Envoy, or makes one; and the official clients' environments.
//! - [`envoy`] runs the files of `deploy/envoy/` in it.
//! - [`provider`] is a scripted chat-completions API that is as strict as the real one, and remembers everything.
//! - [`panel`] is one that answers the demo's questions; `provider` runs it as a program.
//! - [`link`] is the network between two of them, with its faults.
//! - [`proxy`] stands on the way to a provider.
//! - [`anthropic`] is the same for the Messages API.
//! - [`upstream`] stands where requests for plain models go, and shows what reached it.
//! - [`redis`] runs the system's `redis-server`.
//! - [`service`] runs the real `consort` program.
//! - [`http`] is the caller, with its hands on every frame.
//!
//! Nothing here sleeps in the hope that something has happened by then: what takes time is polled or
//! notified, within a bound, and a bound that is missed says what was awaited.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: a failure here is a failed test"
)]

use std::io::Write as _;

pub mod anthropic;
pub mod envoy;
pub mod fetch;
pub mod http;
pub mod link;
mod listen;
pub mod panel;
mod process;
pub mod provider;
pub mod proxy;
pub mod redis;
pub mod service;
pub mod upstream;
mod wait;

pub use wait::eventually;

/// The workspace's root, where `deploy/` and `target/` are.
pub fn workspace() -> &'static std::path::Path {
    static ROOT: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();
    ROOT.get_or_init(|| {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .canonicalize()
            .expect("the workspace that this was built from is still there")
    })
}

/// Says that a test did not run since this machine lacks something; CI's has to have it, and fails.
pub fn lacking(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    skipped(why);
}

/// Says that a test did not run, and why, past the test runner's capture of what passing tests print.
pub fn skipped(why: &str) {
    // Nobody to tell is no reason to fail.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}
