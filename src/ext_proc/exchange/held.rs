//! What has come of a body.

/// The pieces of a body that is held back. A single piece is not copied.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: Vec<Vec<u8>>,
    len: usize,
}

impl Held {
    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.len += piece.len();
        self.pieces.push(piece);
    }

    /// How many bytes have come.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn into_pieces(self) -> Vec<Vec<u8>> {
        self.pieces
    }

    pub(super) fn into_body(self) -> Vec<u8> {
        match <[Vec<u8>; 1]>::try_from(self.pieces) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat(),
        }
    }
}
