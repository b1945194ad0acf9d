//! Asking a running Envoy.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Envoy's admin interface is on the same machine, or near; a large configuration takes a second to print.
const PATIENCE: Duration = Duration::from_secs(30);
/// Larger dumps are no single Envoy's.
const LARGEST: usize = 256 << 20;

/// An Envoy that does not tell.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address of an admin interface.
    #[error("--doctor wants the URL of Envoy's admin interface, as http://127.0.0.1:9901, not {0:?}")]
    Url(String),
    /// Nobody answers there.
    #[error("no Envoy can be asked at {url}")]
    Unreachable {
        /// What was asked for.
        url: Uri,
        /// Why there was no answer.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It answers late.
    #[error("{url} has not answered within {} s", PATIENCE.as_secs())]
    Late {
        /// What was asked for.
        url: Uri,
    },
    /// Somebody else answers, or Envoy will not.
    #[error("{url} answers {status}: is this the admin interface of an Envoy?")]
    Status {
        /// What was asked for.
        url: Uri,
        /// The status of the answer.
        status: u16,
    },
    /// What was answered is no dump.
    #[error("{url} answers something that is no config_dump")]
    NoDump {
        /// What was asked for.
        url: Uri,
    },
}

/// Asks the admin interface at `base` (`http://host:port`) for its `/config_dump`.
///
/// # Errors
/// When there is no dump to be had from there.
pub async fn fetch(base: &str) -> Result<Value, FetchError> {
    let url = config_dump(base).ok_or_else(|| FetchError::Url(base.to_owned()))?;
    let answered = tokio::time::timeout(PATIENCE, get(url.clone())).await;
    let (status, body) = answered
        .map_err(|_| FetchError::Late { url: url.clone() })?
        .map_err(|source| FetchError::Unreachable { url: url.clone(), source })?;
    if status != 200 {
        return Err(FetchError::Status { url, status });
    }
    let dump = serde_json::from_slice::<Value>(&body).ok().filter(|dump| dump["configs"].is_array());
    dump.ok_or(FetchError::NoDump { url })
}

fn config_dump(base: &str) -> Option<Uri> {
    let base = base.trim_end_matches('/');
    let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
    let url: Uri = format!("{base}/config_dump?include_eds").parse().ok()?;
    let has_host = url.host().is_some_and(|host| !host.is_empty());
    // `unix:/x` would be a host of that name without a port.
    let has_port = url.authority().is_some_and(|authority| !authority.as_str().ends_with(':'));
    (url.scheme_str() == Some("http") && has_host && has_port).then_some(url)
}

async fn get(url: Uri) -> Result<(u16, Bytes), Box<dyn Error + Send + Sync>> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let response = client.get(url).await?;
    let status = response.status().as_u16();
    Ok((status, Limited::new(response.into_body(), LARGEST).collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_interface_is_named_with_or_without_a_scheme() {
        let url = |base| config_dump(base).map(|url| url.to_string());
        let expected = Some("http://127.0.0.1:9901/config_dump?include_eds".to_owned());
        for base in ["http://127.0.0.1:9901", "http://127.0.0.1:9901/", "127.0.0.1:9901"] {
            assert_eq!(url(base), expected, "{base}");
        }
        for base in ["", "https://h:1", "unix:/x", "http://"] {
            assert_eq!(url(base), None, "{base}");
        }
    }
}
