//! Pieces that are there together go out together: each message costs Envoy about the same, however long it is.

use std::mem;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::dispatch::Reply;

/// How many replies are taken at once, when so many are there.
const MOST: usize = 64;
/// From this length on, in bytes, a piece is worth a message of its own.
const LONG: usize = 16 << 10;

/// The same replies, with pieces joined that nobody has to wait for.
pub(super) fn joined(replies: impl Stream<Item = Reply>) -> impl Stream<Item = Reply> {
    replies.ready_chunks(MOST).flat_map(|ready| stream::iter(join(ready)))
}

fn join(ready: Vec<Reply>) -> Vec<Reply> {
    let mut joined = Vec::with_capacity(ready.len().min(4));
    let mut pieces = Pieces::default();
    for reply in ready {
        match reply {
            Reply::Piece(piece) => {
                pieces.push(piece);
                if pieces.len >= LONG {
                    joined.push(Reply::Piece(pieces.take()));
                }
            }
            Reply::End(piece, summary) => {
                pieces.push(piece);
                joined.push(Reply::End(pieces.take(), summary));
            }
            other => {
                joined.extend(pieces.rest().map(Reply::Piece));
                joined.push(other);
            }
        }
    }
    joined.extend(pieces.rest().map(Reply::Piece));
    joined
}

#[derive(Default)]
struct Pieces {
    pieces: Vec<Bytes>,
    len: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// All of them, when there are any.
    fn rest(&mut self) -> Option<Bytes> {
        (!self.pieces.is_empty()).then(|| self.take())
    }

    /// All of them as one; a single one is not copied.
    fn take(&mut self) -> Bytes {
        let Self { pieces, len } = mem::take(self);
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([piece]) => piece,
            Err(pieces) => {
                let mut all = BytesMut::with_capacity(len);
                pieces.iter().for_each(|piece| all.extend_from_slice(piece));
                all.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    fn told(reply: Option<Reply>) -> String {
        match reply {
            Some(Reply::Head(_)) => "head".to_owned(),
            Some(Reply::Piece(piece)) => String::from_utf8_lossy(&piece).into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_there_goes_out_at_once_and_together() {
        let (say, heard) = mpsc::unbounded_channel();
        let mut replies = Box::pin(joined(UnboundedReceiverStream::new(heard)));
        let piece = |text: &'static str| say.send(Reply::Piece(Bytes::from_static(text.as_bytes()))).unwrap();
        piece("a");
        assert_eq!(told(replies.next().await), "a");
        assert!(replies.next().now_or_never().is_none());
        say.send(Reply::Head(Vec::new())).unwrap();
        piece("b");
        piece("c");
        assert_eq!([told(replies.next().await), told(replies.next().await)], ["head", "bc"]);
        piece("d");
        say.send(Reply::Head(Vec::new())).unwrap();
        assert_eq!([told(replies.next().await), told(replies.next().await)], ["d", "head"]);
        drop(say);
        assert!(replies.next().await.is_none());
    }

    #[test]
    fn long_pieces_are_not_joined() {
        let long = Bytes::from(vec![b'x'; LONG]);
        let of = |len: usize| Reply::Piece(long.slice(..len));
        let joined = join(vec![of(1), of(LONG - 1), of(LONG), of(2), of(3)]);
        let lengths: Vec<usize> = joined
            .iter()
            .map(|reply| match reply {
                Reply::Piece(piece) => piece.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [LONG, LONG, 5]);
    }
}
