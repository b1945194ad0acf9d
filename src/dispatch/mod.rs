//! What every door does with an alias's request, in no door's own words.
//!
//! A door brings the request: `headers` is what is read of its head, [`route`] decides who answers it, and
//! [`replies`] drives the run. What the caller is told comes out as [`Reply`]s, which the door spells. [`Models`] is
//! what callers are told of models.

mod answer;
mod headers;
mod models;
mod reply;
mod route;

pub use answer::{Pacing, replies};
pub use headers::{Headers, is_request_id};
pub use models::Models;
pub use reply::{Field, Reply, Summary, Whole, loop_detected, too_large};
pub use route::{Asked, Delivery, Given, Redirected, Route, Settled, Taken, route};
