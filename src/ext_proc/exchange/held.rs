//! What has come of a body.

use crate::chat::ApiError;
use crate::dispatch::too_large;
use crate::ensemble::RunError;
use crate::limits::Share;

/// The pieces of a body that is held back. A single piece is not copied.
#[derive(Debug)]
pub(super) struct Held {
    pieces: Vec<Vec<u8>>,
    len: usize,
    share: Share,
}

impl Held {
    pub(super) fn new(share: Share) -> Self {
        Self { pieces: Vec::new(), len: 0, share }
    }

    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.len += piece.len();
        self.share.take(piece.len());
        self.pieces.push(piece);
    }

    /// Why it cannot be held: it is larger than this, or others leave it no room.
    pub(super) fn refusal(&self, max_bytes: usize) -> Option<ApiError> {
        if self.len > max_bytes {
            return Some(too_large(max_bytes));
        }
        self.share.is_short().then(|| ApiError::from(&RunError::Overloaded))
    }

    /// The pieces, which are held no longer.
    pub(super) fn release(&mut self) -> Vec<Vec<u8>> {
        self.share.give_back();
        std::mem::take(&mut self.pieces)
    }

    /// The whole, which counts until the exchange is over: its run holds it.
    pub(super) fn body(&mut self) -> Vec<u8> {
        match <[Vec<u8>; 1]>::try_from(std::mem::take(&mut self.pieces)) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat(),
        }
    }
}
