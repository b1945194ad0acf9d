//! Colours, where somebody sees them.

use std::io::IsTerminal;

/// Colours text on terminals, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    is_on: bool,
}

/// What a colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// An answer, and not as it should be.
    Doubtful,
    /// A failure.
    Bad,
    /// Of no consequence.
    Quiet,
}

impl Paint {
    /// For what is written there.
    pub(super) fn on(stream: &impl IsTerminal) -> Self {
        Self::by(stream.is_terminal(), std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()))
    }

    fn by(is_terminal: bool, is_unwanted: bool) -> Self {
        Self { is_on: is_terminal && !is_unwanted }
    }

    /// The text in the colour for this.
    pub(super) fn toned(self, text: &str, tone: Tone) -> String {
        if !self.is_on {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Doubtful => 33,
            Tone::Bad => 31,
            Tone::Quiet => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        let shown = |is_terminal, is_unwanted| Paint::by(is_terminal, is_unwanted).toned("x", Tone::Bad);
        assert_eq!(shown(true, false), "\u{1b}[31mx\u{1b}[0m");
        for (is_terminal, is_unwanted) in [(true, true), (false, false)] {
            assert_eq!(shown(is_terminal, is_unwanted), "x");
        }
    }
}
