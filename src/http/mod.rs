//! Plain HTTP: the door for callers without an Envoy, and the operators' listener.
//!
//! [`serve`] takes connections, [`admin`] answers operators, [`door`] answers callers.

pub mod admin;
pub mod door;
mod reply;
mod serve;

pub use serve::{Bounds, serve};
