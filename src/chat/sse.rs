//! Server-sent events (WHATWG HTML, section 9.2), as far as chat completions use them.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// The data of the event that ends a stream of chunks.
pub const DONE: &[u8] = b"[DONE]";

/// Cuts a stream of bytes into the data of its events, whatever the boundaries of its pieces.
///
/// Lines may end in LF, CR or CRLF; comments and fields other than `data` are passed over; the
/// lines of one event's data are joined by LF. An event that the stream's end cuts off is dropped,
/// as the standard has it, unless [`Decoder::finish`] is asked for it.
#[derive(Debug)]
pub struct Decoder {
    /// The line being read.
    line: BytesMut,
    /// The data of the event being read; none before its first `data` line.
    data: Option<BytesMut>,
    ready: VecDeque<Bytes>,
    /// The last piece ended in CR: an LF at the start of the next one belongs to it.
    after_cr: bool,
    started: bool,
    max_event_bytes: usize,
}

/// An event is larger than the decoder may hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a server-sent event of more than {max_event_bytes} bytes")]
pub struct TooLong {
    max_event_bytes: usize,
}

impl Decoder {
    /// A decoder that holds at most `max_event_bytes` of one event or line.
    pub fn new(max_event_bytes: usize) -> Self {
        Self {
            line: BytesMut::new(),
            data: None,
            ready: VecDeque::new(),
            after_cr: false,
            started: false,
            max_event_bytes,
        }
    }

    /// Reads a piece of the stream.
    ///
    /// # Errors
    /// When an event or a line is too long; the decoder is then of no further use.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), TooLong> {
        if std::mem::take(&mut self.after_cr) {
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = memchr::memchr2(b'\n', b'\r', piece) {
            let (text, from) = piece.split_at(end);
            self.extend(text)?;
            self.end_line()?;
            piece = match from {
                [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, rest @ ..] => rest,
                [] => from,
            };
        }
        self.extend(piece)
    }

    /// The data of the next complete event.
    pub fn next_event(&mut self) -> Option<Bytes> {
        self.ready.pop_front()
    }

    /// The stream has ended: the data of an event that lacked only its closing blank line, as
    /// providers that end abruptly send it.
    ///
    /// # Errors
    /// When that event is too long.
    pub fn finish(mut self) -> Result<Option<Bytes>, TooLong> {
        if !self.line.is_empty() {
            self.end_line()?;
        }
        Ok(self.data.map(BytesMut::freeze))
    }

    fn extend(&mut self, text: &[u8]) -> Result<(), TooLong> {
        let held = self.line.len() + self.data.as_ref().map_or(0, BytesMut::len);
        if held + text.len() > self.max_event_bytes {
            return Err(TooLong { max_event_bytes: self.max_event_bytes });
        }
        self.line.extend_from_slice(text);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), TooLong> {
        let mut line = self.line.split();
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            let _bom = line.split_to(3);
        }
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                self.ready.push_back(data.freeze());
            }
            return Ok(());
        }
        let Some(value) = line.strip_prefix(b"data") else {
            return Ok(());
        };
        let value = match value {
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            [] => value,
            // A field whose name only begins like ours.
            _ => return Ok(()),
        };
        match &mut self.data {
            Some(data) => {
                data.extend_from_slice(b"\n");
                data.extend_from_slice(value);
            }
            None => {
                let from = line.len() - value.len();
                let _name = line.split_to(from);
                self.data = Some(line);
            }
        }
        Ok(())
    }
}

/// One event with this data, which must hold no line break.
pub fn encode(data: &[u8]) -> Bytes {
    let mut event = BytesMut::with_capacity(data.len() + 8);
    event.extend_from_slice(b"data: ");
    event.extend_from_slice(data);
    event.extend_from_slice(b"\n\n");
    event.freeze()
}

/// A comment: clients ignore it, idle timers do not.
pub const HEARTBEAT: Bytes = Bytes::from_static(b": waiting\n\n");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> (Vec<String>, Option<String>) {
        let text = |b: Bytes| String::from_utf8(b.to_vec()).unwrap();
        let mut decoder = Decoder::new(1 << 20);
        let mut events = Vec::new();
        for piece in pieces {
            decoder.feed(piece).unwrap();
            while let Some(event) = decoder.next_event() {
                events.push(text(event));
            }
        }
        (events, decoder.finish().unwrap().map(text))
    }

    #[test]
    fn the_standard_is_followed() {
        for (stream, events, rest) in [
            ("data: a\n\ndata: b\n\n", vec!["a", "b"], None),
            ("data: a\r\n\r\ndata: b\r\n\r\n", vec!["a", "b"], None),
            ("data: a\r\rdata: b\r\r", vec!["a", "b"], None),
            ("\u{feff}data:a\n\n", vec!["a"], None),
            (": hi\n\nevent: x\nid: 1\ndata: a\n\n", vec!["a"], None),
            ("data: a\ndata: b\n\n", vec!["a\nb"], None),
            ("data\n\n", vec![""], None),
            ("data:\n\n", vec![""], None),
            ("data:  two spaces\n\n", vec![" two spaces"], None),
            ("database: x\n\n", vec![], None),
            ("\n\n\ndata: a\n\n\n\n", vec!["a"], None),
            ("data: a\n\ndata: b", vec!["a"], Some("b")),
            ("data: a\n\ndata: b\n", vec!["a"], Some("b")),
        ] {
            let (got, last) = decode(&[stream.as_bytes()]);
            assert_eq!(
                (got, last.as_deref()),
                (events.into_iter().map(str::to_owned).collect(), rest),
                "{stream:?}"
            );
        }
    }

    #[test]
    fn an_event_of_the_bound_passes_and_one_past_it_does_not() {
        let mut decoder = Decoder::new(10);
        decoder.feed(b"data: 1234\n\n").unwrap();
        assert_eq!(decoder.next_event().unwrap(), "1234");
        assert_eq!(decoder.feed(b"data: 12345"), Err(TooLong { max_event_bytes: 10 }));
        let mut many = Decoder::new(16);
        many.feed(b"data: 123\n").unwrap();
        assert!(many.feed(b"data: 12345678\n").is_err());
    }

    proptest! {
        #[test]
        fn the_boundaries_of_pieces_change_nothing(
            lines in proptest::collection::vec("(data: ?|: |event:)?[a-zé]{0,3}(\r\n|\n|\r)(\r\n|\n|\r)?", 0..8),
            cuts in proptest::collection::vec(0..64usize, 0..5),
        ) {
            let stream = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|w| &stream[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&pieces), decode(&[&stream]));
        }
    }
}
