//! Errors as a caller sees them, and what may be told of JSON that is wrong.

use std::borrow::Cow;

use serde_json::error::Category;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

/// What is wrong with a JSON text, without a word of it: the text may be somebody's answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(match error.classify() {
            // Only a value of a wrong type is quoted by serde_json.
            Category::Data => {
                format!("a value of another type at line {} column {}", error.line(), error.column())
            }
            Category::Io | Category::Syntax | Category::Eof => error.to_string(),
        })
    }
}

/// An error in OpenAI's envelope, with the status it goes out with. It is made of safe text only:
/// no hosts, no keys, no model names, nothing of an upstream's 5xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The cause in one word of ours, for records, logs and Envoy's response code details.
    pub label: &'static str,
    /// OpenAI's `code`.
    pub code: Option<Cow<'static, str>>,
    /// The request field at fault.
    pub param: Option<String>,
    /// What went wrong and what would be right.
    pub message: String,
    /// When to come back, in seconds.
    pub retry_after: Option<u64>,
    /// What an official client is told about retrying; none leaves it to its defaults.
    pub should_retry: Option<bool>,
}

impl ApiError {
    /// An error with this status, whose code is its label.
    pub fn new(status: u16, label: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            label,
            code: Some(Cow::Borrowed(label)),
            param: None,
            message: message.into(),
            retry_after: None,
            should_retry: None,
        }
    }

    /// With another `code` than its label.
    #[must_use]
    pub fn code(mut self, code: Option<String>) -> Self {
        self.code = code.map(Cow::Owned);
        self
    }

    /// With this `param`.
    #[must_use]
    pub fn param(mut self, param: &str) -> Self {
        self.param = Some(param.to_owned());
        self
    }

    /// With `retry-after`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds;
        self
    }

    /// With `x-should-retry: false`: members were billed, and official clients would retry twice.
    #[must_use]
    pub fn no_retry(mut self) -> Self {
        self.should_retry = Some(false);
        self
    }

    /// The `type` that OpenAI gives such a status.
    fn kind(&self) -> &'static str {
        match self.status {
            // The one cause that OpenAI gives a type of its own.
            429 if self.label == "insufficient_quota" => self.label,
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The body, with the decision where the caller may see it.
    pub fn to_json(&self, decision: Option<&RawValue>) -> Bytes {
        let error = json!({
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        });
        let decision = decision.map(|d| format!(",\"consort\":{}", d.get())).unwrap_or_default();
        Bytes::from(format!("{{\"error\":{error}{decision}}}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_json_is_told_without_its_text() {
        let told =
            |json: &str| JsonError::from(serde_json::from_str::<Vec<u8>>(json).unwrap_err()).to_string();
        assert_eq!(told("\"SECRET\""), "a value of another type at line 1 column 8");
        assert_eq!(told("[1,"), "EOF while parsing a value at line 1 column 3");
        assert!(!told("[1, SECRET]").contains("SECRET"));
    }
}
