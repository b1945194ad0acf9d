//! What Consort says to itself by way of others, so that nobody else can say it.
//!
//! A [`Ticket`] takes a request from Envoy's door to the plain one; a [`marker`] tells a call of Consort's own from a
//! caller's request. Both travel as headers, are signed with the same [`Secrets`], hold for one body and for a short
//! time, and are taken once ([`Spent`]). Any replica with the same secrets knows them.

mod bond;
pub mod marker;
mod secrets;
mod spent;
mod ticket;

use std::time::{SystemTime, UNIX_EPOCH};

pub use bond::{Digest, digest};
pub use secrets::{MIN_SECRET_BYTES, Secrets};
pub use spent::Spent;
pub use ticket::{Grant, Ticket};

/// The request header that a ticket travels in.
pub const TICKET: &str = "x-consort-ticket";
/// The request header that a marker travels in.
pub const MARKER: &str = "x-consort-marker";

/// A point in time, in ms since 1970: what several replicas can compare.
pub type Millis = u64;

/// The time now.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Why what was presented is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody who knows a secret has made it.
    #[error("not signed with a secret known here")]
    Forged,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// It would hold for longer than any that is made: a clock is wrong, or a secret known to others.
    #[error("expires too far ahead")]
    Ahead,
    /// It was made for another body.
    #[error("made for another body")]
    OtherBody,
    /// It was made for another alias.
    #[error("made for another alias")]
    OtherAlias,
    /// It was taken before.
    #[error("taken before")]
    Replayed,
    /// Too many were taken for another to be kept in mind.
    #[error("no more can be taken now")]
    Full,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Forged,
        Self::Expired,
        Self::Ahead,
        Self::OtherBody,
        Self::OtherAlias,
        Self::Replayed,
        Self::Full,
    ];

    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Forged => "forged",
            Self::Expired => "expired",
            Self::Ahead => "ahead",
            Self::OtherBody => "other_body",
            Self::OtherAlias => "other_alias",
            Self::Replayed => "replayed",
            Self::Full => "full",
        }
    }
}
