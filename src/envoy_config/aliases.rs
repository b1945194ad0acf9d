//! Which models Envoy takes for Consort's, at the gate before it and at the fence behind it.

use serde::ser::{Serialize, Serializer};

use crate::chat::quoted;

/// The names of Consort's that Envoy is to know by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aliases {
    names: Vec<String>,
    prefix: Option<String>,
}

/// Nothing is Consort's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the configuration has no ensemble, so a gate would keep everything from Consort")]
pub struct NoAliases;

impl Aliases {
    /// These aliases. Those that begin with the prefix are known by it, and so is what will begin with it later.
    ///
    /// # Errors
    /// When there is nothing that Consort would be asked about.
    pub fn new(aliases: impl IntoIterator<Item = String>, prefix: Option<String>) -> Result<Self, NoAliases> {
        let is_known = |name: &String| prefix.as_ref().is_some_and(|prefix| name.starts_with(&**prefix));
        let mut names: Vec<String> = aliases.into_iter().filter(|name| !is_known(name)).collect();
        names.sort_unstable();
        if names.is_empty() && prefix.is_none() {
            return Err(NoAliases);
        }
        Ok(Self { names, prefix })
    }
}

/// As Envoy's `StringMatcher`s, in YAML's flow style.
impl Serialize for Aliases {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let exact = self.names.iter().map(|name| format!("{{exact: {}}}", quoted(name)));
        let prefix = self.prefix.iter().map(|prefix| format!("{{prefix: {}}}", quoted(prefix)));
        serializer.collect_seq(exact.chain(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matchers(aliases: &[&str], prefix: Option<&str>) -> Result<String, NoAliases> {
        let aliases = Aliases::new(aliases.iter().map(|&name| name.to_owned()), prefix.map(str::to_owned))?;
        Ok(serde_json::to_string(&aliases).unwrap())
    }

    #[test]
    fn each_alias_is_known_by_its_name_or_by_its_prefix() {
        let told = |text: &str| Ok(text.to_owned());
        assert_eq!(matchers(&["b", "a"], None), told(r#"["{exact: \"a\"}","{exact: \"b\"}"]"#));
        assert_eq!(matchers(&["e/a", "b"], Some("e/")), told(r#"["{exact: \"b\"}","{prefix: \"e/\"}"]"#));
        assert_eq!(matchers(&["e/a"], Some("e/")), told(r#"["{prefix: \"e/\"}"]"#));
        assert_eq!(matchers(&["\"} é\n"], None), told(r#"["{exact: \"\\\"} é\\n\"}"]"#));
        assert_eq!(matchers(&[], None), Err(NoAliases));
    }
}
