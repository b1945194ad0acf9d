//! What bounds a run before it begins.

mod admission;

pub use admission::{Admission, Permit};
