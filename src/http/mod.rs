//! Plain HTTP: the operators' listener.
//!
//! [`serve`] takes connections, [`admin`] answers operators.

pub mod admin;
mod reply;
mod serve;

pub use serve::{Bounds, serve};
