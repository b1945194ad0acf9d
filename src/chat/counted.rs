//! JSON of which no more is built than is counted: a value takes up to hundreds of times the bytes that say it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How many values may be built of one body; it takes some 50 MiB to hold the worst of them.
pub const MAX_NODES: usize = 1 << 17;

/// How many values may still be built: objects, lists, and what stands in them.
#[derive(Debug)]
pub struct Nodes {
    left: usize,
}

impl Nodes {
    /// So many.
    pub fn up_to(most: usize) -> Self {
        Self { left: most }
    }

    /// The value that `json` is.
    ///
    /// # Errors
    /// When it is none, or deeper than 127; by [`serde_json::Error::is_data`], when it has more values than are left.
    pub fn read(&mut self, json: &str) -> Result<Value, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(json);
        let value = self.deserialize(&mut json)?;
        json.end()?;
        Ok(value)
    }

    /// The fields of the object that `json` is.
    ///
    /// # Errors
    /// As those of [`Nodes::read`], with the name of the field that cannot be read.
    pub fn fields(&mut self, json: &[u8]) -> Result<Map<String, Value>, (String, serde_json::Error)> {
        let mut json = serde_json::Deserializer::from_slice(json);
        let mut at = String::new();
        let read = json.deserialize_map(Fields { nodes: self, at: &mut at });
        read.and_then(|fields| json.end().map(|()| fields)).map_err(|error| (at, error))
    }

    fn take<E: Error>(&mut self) -> Result<(), E> {
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| E::custom("more values than may be read"))?;
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Nodes {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        self.take()?;
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Nodes {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(&mut *self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key()? {
            object.insert(name, members.next_value_seed(&mut *self)?);
        }
        Ok(Value::Object(object))
    }
}

/// Reads an object and remembers how far it came.
struct Fields<'a> {
    nodes: &'a mut Nodes,
    at: &'a mut String,
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.at.clone_from(&name);
            fields.insert(name, members.next_value_seed(&mut *self.nodes)?);
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_many_values_as_are_left_are_read_and_not_one_more() {
        let json = r#"{"a":[1,-2,0.5,"x"],"b":{"c":null,"d":true}}"#;
        let read = |most| Nodes::up_to(most).read(json);
        let expected = json!({"a": [1, -2, 0.5, "x"], "b": {"c": null, "d": true}});
        assert_eq!(read(9).unwrap(), expected);
        assert!(read(8).unwrap_err().is_data());
        let mut nodes = Nodes::up_to(10);
        assert_eq!(nodes.read(json).unwrap(), expected);
        assert!(nodes.read("[]").is_ok() && nodes.read("[]").is_err(), "they are counted together");
        for broken in ["", "[1", "[1] 2", "{\"a\"}"] {
            assert!(!Nodes::up_to(9).read(broken).unwrap_err().is_data(), "{broken}");
        }
        assert!(!Nodes::up_to(999).read(&"[".repeat(200)).unwrap_err().is_data(), "it is too deep");
    }

    #[test]
    fn the_field_that_is_too_much_is_named() {
        let json = br#"{"a":1,"b":[2,3],"c":4}"#;
        assert_eq!(Nodes::up_to(5).fields(json).unwrap().len(), 3);
        for (most, at) in [(0, "a"), (1, "b"), (3, "b"), (4, "c")] {
            let (field, error) = Nodes::up_to(most).fields(json).unwrap_err();
            assert!(field == at && error.is_data(), "{most}: {field} {error}");
        }
        assert!(!Nodes::up_to(9).fields(b"[]").unwrap_err().1.to_string().is_empty());
    }
}
