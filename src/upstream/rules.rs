//! What an operator changes of every request that a direct model is sent.

use bytes::Bytes;

use crate::chat::Edit;

/// Changes to every request that a direct model is sent, whoever asks it and whatever for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Fields that go by another name there: the name here, the name there. Where a request has both, the one
    /// that already has the right name counts.
    pub rename: Vec<(String, String)>,
    /// Fields that are not sent, by their name there.
    pub drop: Vec<String>,
    /// Fields that are always sent like this, as JSON.
    pub set: Vec<(String, Bytes)>,
    /// What becomes of a field that the model's wire format cannot carry.
    pub unsupported: Unsupported,
}

/// What becomes of a request's field that a wire format cannot carry, where that changes what is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unsupported {
    /// The call fails with a 400 that names it, without having been made.
    #[default]
    Reject,
    /// It is left out.
    Drop,
}

impl Rules {
    /// The request under these rules.
    pub fn apply<'a>(&'a self, edit: Edit<'a>) -> Edit<'a> {
        let renamed = self.rename.iter().fold(edit, |edit, (from, to)| edit.rename(from, to));
        let dropped = self.drop.iter().fold(renamed, |edit, name| edit.remove(&**name));
        self.set.iter().fold(dropped, |edit, (name, json)| edit.set(&**name, json.clone()))
    }

    /// What a field is called there.
    pub fn name_of<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::RawObject;

    fn applied(rules: &Rules, object: &'static str) -> String {
        let object = RawObject::parse(Bytes::from_static(object.as_bytes())).unwrap();
        String::from_utf8(rules.apply(object.edit()).body().to_bytes().to_vec()).unwrap()
    }

    #[test]
    fn fields_are_renamed_dropped_and_set_and_what_is_left_keeps_its_bytes() {
        let rules = Rules {
            rename: vec![("max_tokens".into(), "max_completion_tokens".into())],
            drop: vec!["seed".into()],
            set: vec![("tier".into(), "\"flex\"".into()), ("seedling".into(), "1".into())],
            ..Rules::default()
        };
        assert_eq!(
            applied(&rules, r#"{"t":0.70,"max_tokens": 1e2 ,"seed":7,"tier":"auto"}"#),
            r#"{"t":0.70,"tier":"flex","max_completion_tokens":1e2,"seedling":1}"#
        );
        assert_eq!(
            applied(&rules, r#"{"max_tokens":1,"max_completion_tokens":2}"#),
            r#"{"max_completion_tokens":2,"tier":"flex","seedling":1}"#
        );
        assert_eq!(rules.name_of("max_tokens"), "max_completion_tokens");
        assert_eq!(rules.name_of("seed"), "seed");
    }

    #[test]
    fn a_field_that_comes_by_its_new_name_can_be_dropped() {
        let rules =
            Rules { rename: vec![("a".into(), "b".into())], drop: vec!["b".into()], ..Rules::default() };
        assert_eq!(applied(&rules, r#"{"a":1,"c":2}"#), r#"{"c":2}"#);
    }
}
