use proptest::prelude::*;

use super::*;

fn object(text: &str) -> RawObject {
    RawObject::parse(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn text(edit: Edit<'_>) -> String {
    String::from_utf8(edit.body().to_bytes().to_vec()).unwrap()
}

#[test]
fn an_untouched_object_is_one_slice_of_the_same_bytes() {
    let o = object(" { \"a\" : 0.70 , \"b\":[1, 2 ]} ");
    let body = o.edit().body();
    assert_eq!(body.chunks().len(), 1);
    assert_eq!(body.to_bytes(), o.bytes());
}

#[test]
fn a_set_member_keeps_its_place_and_its_neighbours_their_bytes() {
    let o = object("{\"t\":0.70,\"model\" : \"a\" ,\"big\":12345678901234567890123}");
    assert_eq!(
        text(o.edit().set("model", "\"b\"")),
        "{\"t\":0.70,\"model\" : \"b\" ,\"big\":12345678901234567890123}"
    );
}

#[test]
fn removing_leaves_valid_json_wherever_the_member_was() {
    let o = object("{ \"a\":1, \"b\":2, \"c\":3 }");
    assert_eq!(text(o.edit().remove("a")), "{\"b\":2, \"c\":3 }");
    assert_eq!(text(o.edit().remove("b")), "{ \"a\":1, \"c\":3 }");
    assert_eq!(text(o.edit().remove("c")), "{ \"a\":1, \"b\":2 }");
    assert_eq!(text(o.edit().remove("a").remove("b")), "{\"c\":3 }");
    assert_eq!(text(o.edit().remove("a").remove("b").remove("c")), "{ }");
    assert_eq!(text(o.edit().remove("a").remove("b").remove("c").set("d", "4")), "{\"d\":4 }");
}

#[test]
fn an_escaped_key_is_found_by_its_name() {
    let o = object("{\"\\u006dodel\":\"x\"}");
    assert_eq!(o.raw("model"), Some("\"x\""));
    assert_eq!(text(o.edit().set("model", "1")), "{\"\\u006dodel\":1}");
}

#[test]
fn a_renamed_member_keeps_its_bytes_and_yields_to_one_that_has_the_name() {
    let o = object("{\"a\": 1e2 ,\"b\":2}");
    assert_eq!(text(o.edit().rename("a", "c")), "{\"b\":2,\"c\":1e2}");
    assert_eq!(text(o.edit().rename("a", "b")), "{\"b\":2}");
    assert_eq!(text(o.edit().remove("b").rename("a", "b")), "{\"b\":1e2}");
    assert_eq!(text(o.edit().set("a", "3").rename("a", "c")), "{\"b\":2,\"c\":3}");
    assert_eq!(text(o.edit().set("x", "3").rename("x", "y")), "{\"a\": 1e2 ,\"b\":2,\"y\":3}");
    assert_eq!(text(o.edit().remove("a").rename("a", "c")), "{\"b\":2}");
    assert_eq!(text(o.edit().rename("x", "y").rename("a", "a")), "{\"a\": 1e2 ,\"b\":2}");
    let nothing = || Bytes::new();
    assert_eq!(
        text(o.edit().wrap("c", nothing(), nothing()).rename("a", "c")),
        "{\"b\":2,\"c\":1e2}",
        "it is not there"
    );
}

#[test]
fn as_many_members_as_the_bound_are_read_and_one_more_is_refused() {
    let of = |count: usize| {
        let members: Vec<String> = (0..count).map(|i| format!("\"k{i}\":{i}")).collect();
        RawObject::parse(Bytes::from(format!("{{{}}}", members.join(","))))
    };
    assert!(of(MAX_MEMBERS).is_ok());
    assert!(matches!(of(MAX_MEMBERS + 1), Err(ObjectError::TooMany)));
    assert!(matches!(of(MAX_MEMBERS + 9), Err(ObjectError::TooMany)));
}

#[test]
fn items_are_put_around_those_of_an_array() {
    let o = object("{\"m\":[ {\"x\":1} ],\"e\":[ ]}");
    let (b, a) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    assert_eq!(text(o.edit().wrap("m", b.clone(), a.clone())), "{\"m\":[1, {\"x\":1} ,2],\"e\":[ ]}");
    let renamed = o.edit().wrap("m", b.clone(), a.clone()).rename("m", "n");
    assert_eq!(text(renamed), "{\"e\":[ ],\"n\":[1, {\"x\":1} ,2]}", "they go with it");
    assert_eq!(text(o.edit().wrap("m", Bytes::new(), a.clone())), "{\"m\":[ {\"x\":1} ,2],\"e\":[ ]}");
    assert_eq!(text(o.edit().wrap("e", b, a)), "{\"m\":[ {\"x\":1} ],\"e\":[ ]}");
}

#[test]
fn what_serde_json_refuses_is_refused() {
    for bad in ["", "[]", "{} x", "{\"a\":01}", "{\"a\"}", "\"x\"", "{\"a\":1,}", "{\"\\ud800\":1}"] {
        assert!(RawObject::parse(Bytes::from(bad)).is_err(), "{bad}");
    }
    assert!(RawObject::parse(Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
    let twice = RawObject::parse(Bytes::from_static(b"{\"a\":1,\"\\u0061\":2}"));
    assert!(matches!(twice, Err(ObjectError::Duplicate(key)) if &*key == "a"));
}

proptest! {
    /// An edit of the bytes is the same edit of the parsed value.
    #[test]
    fn edits_agree_with_serde_json(
        keys in proptest::collection::btree_set("[a-f\"\\\\é]{0,3}", 0..6),
        spaces in "[ \n\t]{0,2}",
        removed in "[a-f]{0,3}",
        set in "[a-f]{0,3}",
    ) {
        let members: Vec<String> = keys
            .iter()
            .enumerate()
            .map(|(i, k)| format!("{spaces}{}{spaces}:{spaces}{i}{spaces}", serde_json::Value::from(&**k)))
            .collect();
        let source = format!("{spaces}{{{spaces}{}{spaces}}}{spaces}", members.join(","));
        let edited = text(object(&source).edit().remove(&*removed).set(&*set, "[true]"));
        let mut expected: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&source).unwrap();
        expected.shift_remove(&removed);
        expected.insert(set, serde_json::json!([true]));
        let edited: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&edited).unwrap();
        prop_assert_eq!(edited, expected);
    }
}
