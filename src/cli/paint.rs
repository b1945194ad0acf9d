//! Colours, where somebody sees them.

use std::borrow::Cow;
use std::io::IsTerminal;

/// Colours text on terminals, unless `NO_COLOR` is set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint {
    is_on: bool,
}

/// Where text of others is shown as it is, unless that is a terminal, which such a text could steer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    is_terminal: bool,
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

    /// The text in the colour for this, and without any of its own.
    pub(super) fn toned(self, text: &str, tone: Tone) -> String {
        let text = plain(text);
        if !self.is_on {
            return text;
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

impl Screen {
    /// For what is written there.
    pub(super) fn on(stream: &impl IsTerminal) -> Self {
        Self { is_terminal: stream.is_terminal() }
    }

    /// The text, without what would steer a terminal where there is one.
    pub(super) fn fit(self, text: &str) -> Cow<'_, str> {
        if !self.is_terminal {
            return text.into();
        }
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect::<String>().into()
    }
}

/// The text without control characters, for a line of its own.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_keep_lines_and_tabs_and_obey_nobody_and_pipes_take_all() {
        let text = "a\n\tb\u{1b}[2J\r\u{9b}c\u{7f}";
        let fit = |is_terminal| Screen { is_terminal }.fit(text).into_owned();
        assert_eq!((&*fit(true), &*fit(false)), ("a\n\tb[2Jc", text));
        assert_eq!(plain(text), "ab[2Jc");
    }

    #[test]
    fn colours_are_for_terminals_of_those_who_want_them() {
        let shown = |is_terminal, is_unwanted| Paint::by(is_terminal, is_unwanted).toned("x", Tone::Bad);
        assert_eq!(shown(true, false), "\u{1b}[31mx\u{1b}[0m");
        for (is_terminal, is_unwanted) in [(true, true), (false, false)] {
            assert_eq!(shown(is_terminal, is_unwanted), "x");
        }
    }
}
