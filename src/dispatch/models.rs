//! Models in OpenAI's shape, as `GET /v1/models` tells them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{JSON, Whole, fields};
use crate::chat::RawObject;

/// Writes models in OpenAI's shape.
#[derive(Clone, Copy, Debug)]
pub struct Models {
    /// What all of them show as their time of creation, in Unix seconds.
    since: u64,
}

/// What is read of an entry of somebody else's list. One without an id names nothing.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    id: Option<String>,
}

impl Models {
    /// Models that there are from now on.
    pub fn from_now() -> Self {
        Self { since: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()) }
    }

    /// One model.
    pub fn one(self, name: &str, request_id: &str) -> Whole {
        listed(self.entry(name), request_id)
    }

    /// A list of models.
    pub fn list<'a>(self, names: impl IntoIterator<Item = &'a str>, request_id: &str) -> Whole {
        let data: Vec<Value> = names.into_iter().map(|name| self.entry(name)).collect();
        listed(json!({"object": "list", "data": data}), request_id)
    }

    /// Somebody else's list, followed by those of `names` that it has not yet. What it had before keeps its bytes.
    ///
    /// `None` when it is no list of models, or not all of it, or has them all.
    pub fn appended<'a>(self, list: Bytes, names: impl IntoIterator<Item = &'a str>) -> Option<Bytes> {
        let list = RawObject::parse(list).ok()?;
        let is_list =
            list.read("object").is_ok_and(|object: Option<String>| object.as_deref() == Some("list"));
        // The end of the list is on another page.
        let has_more = list.read("has_more").is_ok_and(|more: Option<bool>| more == Some(true));
        if !is_list || has_more {
            return None;
        }
        let there: Vec<Entry> = list.read("data").ok()??;
        let is_there = |name: &str| there.iter().any(|entry| entry.id.as_deref() == Some(name));
        let missing = names.into_iter().filter(|name| !is_there(name));
        let missing: Vec<String> = missing.map(|name| self.entry(name).to_string()).collect();
        if missing.is_empty() {
            return None;
        }
        let missing = missing.join(",");
        let edit = if there.is_empty() {
            list.edit().set("data", format!("[{missing}]"))
        } else {
            list.edit().wrap("data", Bytes::new(), missing.into())
        };
        Some(edit.body().to_bytes())
    }

    fn entry(self, name: &str) -> Value {
        json!({"id": name, "object": "model", "created": self.since, "owned_by": "consort"})
    }
}

fn listed(json: Value, request_id: &str) -> Whole {
    Whole {
        status: 200,
        fields: fields(JSON, None, request_id),
        body: json.to_string().into(),
        label: "listed",
        summary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: Models = Models { since: 7 };

    fn appended(list: &str) -> Option<String> {
        let list = MODELS.appended(Bytes::from(list.to_owned()), ["team", "crew"])?;
        Some(String::from_utf8(list.to_vec()).unwrap())
    }

    fn ours(name: &str) -> String {
        format!(r#"{{"id":"{name}","object":"model","created":7,"owned_by":"consort"}}"#)
    }

    #[test]
    fn a_list_keeps_its_bytes_and_gets_what_it_has_not() {
        let (team, crew) = (ours("team"), ours("crew"));
        let theirs = r#"{ "id" : "gpt",  "created":1.50, "x": "é\u00e9" }"#;
        for (list, expected) in [
            (r#"{"object":"list","data":[]}"#, format!(r#"{{"object":"list","data":[{team},{crew}]}}"#)),
            (
                &*format!("{{\n \"data\" : [ {theirs} , 7.0e1 ],\n\"object\":\"list\", \"more\": [1] }}\n"),
                String::new(),
            ),
            (
                &*format!("{{\n \"data\" : [ {theirs} ],\n\"object\":\"list\", \"more\": [1] }}\n"),
                format!(
                    "{{\n \"data\" : [ {theirs} ,{team},{crew}],\n\"object\":\"list\", \"more\": [1] }}\n"
                ),
            ),
            (
                r#"{"object":"list","data":[{"id":"te\u0061m","mine":true},{"no":"id"},{"id":null}],"has_more":false}"#,
                format!(
                    r#"{{"object":"list","data":[{{"id":"te\u0061m","mine":true}},{{"no":"id"}},{{"id":null}},{crew}],"has_more":false}}"#
                ),
            ),
        ] {
            assert_eq!(appended(list).unwrap_or_default(), expected, "{list}");
        }
    }

    #[test]
    fn what_is_no_whole_list_of_models_stays() {
        for list in [
            "",
            "[]",
            "no JSON",
            r#"{"object":"list","data":[]"#,
            r#"{"object":"list"}"#,
            r#"{"object":"list","data":{}}"#,
            r#"{"object":"list","data":null}"#,
            r#"{"object":"page","data":[]}"#,
            r#"{"data":[]}"#,
            r#"{"object":"list","data":[],"data":[]}"#,
            r#"{"object":"list","data":[],"has_more":true}"#,
            r#"{"object":"list","data":[{"id":"team"},{"id":"crew"}]}"#,
        ] {
            assert_eq!(appended(list), None, "{list}");
        }
    }
}
