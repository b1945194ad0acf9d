//! Markers: Consort knows a call of its own when it comes back by way of Envoy.

use std::time::Duration;

use super::bond::{Bond, Digest};
use super::secrets::Purpose;
use super::{Millis, Refused, Secrets, Spent};

/// How long a call may be on its way until it comes back: queues and uploads on the way included.
const TTL: Duration = Duration::from_secs(60);

/// The text of a marker for a call with this body; none when it cannot be written.
pub fn issue(body: Digest, secrets: &Secrets, now: Millis) -> Option<String> {
    secrets.seal(Purpose::Marker, &Bond::new(body, now, TTL))
}

/// Whether a replica with one of the secrets has made it, whatever it was made for.
pub fn is_authentic(text: &[u8], secrets: &Secrets) -> bool {
    open(text, secrets).is_some()
}

/// Takes a marker for a request with this body, once; none when it is not [authentic](is_authentic). The body is looked
/// at only when it is.
///
/// # Errors
/// When it is one and does not hold for this request.
pub fn check(
    text: &[u8],
    body: impl FnOnce() -> Digest,
    secrets: &Secrets,
    spent: &Spent,
    now: Millis,
) -> Option<Result<(), Refused>> {
    open(text, secrets).map(|bond| bond.redeem(body(), spent, now))
}

fn open(text: &[u8], secrets: &Secrets) -> Option<Bond> {
    secrets.open(Purpose::Marker, text)
}

#[cfg(test)]
mod tests {
    use super::super::digest;
    use super::*;

    fn secrets() -> Secrets {
        Secrets::new([&b"0123456789abcdef0123456789abcdef"[..]]).unwrap()
    }

    fn body(text: &str) -> Digest {
        digest([text.as_bytes()])
    }

    #[test]
    fn a_marker_is_taken_once_for_the_body_that_was_sent() {
        let (secrets, spent) = (secrets(), Spent::default());
        let marker = issue(body("sent"), &secrets, 0).unwrap();
        let check = |text: &str, now| check(marker.as_bytes(), || body(text), &secrets, &spent, now);
        assert_eq!(check("other", 1), Some(Err(Refused::OtherBody)));
        assert_eq!(check("sent", 60_000), Some(Err(Refused::Expired)));
        assert_eq!(check("sent", 59_999), Some(Ok(())));
        assert_eq!(check("sent", 59_999), Some(Err(Refused::Replayed)));
        assert!(is_authentic(marker.as_bytes(), &secrets));
    }

    #[test]
    fn what_we_have_not_made_is_no_marker() {
        let secrets = secrets();
        let marker = issue(body("sent"), &secrets, 0).unwrap();
        let others = Secrets::of_process();
        let unread = || -> Digest { panic!("the body is looked at") };
        assert_eq!(check(marker.as_bytes(), unread, &others, &Spent::default(), 1), None);
        for text in ["", "x.y", &marker[1..], &format!("{marker}A")] {
            assert!(!is_authentic(text.as_bytes(), &secrets), "{text}");
        }
    }
}
