//! Static API keys, known by their digests.

use std::fmt;
use std::sync::Arc;

use axum::http::HeaderValue;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The keys that open the door. Only their digests are known here.
#[derive(Clone, Debug, Default)]
pub struct Keys(Arc<[Key]>);

/// A key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// What logs call it.
    pub name: Arc<str>,
    /// The SHA-256 digest of its text.
    pub digest: [u8; 32],
}

impl FromIterator<Key> for Keys {
    fn from_iter<T: IntoIterator<Item = Key>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl Keys {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// The key with this text. Every digest is compared in full: how long that takes tells nothing of any.
    pub(super) fn find(&self, text: &[u8]) -> Option<&Key> {
        let digest = Sha256::digest(text);
        self.0.iter().fold(None, |found, key| {
            let is_equal = bool::from(key.digest.ct_eq(&digest));
            if is_equal { Some(key) } else { found }
        })
    }
}

/// Without the digest: a short key could be guessed from it.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The token of a bearer's `authorization`.
pub(super) fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_text_alone() {
        let key = |name: &str, text: &str| Key { name: name.into(), digest: Sha256::digest(text).into() };
        let keys: Keys = [key("a", "sk-one"), key("b", "sk-two")].into_iter().collect();
        let found = |text: &str| keys.find(text.as_bytes()).map(|key| &*key.name);
        assert_eq!([found("sk-one"), found("sk-two")], [Some("a"), Some("b")]);
        assert_eq!([found(""), found("sk-on"), found("sk-one "), found("a")], [None; 4]);
        assert_eq!(format!("{keys:?}").matches("digest").count(), 0);
    }

    #[test]
    fn a_bearers_token_is_read_in_any_case_of_its_scheme() {
        let token =
            |text| bearer(&HeaderValue::from_static(text)).map(|t| String::from_utf8_lossy(t).into_owned());
        assert_eq!(token("Bearer sk").as_deref(), Some("sk"));
        assert_eq!(token("bearer  sk").as_deref(), Some("sk"));
        for none in ["Basic sk", "Bearer", "Bearer ", "sk", ""] {
            assert_eq!(token(none), None, "{none}");
        }
    }
}
