//! Errors as a caller sees them.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::json;

/// An error in OpenAI's envelope, with the status it goes out with. It is made of safe text only:
/// no hosts, no keys, no model names, nothing of an upstream's 5xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
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
    /// An error with this status, of the type that OpenAI gives such a status.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let kind = match status {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        Self {
            status,
            kind,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            should_retry: None,
        }
    }

    /// A 400.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// With this `code`.
    #[must_use]
    pub fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
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

    /// The body.
    pub fn to_json(&self) -> Bytes {
        let body = json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }});
        Bytes::from(body.to_string())
    }
}
