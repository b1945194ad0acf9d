//! Finding `model` in a body that is still arriving.

use memchr::{memchr, memchr2};

/// A key whose value is the model, with every letter escaped: longer keys are others.
const LONGEST_KEY: usize = "model".len() * "\\u006d".len();
/// A longer model name is no alias, however it is escaped.
const LONGEST_MODEL: usize = 4096;

/// Looks for the first top-level `model` of a JSON object, piece by piece.
///
/// It reads no more than it needs: what lies behind the model is not looked at, and what lies
/// before it is only followed, not validated. A byte order mark is passed over, as some parsers do. An alias's body is validated in full once it is
/// complete.
#[derive(Debug, Default)]
pub struct ModelScan {
    state: State,
    /// Open brackets, the object itself included.
    depth: usize,
    /// The key or model being read, without quotes.
    token: Vec<u8>,
}

/// What is known so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    /// The model has not come yet.
    More,
    /// The model, unescaped.
    Model(String),
    /// No model can be read: no JSON object, or a `model` that is no string.
    None,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// Inside a byte order mark, of which so much is still to come.
    Mark(&'static [u8]),
    /// Between members: a key, a comma or the end.
    Members,
    Key {
        escape: bool,
    },
    /// Behind a key: a colon, then a value.
    Value {
        colon: bool,
        model: bool,
    },
    /// Inside the value of `model`.
    Model {
        escape: bool,
    },
    /// Inside a value that is not wanted, outside its strings.
    Skip,
    SkipString {
        escape: bool,
    },
    Over,
}

