//! What a refusal says: `google.rpc.Status`, as JSON.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::super::super::ProviderError;
use super::super::Refusal;

#[derive(Deserialize)]
struct Envelope {
    error: Status,
}

/// Some of Google's front ends put the envelope into an array.
#[derive(Deserialize)]
#[serde(untagged)]
enum Wire {
    // First, because serde takes a list for an object's fields in order, too.
    Listed([Envelope; 1]),
    Plain(Envelope),
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    details: Vec<Detail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    /// Of a `google.rpc.ErrorInfo`.
    #[serde(default)]
    reason: Option<String>,
    /// Of a `google.rpc.RetryInfo`: seconds with an `s` behind them.
    #[serde(default)]
    retry_delay: Option<String>,
}

/// Reads the body that came with a status.
pub(in super::super) fn refusal(status: StatusCode, body: &[u8]) -> Refusal {
    let said = match serde_json::from_slice(body) {
        Ok(Wire::Plain(Envelope { error }) | Wire::Listed([Envelope { error }])) => error,
        Err(_) => return Refusal { status, error: None, retry_after: None },
    };
    Refusal {
        status: at_fault(status, said.status.as_deref(), &said.details),
        retry_after: said.details.iter().find_map(|d| seconds(d.retry_delay.as_deref()?)),
        error: Some(ProviderError { message: said.message, param: None, code: said.status }),
    }
}

/// A wrong key, and a project that may not call, come with a 400, which elsewhere is the caller's fault.
fn at_fault(status: StatusCode, code: Option<&str>, details: &[Detail]) -> StatusCode {
    let has_wrong_key = details.iter().any(|d| d.reason.as_deref() == Some("API_KEY_INVALID"));
    match code {
        _ if status != StatusCode::BAD_REQUEST => status,
        _ if has_wrong_key => StatusCode::UNAUTHORIZED,
        Some("FAILED_PRECONDITION") => StatusCode::FORBIDDEN,
        _ => status,
    }
}

/// A `google.protobuf.Duration`.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(status: u16, body: &Value) -> Refusal {
        refusal(StatusCode::from_u16(status).unwrap(), body.to_string().as_bytes())
    }

    fn info(reason: &str) -> Value {
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}])
    }

    #[test]
    fn the_status_tells_whose_fault_it_is() {
        for (status, code, details, expected) in [
            (400, "INVALID_ARGUMENT", json!([]), 400),
            (400, "INVALID_ARGUMENT", info("API_KEY_INVALID"), 401),
            (400, "FAILED_PRECONDITION", json!([]), 403),
            (403, "PERMISSION_DENIED", info("SERVICE_DISABLED"), 403),
            (404, "NOT_FOUND", json!([]), 404),
            (429, "RESOURCE_EXHAUSTED", json!([]), 429),
            (503, "UNAVAILABLE", info("API_KEY_INVALID"), 503),
        ] {
            let body =
                json!({"error": {"code": status, "message": "why", "status": code, "details": details}});
            let read_plain = read(status, &body);
            assert_eq!(read_plain.status, expected, "{body}");
            let error = ProviderError { message: "why".into(), param: None, code: Some(code.into()) };
            assert_eq!(read_plain.error, Some(error));
            assert_eq!(read(status, &json!([body])), read_plain);
        }
    }

    #[test]
    fn the_time_to_come_back_is_in_the_body() {
        for (delay, expected) in [
            (json!("34.5s"), Some(Duration::from_millis(34_500))),
            (json!("0s"), Some(Duration::ZERO)),
            (json!("-1s"), None),
            (json!("1e400s"), None),
            (json!("soon"), None),
            (Value::Null, None),
        ] {
            let details = json!([{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": []},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]);
            let body = json!({"error": {"status": "RESOURCE_EXHAUSTED", "details": details}});
            assert_eq!(read(429, &body).retry_after, expected, "{delay}");
        }
    }

    #[test]
    fn what_is_no_error_keeps_its_status() {
        for body in [json!(null), json!("x"), json!([]), json!({"error": "x"}), json!({"message": "x"})] {
            let status = StatusCode::BAD_GATEWAY;
            assert_eq!(read(502, &body), Refusal { status, error: None, retry_after: None }, "{body}");
        }
    }
}
