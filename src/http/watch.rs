//! The gRPC service that tells of runs.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use crate::telemetry::decision::decision_log_server::DecisionLog;
use crate::telemetry::decision::{Outcome, WatchRequest, WatchResponse, watch_response};
use crate::telemetry::{Decisions, Told, Wanted};

pub use crate::telemetry::decision::decision_log_server::DecisionLogServer;

/// The service over these decisions.
pub fn decision_log(decisions: Decisions) -> DecisionLogServer<Log> {
    DecisionLogServer::new(Log(decisions))
}

/// Tells of runs.
#[derive(Clone, Debug)]
pub struct Log(Decisions);

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
        let watch = self.0.watch(Wanted { alias, outcome, running: include_running }, since);
        let told = stream::unfold(watch, async |mut watch| Some((Ok(response(watch.next().await?)), watch)));
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