impl ModelScan {
    /// Reads the next piece. After an answer other than [`Scan::More`] the scan is over.
    pub fn feed(&mut self, mut piece: &[u8]) -> Scan {
        while let Some((&byte, rest)) = piece.split_first() {
            match self.state {
                State::Over => return Scan::None,
                State::Key { escape } | State::Model { escape } => {
                    match self.string(piece, escape) {
                        Some(after) => piece = after,
                        None => return Scan::More,
                    }
                    if let State::Model { .. } = self.state {
                        return self.over(self.model());
                    }
                    let model = self.unescaped().is_some_and(|key| key == "model");
                    self.state = State::Value { colon: false, model };
                    continue;
                }
                State::SkipString { escape } => {
                    match past_string(if escape { rest } else { piece }) {
                        Ok(after) => piece = after,
                        Err(escape) => {
                            self.state = State::SkipString { escape };
                            return Scan::More;
                        }
                    }
                    self.state = if self.depth == 1 { State::Members } else { State::Skip };
                    continue;
                }
                State::Start => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' => {}
                    b'{' => {
                        self.depth = 1;
                        self.state = State::Members;
                    }
                    0xef => self.state = State::Mark(b"\xbb\xbf"),
                    _ => return self.over(Scan::None),
                },
                State::Mark(left) => match left.split_first() {
                    Some((next, [])) if *next == byte => self.state = State::Start,
                    Some((next, left)) if *next == byte => self.state = State::Mark(left),
                    _ => return self.over(Scan::None),
                },
                State::Members => match byte {
                    b' ' | b'\t' | b'\r' | b'\n' | b',' => {}
                    b'"' => self.start(State::Key { escape: false }),
                    _ => return self.over(Scan::None),
                },
                State::Value { colon, model } => match (byte, colon) {
                    (b' ' | b'\t' | b'\r' | b'\n', _) => {}
                    (b':', false) => self.state = State::Value { colon: true, model },
                    (b'"', true) if model => self.start(State::Model { escape: false }),
                    (_, true) if model => return self.over(Scan::None),
                    (b'"', true) => self.start(State::SkipString { escape: false }),
                    (b'{' | b'[', true) => {
                        self.depth += 1;
                        self.state = State::Skip;
                    }
                    (_, true) => self.state = State::Skip,
                    (_, false) => return self.over(Scan::None),
                },
                State::Skip => {
                    piece = self.skip(piece);
                    if self.depth == 0 {
                        return self.over(Scan::None);
                    }
                    continue;
                }
            }
            piece = rest;
        }
        Scan::More
    }

    /// Passes over a value that is not wanted; what lies behind as much of it as is here.
    fn skip<'a>(&mut self, mut piece: &'a [u8]) -> &'a [u8] {
        let is_structural = |byte: &u8| matches!(byte, b'"' | b',' | b'{' | b'}' | b'[' | b']');
        while let Some(at) = piece.iter().position(is_structural) {
            let Some((byte, rest)) = piece.get(at..).and_then(<[u8]>::split_first) else {
                break;
            };
            piece = rest;
            match byte {
                b'"' => match past_string(piece) {
                    // No JSON, and read alike wherever it is cut.
                    Ok(rest) if self.depth == 1 => {
                        self.state = State::Members;
                        return rest;
                    }
                    Ok(rest) => piece = rest,
                    Err(escape) => {
                        self.state = State::SkipString { escape };
                        return &[];
                    }
                },
                b'{' | b'[' => self.depth += 1,
                b',' if self.depth > 1 => {}
                b',' => {
                    self.state = State::Members;
                    return piece;
                }
                _ => {
                    self.depth -= 1;
                    if self.depth <= 1 {
                        self.state = State::Members;
                        return piece;
                    }
                }
            }
        }
        &[]
    }

    /// Reads on in a string; what lies behind its closing quote, when that came.
    fn string<'a>(&mut self, mut piece: &'a [u8], mut escape: bool) -> Option<&'a [u8]> {
        let limit = if let State::Key { .. } = self.state { LONGEST_KEY } else { LONGEST_MODEL };
        loop {
            if escape {
                let (byte, rest) = piece.split_first()?;
                self.take(&[*byte], limit);
                piece = rest;
                self.set_escape(false);
            }
            let Some(at) = memchr2(b'"', b'\\', piece) else {
                self.take(piece, limit);
                return None;
            };
            let (text, from) = piece.split_at(at);
            self.take(text, limit);
            let (byte, rest) = from.split_first()?;
            if *byte == b'"' {
                return Some(rest);
            }
            self.take(b"\\", limit);
            (piece, escape) = (rest, true);
            self.set_escape(true);
        }
    }

    /// Keeps what may still be wanted: one byte past the limit tells that it was too long.
    fn take(&mut self, text: &[u8], limit: usize) {
        let room = (limit + 1).saturating_sub(self.token.len());
        self.token.extend_from_slice(text.get(..room).unwrap_or(text));
    }

    fn set_escape(&mut self, to: bool) {
        if let State::Key { escape } | State::Model { escape } = &mut self.state {
            *escape = to;
        }
    }

    fn start(&mut self, state: State) {
        self.token.clear();
        self.state = state;
    }

    fn model(&self) -> Scan {
        if self.token.len() > LONGEST_MODEL {
            return Scan::None;
        }
        self.unescaped().map_or(Scan::None, Scan::Model)
    }

    fn unescaped(&self) -> Option<String> {
        if memchr(b'\\', &self.token).is_none() {
            return String::from_utf8(self.token.clone()).ok();
        }
        let quoted = [b"\"", &*self.token, b"\""].concat();
        serde_json::from_slice(&quoted).ok()
    }

    fn over(&mut self, scan: Scan) -> Scan {
        self.state = State::Over;
        scan
    }
}

/// What lies behind the closing quote of the string that `piece` is inside of; or, when that has not come, whether the
/// next byte is escaped.
fn past_string(mut piece: &[u8]) -> Result<&[u8], bool> {
    loop {
        let at = end_of_plain(piece).ok_or(false)?;
        match piece.get(at..) {
            Some([b'"', rest @ ..]) => return Ok(rest),
            Some([_, _, rest @ ..]) => piece = rest,
            _ => return Err(true),
        }
    }
}

