//! The gRPC service that tells of runs.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

use crate::telemetry::decision::decision_log_server::DecisionLog;
use crate::telemetry::decision::{Outcome, WatchRequest, WatchResponse, watch_response};
use crate::telemetry::{Decisions, Told, Wanted};

pub use crate::telemetry::decision::decision_log_server::DecisionLogServer;

/// How many may follow at once. Each may be a connection of its own, and as many again are left for probes.
const MOST: usize = 256;
/// What one more is told.
pub(super) const TOO_MANY: &str = "too many follow the decisions already";

/// The places of those who follow decisions, however they do.
#[derive(Clone, Debug)]
pub struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST)))
    }
}

impl Streams {
    /// A place, until it is dropped; none where all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// The service over these decisions.
pub fn decision_log(decisions: Decisions, streams: Streams) -> DecisionLogServer<Log> {
    DecisionLogServer::new(Log { decisions, streams })
}

/// Tells of runs.
#[derive(Clone, Debug)]
pub struct Log {
    pub(super) decisions: Decisions,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl DecisionLog for Log {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { alias, since, include_running, .. } = request.get_ref().clone();
        let outcome = match Outcome::try_from(request.get_ref().outcome) {
            Ok(Outcome::Unspecified) => None,
            Ok(outcome) => Some(outcome),
            Err(_) => return Err(Status::invalid_argument("outcome: no outcome has this number")),
        };
        let alias = Some(alias).filter(|alias| !alias.is_empty());
        let place = self.streams.place().ok_or_else(|| Status::resource_exhausted(TOO_MANY))?;
        let watch = self.decisions.watch(Wanted { alias, outcome, running: include_running }, since);
        let told = stream::unfold((watch, place), async |(mut watch, place)| {
            Some((Ok(response(watch.next().await?)), (watch, place)))
        });
        Ok(Response::new(Box::pin(told)))
    }
}

fn response(told: Told) -> WatchResponse {
    let told = match told {
        Told::Decision(decision) => watch_response::Told::Decision((*decision).clone()),
        Told::Missed(count) => watch_response::Told::Missed(count),
    };
    WatchResponse { told: Some(told) }
}
