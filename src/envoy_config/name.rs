//! Names in Kubernetes.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A name that is a DNS label (RFC 1123), and so stands in YAML and in JSONPath as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DnsLabel(String);

/// Not a DNS label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a DNS label: 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end")]
pub struct DnsLabelError;

impl FromStr for DnsLabel {
    type Err = DnsLabelError;

    fn from_str(text: &str) -> Result<Self, DnsLabelError> {
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_label = (1..=63).contains(&text.len())
            && text.chars().all(is_allowed)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if is_label { Ok(Self(text.to_owned())) } else { Err(DnsLabelError) }
    }
}

impl fmt::Display for DnsLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        let longest = "a".repeat(63);
        for text in ["a", "0", "team-a", &longest] {
            assert_eq!(text.parse::<DnsLabel>().map(|name| name.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "a\nb", "é", "a')]", &format!("{longest}a")] {
            assert_eq!(text.parse::<DnsLabel>(), Err(DnsLabelError), "{text}");
        }
    }
}
