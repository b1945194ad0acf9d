//! What ties a signed word to one request.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{Millis, Refused, Spent};

/// The SHA-256 digest of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// The digest of a body that is in these pieces, of which none is copied.
pub fn digest<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = Context::new(&SHA256);
    pieces.into_iter().for_each(|piece| context.update(piece));
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Digest(bytes)
}

/// One request: this body, until then, once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bond {
    /// What no other has, in hexadecimal.
    #[serde(rename = "n")]
    nonce: String,
    #[serde(rename = "e")]
    expires: Millis,
    #[serde(rename = "b")]
    body: String,
}

impl Bond {
    pub(super) fn new(body: Digest, now: Millis, ttl: Duration) -> Self {
        Self {
            nonce: format!("{:032x}", rand::random::<u128>()),
            expires: now.saturating_add(millis(ttl)),
            body: body.text(),
        }
    }

    pub(super) fn is_fresh(&self, now: Millis) -> Result<(), Refused> {
        if now < self.expires { Ok(()) } else { Err(Refused::Expired) }
    }

    /// Whether it is fresh, and was made to hold for no longer than `ttl`. The clock of who made it may be ahead of
    /// ours by as much.
    pub(super) fn is_held_to(&self, ttl: Duration, now: Millis) -> Result<(), Refused> {
        self.is_fresh(now)?;
        let latest = now.saturating_add(millis(ttl).saturating_mul(2));
        if self.expires <= latest { Ok(()) } else { Err(Refused::Ahead) }
    }

    /// Takes it for a request with this body.
    pub(super) fn redeem(&self, body: Digest, spent: &Spent, now: Millis) -> Result<(), Refused> {
        self.is_fresh(now)?;
        if self.body != body.text() {
            return Err(Refused::OtherBody);
        }
        let nonce = u128::from_str_radix(&self.nonce, 16).map_err(|_| Refused::Forged)?;
        spent.spend(nonce, self.expires, now)
    }
}

fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

impl Digest {
    fn text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_one_digest_however_it_is_cut() {
        let whole = digest([&b"abc"[..]]);
        assert_eq!(whole, digest([&b"a"[..], b"", b"bc"]));
        assert_eq!(whole.text(), "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0", "SHA-256 of FIPS 180");
        assert_ne!(whole, digest([]));
    }
}
