//! What bounds a run before it begins, how much callers and models may take, and what keeps calls from models that are
//! down.

mod admission;
mod cooldown;
mod grant;
mod key;
mod lateness;
mod limiter;
mod quota;
mod rate;
mod room;
mod store;

pub use admission::{Admission, Permit};
pub use cooldown::{Cooldown, Cooldowns, Cooling, ModelState, ModelView, Pass, Role, Trouble};
pub use grant::{Denied, Grant, Lease, Reservation};
pub use key::{CallerKey, KeySource};
pub use limiter::{Demand, Level, Limiter, StoreError, StoreSettings};
pub use quota::Quota;
pub use rate::{Budget, Rate, RateLimit, Window, estimated_tokens};
pub use room::{Room, Share};
pub use store::{Keeper, OnError, RedisSettings, RedisUrlError};

#[cfg(test)]
mod concurrent;
#[cfg(test)]
mod tests;
