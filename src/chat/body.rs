//! A body made of shared slices.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Frame, SizeHint};

/// Slices shorter than this, in bytes, go out together: each would be a frame of its own over HTTP/2, and peers end
/// connections on which many small frames wait.
const SHORT: usize = 4 << 10;
/// So much goes out together at the most: what a frame of HTTP/2 holds unless a peer allows more.
const FRAME: usize = 16 << 10;

/// A body made of shared slices: a clone copies no bytes, so every member of a panel, and every
/// attempt, sends the caller's own.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Body {
    /// The body that these slices are, in order.
    pub fn from_chunks(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        let chunks: VecDeque<Bytes> = chunks.into_iter().filter(|c| !c.is_empty()).collect();
        let len = chunks.iter().map(Bytes::len).sum();
        Self { chunks, len }
    }

    /// How many bytes are left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices that are left.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &Bytes> {
        self.chunks.iter()
    }

    /// All of it, copied only where it is several slices.
    pub fn into_bytes(mut self) -> Bytes {
        match self.chunks.pop_front() {
            Some(only) if self.chunks.is_empty() => only,
            Some(first) => {
                self.chunks.push_front(first);
                self.to_bytes()
            }
            None => Bytes::new(),
        }
    }

    /// What goes out next: a slice as it is, or short ones as one.
    fn next(&mut self) -> Option<Bytes> {
        let first = self.chunks.pop_front()?;
        let mut together = first.len();
        let fits = |chunk: &&Bytes| {
            together += chunk.len();
            chunk.len() < SHORT && together <= FRAME
        };
        let more = if first.len() < SHORT { self.chunks.iter().take_while(fits).count() } else { 0 };
        if more == 0 {
            return Some(first);
        }
        let all: Vec<Bytes> = std::iter::once(first).chain(self.chunks.drain(..more)).collect();
        Some(all.concat().into())
    }

    /// One copy of it all.
    pub fn to_bytes(&self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len);
        self.chunks.iter().for_each(|c| all.put_slice(c));
        all.freeze()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let chunk = self.next();
        self.len -= chunk.as_ref().map_or(0, Bytes::len);
        Poll::Ready(chunk.map(|c| Ok(Frame::data(c))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len as u64)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn short_slices_go_out_together_and_long_ones_as_they_are() {
        let of = |len: usize| Bytes::from(vec![b'x'; len]);
        let long = of(SHORT);
        let mut body = Body::from_chunks(
            [1, 2, 3].map(of).into_iter().chain([long.clone()]).chain(std::iter::repeat_n(of(SHORT - 1), 5)),
        );
        let mut sent = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            sent.push(frame.into_data().unwrap());
            assert_eq!(body.len(), body.chunks().map(Bytes::len).sum::<usize>());
        }
        assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [6, SHORT, 4 * (SHORT - 1), SHORT - 1]);
        assert_eq!(sent[1].as_ptr(), long.as_ptr(), "shared");
        assert!(body.is_empty());
    }
}
