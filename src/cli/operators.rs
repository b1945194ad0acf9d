//! The admin listener of another Consort, as commands ask it.

use clap::Args;
use http::Uri;
use tonic::transport::{Channel, Endpoint};

use super::Result;

/// Which Consort is asked.
#[derive(Debug, Args)]
pub(super) struct Operators {
    /// The admin listener of that Consort: `host:port`, or `unix:/path`.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    pub(super) admin: String,
}

impl Operators {
    /// A connection to it.
    pub(super) async fn connect(&self) -> Result<Channel> {
        let connected = self.endpoint()?.connect().await;
        Ok(connected.map_err(|error| Unreachable { admin: self.admin.clone(), error })?)
    }

    /// Where to ask. A socket has no name that the other Consort would know itself by.
    fn endpoint(&self) -> Result<Endpoint> {
        if self.admin.starts_with("unix:") {
            let endpoint = Endpoint::from_shared(self.admin.clone())?;
            return Ok(endpoint.origin(Uri::from_static("http://localhost")));
        }
        Ok(Endpoint::from_shared(format!("http://{}", self.admin))?)
    }
}

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error("no Consort can be asked at {admin} (--admin)")]
struct Unreachable {
    admin: String,
    #[source]
    error: tonic::transport::Error,
}
