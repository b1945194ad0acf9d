//! The end of a service: nobody who was heard is let down.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch::Sender;
use tracing::{info, warn};

use super::Error;
use super::current::Current;
use super::grpc::Health;
use crate::config::Config;
use crate::http::admin::Readiness;
use crate::telemetry::{Decisions, Traces};

/// How long a drain waits for runs without a bound of their own.
const LONGEST: Duration = Duration::from_secs(60);

/// How long the last decisions may take to be written, and the last spans to be exported.
const WRITING: Duration = Duration::from_secs(5);

/// What a drain takes away, in the order of its fields.
pub(super) struct Drain {
    pub(super) readiness: Arc<Readiness>,
    pub(super) health: Health,
    pub(super) stop: Sender<()>,
    pub(super) current: Current,
    pub(super) decisions: Decisions,
    pub(super) traces: Traces,
}

impl Drain {
    /// Withdraws readiness, goes on for as long as others need to see that, then takes nothing new and lets what
    /// runs finish.
    pub(super) async fn run(
        mut self,
        config: &Config,
        mut serving: Pin<&mut impl Future<Output = Result<(), Error>>>,
    ) -> Result<(), Error> {
        let (delay, limit) =
            (config.drain.delay, config.drain.timeout.unwrap_or_else(|| longest_run(config)));
        info!(delay_s = delay.as_secs_f64(), limit_s = limit.as_secs_f64(), "draining");
        self.readiness.draining();
        self.health.withdraw().await;
        tokio::select! {
            ended = &mut serving => return ended,
            () = tokio::time::sleep(delay) => {}
        }
        drop(self.stop);
        self.health.end().await;
        self.current.end_background().await;
        match tokio::time::timeout(limit, serving).await {
            Ok(ended) => ended?,
            Err(_elapsed) => warn!("some runs were still going on at the end of the drain"),
        }
        self.current.end_limits().await;
        self.decisions.close(WRITING).await;
        self.traces.shutdown(WRITING).await;
        info!("stopped");
        Ok(())
    }
}

/// The longest that a run may take by its own bounds.
fn longest_run(config: &Config) -> Duration {
    config.snapshot.ensembles().map(|e| e.longest_run().unwrap_or(LONGEST)).max().unwrap_or(LONGEST)
}
