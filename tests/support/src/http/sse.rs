//! Server-sent events, as a caller reads them.

use std::time::Instant;

use serde_json::Value;

/// One block of an event stream, up to its blank line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When its last byte came.
    pub at: Instant,
    /// The `event:` field.
    pub event: Option<String>,
    /// The `data:` lines, joined by line feeds; `None` when it held only comments.
    pub data: Option<String>,
    /// The comment lines, without their colon: heartbeats.
    pub comments: Vec<String>,
}

impl Event {
    /// The data as JSON.
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_default();
        serde_json::from_str(data).unwrap_or_else(|error| panic!("{error} in an event: {data}"))
    }

    /// Whether it is the `[DONE]` that ends a completion.
    pub fn is_done(&self) -> bool {
        self.data.as_deref() == Some("[DONE]")
    }
}

/// Splits an event stream that comes in pieces (WHATWG HTML, section 9.2.6: LF, CR and CRLF all end a line).
#[derive(Debug, Default)]
pub struct SseReader {
    line: Vec<u8>,
    after_cr: bool,
    event: Option<String>,
    data: Option<String>,
    comments: Vec<String>,
}

impl SseReader {
    /// Takes a piece that came `at` a time; returns the events it completed.
    pub fn push(&mut self, piece: &[u8], at: Instant) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line(at)),
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_line(&mut self, at: Instant) -> Option<Event> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("SSE is UTF-8");
        if line.is_empty() {
            let event = self.event.take();
            let data = self.data.take();
            let comments = std::mem::take(&mut self.comments);
            let said = event.is_some() || data.is_some() || !comments.is_empty();
            return said.then_some(Event { at, event, data, comments });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments.push(value.to_owned()),
            "event" => self.event = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

/// The events of a whole body.
pub fn sse_events(body: &[u8]) -> Vec<Event> {
    SseReader::default().push(body, Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_split_alike_whatever_the_pieces_and_line_ends() {
        let texts = [
            ": hb\n\ndata: {\"a\":1}\n\ndata: x\ndata: y\n\nevent: e\ndata: [DONE]\n\n",
            ": hb\r\n\r\ndata: {\"a\":1}\r\n\r\ndata: x\r\ndata: y\r\n\r\nevent: e\r\ndata: [DONE]\r\n\r\n",
            ": hb\r\rdata: {\"a\":1}\r\rdata: x\rdata: y\r\revent: e\rdata: [DONE]\r\r",
        ];
        let at = Instant::now();
        for text in texts {
            for size in 1..=text.len() {
                let mut reader = SseReader::default();
                let pieces = text.as_bytes().chunks(size);
                let events: Vec<Event> = pieces.flat_map(|piece| reader.push(piece, at)).collect();
                assert_eq!(events.len(), 4, "{events:?}");
                assert_eq!(events[0].comments, ["hb"]);
                assert_eq!(events[0].data, None);
                assert_eq!(events[1].json(), serde_json::json!({"a": 1}));
                assert_eq!(events[2].data.as_deref(), Some("x\ny"));
                assert!(events[3].is_done() && events[3].event.as_deref() == Some("e"));
            }
        }
    }
}
