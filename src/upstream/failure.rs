//! Why a call gave no answer.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use crate::limits::Cooldown;
use crate::telemetry::chain;

/// Why a call gave no answer. What a provider said stays in here: a caller is told only what
/// `ensemble` makes of it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection: refused, unreachable, name not found, TLS.
    #[error("no connection")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// One of the bounds on its time ran out.
    #[error("timed out")]
    Timeout,
    /// A status other than 2xx.
    #[error("status {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The error that came with it, when it had OpenAI's shape.
        error: Option<ProviderError>,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The connection broke in mid-answer.
    #[error("connection broken")]
    Broken(#[source] Box<dyn Error + Send + Sync>),
    /// More than the bound on a response.
    #[error("response larger than {max_bytes} bytes")]
    TooLarge {
        /// The bound.
        max_bytes: usize,
    },
    /// Not what the provider's format says.
    #[error("unreadable response")]
    Unreadable(#[source] Box<dyn Error + Send + Sync>),
    /// A stream that ended before its message had.
    #[error("stream cut off")]
    Incomplete,
    /// A stream that its provider ended with an error.
    #[error("error event in the stream")]
    ErrorEvent,
    /// The model was not called: it is over its limit.
    #[error("over its limit")]
    Limited {
        /// When there may be room, at the soonest.
        retry_after: Duration,
    },
    /// The model was not called: nobody knows whether it is over its limit.
    #[error("limits are not available")]
    Undecided,
    /// The model was not called: it cools down after others' failures.
    #[error("cooling down")]
    Cooling {
        /// When it may be called again, at the soonest.
        retry_after: Duration,
    },
}

/// An error in OpenAI's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ProviderError {
    /// What went wrong.
    #[serde(default)]
    pub message: String,
    /// The request field at fault.
    #[serde(default)]
    pub param: Option<String>,
    /// A machine-readable cause; numbers are read as none.
    #[serde(default, deserialize_with = "text_or_none")]
    pub code: Option<String>,
}

fn text_or_none<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(value.as_str().map(str::to_owned))
}

impl Failure {
    /// The cause in one word, for records and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Status { status, .. } => match status.as_u16() {
                400 | 422 => "bad_request",
                401 | 403 => "auth",
                429 => "rate_limited",
                500.. => "server_error",
                _ => "status",
            },
            Self::Broken(_) => "broken",
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable(_) => "unreadable",
            Self::Incomplete => "incomplete",
            Self::ErrorEvent => "error_event",
            Self::Limited { .. } => "limited",
            Self::Undecided => "limits_unavailable",
            Self::Cooling { .. } => "cooling",
        }
    }

    /// Whether the same call may well succeed when it is made again. A timeout is none of these: its caller has
    /// waited long enough, and its provider may still be at work on what it will bill.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Broken(_) | Self::Incomplete | Self::ErrorEvent => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 408 | 409 | 429 | 500..),
            Self::Timeout
            | Self::TooLarge { .. }
            | Self::Unreadable(_)
            | Self::Limited { .. }
            | Self::Undecided
            | Self::Cooling { .. } => false,
        }
    }

    /// Whether it says that the model is not well, by what counts for this model. An answer that is too large or
    /// cannot be read may be the request's doing.
    pub fn is_the_models(&self, cooldown: &Cooldown) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Broken(_) | Self::Incomplete | Self::ErrorEvent => true,
            Self::Status { status, .. } => cooldown.statuses.contains(&status.as_u16()),
            Self::TooLarge { .. }
            | Self::Unreadable(_)
            | Self::Limited { .. }
            | Self::Undecided
            | Self::Cooling { .. } => false,
        }
    }

    /// When to come back, where that was said.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            Self::Limited { retry_after } | Self::Cooling { retry_after } => Some(*retry_after),
            _ => None,
        }
    }

    /// The status, when the provider gave one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The cause and its sources, for an operator's log.
    pub fn chain(&self) -> String {
        chain(self)
    }
}
