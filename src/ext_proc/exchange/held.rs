//! What is held back of a body.

/// The pieces of a body that is held back. A single piece is not copied.
#[derive(Debug, Default)]
pub(super) struct Held {
    pieces: Vec<Vec<u8>>,
    len: usize,
}

impl Held {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes a piece of what may yet go on as it came.
    pub(super) fn push(&mut self, piece: Vec<u8>) {
        self.len += piece.len();
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
                self.len += piece.len();
                last.extend_from_slice(&piece);
            }
            None => self.push(piece),
        }
    }

    /// The pieces as they came.
    pub(super) fn into_pieces(self) -> Vec<Vec<u8>> {
        self.pieces
    }

    /// The body.
    pub(super) fn into_body(self) -> Vec<u8> {
        match <[Vec<u8>; 1]>::try_from(self.pieces) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_whose_length_is_told_is_gathered_in_one_place() {
        let mut held = Held::default();
        held.push(b"{\"model\":".to_vec());
        held.push(b"\"team\"".to_vec());
        held.gather(64);
        let place = held.pieces[0].as_ptr();
        held.append(b",\"x\":1".to_vec());
        held.append(b"}".to_vec());
        assert_eq!(held.len(), 22);
        let body = held.into_body();
        assert_eq!((&*body, body.as_ptr()), (&br#"{"model":"team","x":1}"#[..], place));
    }
}
