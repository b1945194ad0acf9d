//! The texts of a run, where an operator wants them kept.

use super::{Account, Seat};

impl Account {
    /// Whether texts are to be kept.
    pub fn keeps_texts(&self) -> bool {
        self.max_content_bytes.is_some()
    }

    /// What the caller asked.
    pub fn asked(&mut self, question: &str) {
        self.decision.question = self.cut(question);
    }

    /// What a call said.
    pub fn said(&mut self, seat: Seat, text: &str) {
        let text = self.cut(text);
        if let Some(call) = self.call(seat) {
            call.content = text;
        }
    }

    /// What the caller is told.
    pub fn answered(&mut self, text: &str) {
        self.decision.answer = self.cut(text);
    }

    /// What may be kept of a text.
    fn cut(&self, text: &str) -> Option<String> {
        let most = self.max_content_bytes?;
        text.get(..text.floor_char_boundary(most)).map(str::to_owned)
    }
}
