//! What bounds a run before it begins, and what keeps its calls from models that are down.

mod admission;
mod cooldown;

pub use admission::{Admission, Permit};
pub use cooldown::{Cooldown, Cooldowns, Cooling, ModelState, ModelView, Pass, Role, Trouble};
