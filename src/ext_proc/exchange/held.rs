//! What is held back of a body.

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

    /// Takes a piece of what may yet go on as it came.
    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.count(&piece);
        self.pieces.push(piece);
    }

    /// Makes one piece of them all, with room for a body of `expected` bytes: a large one is not to be there twice when
    /// it is complete.
    pub(super) fn gather(&mut self, expected: usize) {
        let mut whole = Vec::with_capacity(expected.max(self.len));
        self.pieces.drain(..).for_each(|piece| whole.extend_from_slice(&piece));
        self.pieces.push(whole);
    }

    /// Adds to the last piece.
    pub(super) fn append(&mut self, piece: Vec<u8>) {
        match self.pieces.last_mut() {
            Some(last) => {
                last.extend_from_slice(&piece);
                self.count(&piece);
            }
            None => self.push(piece),
        }
    }

    fn count(&mut self, piece: &[u8]) {
        self.len += piece.len();
        self.share.take(piece.len());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Room;

    #[test]
    fn a_body_whose_length_is_told_is_gathered_in_one_place() {
        let mut held = Held::new(Room::default().share());
        held.push(b"{\"model\":".to_vec());
        held.push(b"\"team\"".to_vec());
        held.gather(64);
        let place = held.pieces[0].as_ptr();
        held.append(b",\"x\":1".to_vec());
        held.append(b"}".to_vec());
        assert_eq!(held.len, 22);
        let body = held.body();
        assert_eq!((&*body, body.as_ptr()), (&br#"{"model":"team","x":1}"#[..], place));
    }
}
