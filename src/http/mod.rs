//! Plain HTTP: the operators' listener.
//!
//! [`serve`] takes connections, [`admin`] answers operators, [`console`] is their page.

pub mod admin;
pub mod console;
mod reply;
mod serve;

pub use serve::{Bounds, serve};
