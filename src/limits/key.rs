//! Whose use is counted.

use std::fmt::Write as _;
use std::sync::Arc;

use http::HeaderName;
use sha2::{Digest, Sha256};

/// What tells callers of an alias apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeySource {
    /// Nothing: all of them share an alias's limits.
    #[default]
    Global,
    /// A request header.
    Header(HeaderName),
    /// A value in Envoy's dynamic metadata.
    Metadata {
        /// The filter's namespace.
        namespace: String,
        /// The keys that lead to the value from there; never empty.
        path: Vec<String>,
    },
}

/// One caller's key: a digest, since what it is made of may be a credential or a person's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallerKey(Arc<str>);

/// How many bytes of a digest are a key: enough that nobody finds another one's by trying.
const KEY_BYTES: usize = 16;

impl CallerKey {
    /// The key of the caller who sent this value.
    pub fn of(value: &[u8]) -> Self {
        let mut key = String::with_capacity(2 * KEY_BYTES);
        for byte in Sha256::digest(value).iter().take(KEY_BYTES) {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        Self(key.into())
    }

    /// The one key of all callers who sent none.
    pub fn anonymous() -> Self {
        Self("anonymous".into())
    }

    /// The one key of all callers that come when a process can keep no further ones apart.
    pub(super) fn others() -> Self {
        Self("others".into())
    }

    /// The key that [is this text](Self::as_str).
    pub fn written(key: &str) -> Self {
        Self(key.into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whose use of a name is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    /// The alias or the direct model.
    pub(super) name: Arc<str>,
    /// The caller; none where all share.
    pub(super) caller: Option<CallerKey>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_digest_of_what_was_sent() {
        let key = CallerKey::of(b"sk-secret");
        assert_eq!(key, CallerKey::of(b"sk-secret"));
        assert_ne!(key, CallerKey::of(b"sk-secret "));
        assert_eq!(CallerKey::of(b"abc").as_str(), "ba7816bf8f01cfea414140de5dae2223", "SHA-256 of FIPS 180");
    }
}
