//! `consort health`: whether a running Consort is ready, for containers without a shell.

use std::future::poll_fn;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::{Request, StatusCode};
use tonic::body::Body;
use tonic::codegen::Service;

use super::Result;
use super::operators::Operators;

/// Containers' own checks give up after 30 s; an answer that takes a tenth of that is none.
const PATIENCE: Duration = Duration::from_secs(3);

/// Ask a running Consort whether it is ready, and exit with 0 if so, else with 1.
#[derive(Debug, Args)]
pub(super) struct Health {
    #[command(flatten)]
    operators: Operators,
}

impl Health {
    /// Prints `ready`. Whoever is not ready is an error that says why.
    pub(super) async fn run(self) -> Result<ExitCode> {
        let admin = &self.operators.admin;
        let asked = tokio::time::timeout(PATIENCE, self.asked()).await;
        match asked.map_err(|_| Silent { admin: admin.clone() })?? {
            StatusCode::OK => writeln!(io::stdout(), "ready")?,
            StatusCode::SERVICE_UNAVAILABLE => return Err(Draining { admin: admin.clone() }.into()),
            status => return Err(Other { admin: admin.clone(), status }.into()),
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn asked(&self) -> Result<StatusCode> {
        let mut channel = self.operators.connect().await?;
        // The path alone: a channel knows its origin.
        let request = Request::get("/readyz").body(Body::empty())?;
        poll_fn(|context| channel.poll_ready(context)).await?;
        Ok(channel.call(request).await?.status())
    }
}

/// Something listens there, and says nothing.
#[derive(Debug, thiserror::Error)]
#[error("the Consort at {admin} has not answered within 3 s")]
struct Silent {
    admin: String,
}

/// It is about to end.
#[derive(Debug, thiserror::Error)]
#[error("the Consort at {admin} is draining")]
struct Draining {
    admin: String,
}

/// It is no Consort, or none of this version.
#[derive(Debug, thiserror::Error)]
#[error("/readyz at {admin} answers with {status}")]
struct Other {
    admin: String,
    status: StatusCode,
}
