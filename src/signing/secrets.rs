//! The secrets that Consort signs with.

use std::fmt;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{HMAC_SHA256, Key, sign, verify};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a secret is at least, in bytes: as long as what it makes.
pub const MIN_SECRET_BYTES: usize = 32;

/// Longer texts are none of ours, in bytes: nothing is computed over what anybody may send.
const MAX_TEXT: usize = 4096;

/// What a signature is for: one made for the one is none for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Ticket,
    Marker,
}

/// The secrets that Consort signs with: the first one signs, all of them are known.
#[derive(Clone)]
pub struct Secrets(Arc<[Key]>);

impl Secrets {
    /// These secrets; none where there is none.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let keys: Arc<[Key]> = secrets.into_iter().map(|secret| Key::new(HMAC_SHA256, secret)).collect();
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// A secret that this process has made up, and nobody else knows.
    pub fn of_process() -> Self {
        static SECRET: OnceLock<[u8; MIN_SECRET_BYTES]> = OnceLock::new();
        let secret = SECRET.get_or_init(rand::random);
        Self(Arc::new([Key::new(HMAC_SHA256, secret)]))
    }

    /// The word as text that may stand in a header.
    pub(super) fn seal(&self, purpose: Purpose, word: &impl Serialize) -> Option<String> {
        let word = URL_SAFE_NO_PAD.encode(serde_json::to_vec(word).ok()?);
        let signature = sign(self.0.first()?, signed(purpose, &word).as_bytes());
        Some(format!("{word}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The word that somebody with one of the secrets has sealed for this purpose.
    pub(super) fn open<W: DeserializeOwned>(&self, purpose: Purpose, text: &[u8]) -> Option<W> {
        let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= MAX_TEXT)?;
        let (word, signature) = text.split_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let signed = signed(purpose, word);
        let is_ours = self.0.iter().any(|key| verify(key, signed.as_bytes(), &signature).is_ok());
        let word = is_ours.then(|| URL_SAFE_NO_PAD.decode(word))?.ok()?;
        serde_json::from_slice(&word).ok()
    }
}

fn signed(purpose: Purpose, word: &str) -> String {
    let purpose = match purpose {
        Purpose::Ticket => "consort ticket",
        Purpose::Marker => "consort marker",
    };
    format!("{purpose} {word}")
}

/// Without the secrets.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NEW: &[u8] = b"fedcba9876543210fedcba9876543210";

    fn secrets(secrets: &[&'static [u8]]) -> Secrets {
        Secrets::new(secrets.iter().copied()).unwrap()
    }

    #[test]
    fn the_first_secret_signs_and_all_are_known() {
        let open = |known: &[&'static [u8]], text: &str| {
            secrets(known).open::<String>(Purpose::Ticket, text.as_bytes())
        };
        let by_old = secrets(&[OLD]).seal(Purpose::Ticket, &"word").unwrap();
        let by_both = secrets(&[NEW, OLD]).seal(Purpose::Ticket, &"word").unwrap();
        assert_eq!(open(&[NEW, OLD], &by_old).as_deref(), Some("word"));
        assert_eq!(open(&[NEW], &by_both).as_deref(), Some("word"));
        assert_eq!((open(&[NEW], &by_old), open(&[OLD], &by_both)), (None, None));
        assert!(Secrets::new([]).is_none());
    }

    #[test]
    fn what_is_not_sealed_for_this_is_nothing() {
        let ours = secrets(&[OLD]);
        let sealed = ours.seal(Purpose::Ticket, &"word").unwrap();
        let open = |purpose, text: &[u8]| ours.open::<String>(purpose, text);
        assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic()), "{sealed}");
        assert_eq!(open(Purpose::Ticket, sealed.as_bytes()).as_deref(), Some("word"));
        assert_eq!(open(Purpose::Marker, sealed.as_bytes()), None);
        assert_eq!(ours.open::<u32>(Purpose::Ticket, sealed.as_bytes()), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(open(Purpose::Ticket, &changed), None, "at {at}");
        }
        let (word, signature) = sealed.split_once('.').unwrap();
        for text in
            [word, signature, "", ".", &format!("{word}."), &format!(".{signature}"), &"a".repeat(9999)]
        {
            assert_eq!(open(Purpose::Ticket, text.as_bytes()), None, "{text}");
        }
        assert_eq!(open(Purpose::Ticket, &[0xff, b'.']), None);
    }

    #[test]
    fn a_process_makes_up_one_secret_and_shows_none() {
        let sealed = Secrets::of_process().seal(Purpose::Marker, &7).unwrap();
        assert_eq!(Secrets::of_process().open(Purpose::Marker, sealed.as_bytes()), Some(7));
        assert_eq!(secrets(&[OLD]).open::<u32>(Purpose::Marker, sealed.as_bytes()), None);
        assert_eq!(format!("{:?}", secrets(&[OLD, NEW])), "2 secrets");
    }
}