/// Where the next quote or backslash is. A call of memchr costs as much as looking at some bytes, and most strings and
/// lines of JSON are short.
fn end_of_plain(piece: &[u8]) -> Option<usize> {
    const NEAR: usize = 16;
    let (near, far) = piece.split_at_checked(NEAR).unwrap_or((piece, &[]));
    let at = near.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    at.or_else(|| memchr2(b'"', b'\\', far).map(|at| NEAR + at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Scan {
        ModelScan::default().feed(text.as_bytes())
    }

    fn model(name: &str) -> Scan {
        Scan::Model(name.to_owned())
    }

    #[test]
    fn the_first_top_level_model_is_found() {
        for (text, expected) in [
            (r#"{"model":"a"}"#, model("a")),
            (r#" { "x" : 1 , "model" : "a" "#, model("a")),
            (r#"{"model":"\u0072esearch"}"#, model("research")),
            (r#"{"\u006dodel":"a"}"#, model("a")),
            (r#"{"metadata":{"model":"b"},"model":"a"}"#, model("a")),
            (r#"{"messages":[{"model":"b"},"model",["}"]],"model":"a"}"#, model("a")),
            (r#"{"x":"\"model\":\"b\"","model":"a"}"#, model("a")),
            (r#"{"x":"\\","model":"a"}"#, model("a")),
            (r#"{"model":"a","model":"b"}"#, model("a")),
            (r#"{"n":-1.5e3,"t":true,"z":null,"model":"a"}"#, model("a")),
            (r#"{"model":""}"#, model("")),
            ("\u{feff} {\"model\":\"a\"}", model("a")),
        ] {
            assert_eq!(whole(text), expected, "{text}");
        }
    }

    #[test]
    fn what_names_no_model_is_none_and_what_is_cut_is_more() {
        for text in [
            "[]",
            "x",
            "\u{feff}{}",
            "\u{fefe}{\"model\":\"a\"}",
            "\"model\"",
            "{}",
            r#"{"x":1}"#,
            r#"{"model":1}"#,
            r#"{"model":null}"#,
            r#"{"model":["a"]}"#,
            r#"{"model" "a"}"#,
            r#"{"model":"\ud800"}"#,
        ] {
            assert_eq!(whole(text), Scan::None, "{text}");
        }
        for text in [
            "",
            " ",
            "\u{feff}",
            "{",
            r#"{"mod"#,
            r#"{"model":"a"#,
            r#"{"x":{"model":"a"}"#,
            r#"{"model":"a\"#,
        ] {
            assert_eq!(whole(text), Scan::More, "{text}");
        }
    }

    #[test]
    fn malformed_text_is_read_alike_wherever_it_is_cut() {
        for text in [
            r#"{"x":1"y" "model":"a"}"#,
            r#"{"x":tr"\"ue,"model":"a"}"#,
            r#"{"x":[1}],"model":"a"}"#,
            r#"{"x":]"model":"a"}"#,
            r#"{"x":"\\\"","y":{"\"":"}"},"model":"a"}"#,
            r#"{"long":["a string that is longer than what is looked at byte by byte \" \\"],"model":"a"}"#,
        ] {
            let mut scan = ModelScan::default();
            let pieces = text.as_bytes().chunks(1);
            let cut = pieces.map(|byte| scan.feed(byte)).find(|scan| *scan != Scan::More);
            assert_eq!(cut.unwrap_or(Scan::More), whole(text), "{text}");
        }
    }

    #[test]
    fn a_name_longer_than_any_alias_is_none() {
        assert_eq!(
            whole(&format!("{{\"model\":\"{}\"}}", "a".repeat(LONGEST_MODEL))),
            model(&"a".repeat(LONGEST_MODEL))
        );
        assert_eq!(whole(&format!("{{\"model\":\"{}\"}}", "a".repeat(LONGEST_MODEL + 1))), Scan::None);
        assert_eq!(whole(&format!("{{\"model{}\":\"b\",\"model\":\"a\"}}", "l".repeat(9999))), model("a"));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[a-z\"\\\\{}\\[\\],:é\\n]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec(("(model|[a-c\"\\\\]{0,2})", inner), 0..4)
                    .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever serde_json reads, the scan reads alike, cut anywhere.
        #[test]
        fn it_agrees_with_serde_json_at_any_cut(value in json(), cuts in proptest::collection::vec(0..200usize, 0..4)) {
            let text = value.to_string();
            let expected = match value.get("model").filter(|_| value.is_object()) {
                Some(serde_json::Value::String(name)) => model(name),
                _ => Scan::None,
            };
            let mut scan = ModelScan::default();
            let (mut from, mut result) = (0, Scan::More);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            for cut in cuts {
                if result == Scan::More {
                    result = scan.feed(&text.as_bytes()[from..cut]);
                }
                from = cut;
            }
            // A bare scalar at the top is no object; the scan has said so at its first byte.
            prop_assert_eq!(result, expected);
        }
    }
}
