//! Tickets: Envoy's door hands a request to the plain one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bond::{Bond, Digest};
use super::secrets::Purpose;
use super::{Millis, Refused, Secrets, Spent};

/// What the first door has decided, for the second one to go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The ensemble that the request is for: its own condition has been settled.
    #[serde(rename = "a")]
    pub alias: String,
    /// Who the caller is to the limits; none where all callers share them.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none", default)]
    pub caller: Option<String>,
    /// Whether the ensemble took the request because its condition could not be evaluated.
    #[serde(rename = "d", skip_serializing_if = "std::ops::Not::not", default)]
    pub in_doubt: bool,
}

/// A ticket that was presented: signed, and not expired. Whether it holds is known with the body.
#[derive(Clone)]
pub struct Ticket(Arc<Words>);

#[derive(Serialize, Deserialize)]
struct Words {
    #[serde(flatten)]
    bond: Bond,
    #[serde(flatten)]
    grant: Grant,
}

impl Ticket {
    /// The text of a ticket for a request with this body, to be presented within `ttl`; none when it cannot be written.
    pub fn issue(
        grant: Grant,
        body: Digest,
        ttl: Duration,
        secrets: &Secrets,
        now: Millis,
    ) -> Option<String> {
        secrets.seal(Purpose::Ticket, &Words { bond: Bond::new(body, now, ttl), grant })
    }

    /// Reads what was presented, where tickets hold for `ttl`.
    ///
    /// # Errors
    /// When nobody who knows a secret has made it, its time is over, or it would hold for longer than twice `ttl`.
    pub fn read(text: &[u8], ttl: Duration, secrets: &Secrets, now: Millis) -> Result<Self, Refused> {
        let words: Words = secrets.open(Purpose::Ticket, text).ok_or(Refused::Forged)?;
        words.bond.is_held_to(ttl, now)?;
        Ok(Self(Arc::new(words)))
    }

    /// Takes it for a request to this alias with this body, once.
    ///
    /// # Errors
    /// When it does not hold for that.
    pub fn redeem(&self, alias: &str, body: Digest, spent: &Spent, now: Millis) -> Result<&Grant, Refused> {
        let Words { bond, grant } = &*self.0;
        if grant.alias != alias {
            return Err(Refused::OtherAlias);
        }
        bond.redeem(body, spent, now)?;
        Ok(grant)
    }
}

/// Without what it holds.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest;
    use super::*;

    const TTL: Duration = Duration::from_millis(10);

    fn secrets() -> Secrets {
        Secrets::new([&b"0123456789abcdef0123456789abcdef"[..]]).unwrap()
    }

    fn body(text: &str) -> Digest {
        digest([text.as_bytes()])
    }

    fn issued(grant: &Grant) -> String {
        Ticket::issue(grant.clone(), body("asked"), TTL, &secrets(), 100).unwrap()
    }

    #[test]
    fn a_ticket_is_taken_once_for_what_it_was_made_for() {
        let caller = Some("ba7816bf".to_owned());
        for grant in [
            Grant { alias: "gpt-4o".to_owned(), caller, in_doubt: true },
            Grant { alias: "é/\"x\"".to_owned(), caller: None, in_doubt: false },
        ] {
            let spent = Spent::default();
            let ticket = Ticket::read(issued(&grant).as_bytes(), TTL, &secrets(), 109).unwrap();
            let redeem = |alias: &str, text, now| ticket.redeem(alias, body(text), &spent, now);
            assert_eq!(redeem("other", "asked", 109), Err(Refused::OtherAlias));
            assert_eq!(redeem(&grant.alias, "other", 109), Err(Refused::OtherBody));
            assert_eq!(redeem(&grant.alias, "asked", 110), Err(Refused::Expired));
            assert_eq!(redeem(&grant.alias, "asked", 109), Ok(&grant), "what failed has not spent it");
            assert_eq!(redeem(&grant.alias, "asked", 109), Err(Refused::Replayed));
        }
    }

    #[test]
    fn what_is_no_ticket_is_not_read() {
        let grant = Grant { alias: "team".to_owned(), caller: None, in_doubt: false };
        let read = |text: &str, now| Ticket::read(text.as_bytes(), TTL, &secrets(), now).map(|_| ());
        let ticket = issued(&grant);
        assert_eq!(read(&ticket, 109), Ok(()));
        assert_eq!(read(&ticket, 110), Err(Refused::Expired));
        assert_eq!(read(&ticket, 90), Ok(()), "by a clock that is behind");
        assert_eq!(read(&ticket, 89), Err(Refused::Ahead));
        let marker = super::super::marker::issue(body("asked"), &secrets(), 100).unwrap();
        for text in ["", "x", "a.b", &ticket[1..], &marker] {
            assert_eq!(read(text, 100), Err(Refused::Forged), "{text}");
        }
        assert_ne!(ticket, issued(&grant), "each has a nonce of its own");
        assert_eq!(format!("{:?}", Ticket::read(ticket.as_bytes(), TTL, &secrets(), 100)), "Ok(Ticket)");
    }
}
