//! Why an answer ended.

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By itself, or at a stop sequence.
    Stop,
    /// At its token limit.
    Length,
    /// A filter took it away, or its prompt.
    Filtered,
    /// It went wrong; the provider's word for how.
    Broken(Box<str>),
}

impl Finish {
    /// What a `finishReason` says; nothing when it leaves it open.
    pub(super) fn of(reason: &str) -> Option<Self> {
        match reason {
            "" | "FINISH_REASON_UNSPECIFIED" => None,
            // FUNCTION_CALL is no word of Google's reference; servers that imitate it say it.
            "STOP" | "FUNCTION_CALL" => Some(Self::Stop),
            "MAX_TOKENS" => Some(Self::Length),
            "SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "MODEL_ARMOR"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION" => Some(Self::Filtered),
            // MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, OTHER and whatever will be added: none of them
            // leaves an answer to rely on.
            broken => Some(Self::Broken(broken.into())),
        }
    }

    /// The `finish_reason` of the choice. One that went wrong keeps the provider's word, in OpenAI's case: it
    /// counts nowhere as an answer, and what it cost is still known.
    pub(super) fn reason(&self, has_calls: bool) -> Box<str> {
        match self {
            Self::Stop if has_calls => "tool_calls".into(),
            Self::Stop => "stop".into(),
            Self::Length => "length".into(),
            Self::Filtered => "content_filter".into(),
            Self::Broken(why) => why.to_ascii_lowercase().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_those_of_chat_completions_and_calls_are_told() {
        for (reason, has_calls, expected) in [
            ("STOP", false, "stop"),
            ("STOP", true, "tool_calls"),
            ("FUNCTION_CALL", true, "tool_calls"),
            ("MAX_TOKENS", true, "length"),
            ("SAFETY", false, "content_filter"),
            ("RECITATION", false, "content_filter"),
            ("LANGUAGE", false, "content_filter"),
            ("BLOCKLIST", false, "content_filter"),
            ("PROHIBITED_CONTENT", false, "content_filter"),
            ("SPII", false, "content_filter"),
            ("MALFORMED_FUNCTION_CALL", false, "malformed_function_call"),
            ("UNEXPECTED_TOOL_CALL", true, "unexpected_tool_call"),
            ("OTHER", false, "other"),
            ("OF_TOMORROW", false, "of_tomorrow"),
        ] {
            assert_eq!(Finish::of(reason).unwrap().reason(has_calls).as_ref(), expected, "{reason}");
        }
        assert_eq!(Finish::of("FINISH_REASON_UNSPECIFIED"), None);
    }
}
