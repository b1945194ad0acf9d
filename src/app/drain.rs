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
use crate::limits::Admission;
use crate::telemetry::{Decisions, Traces};

/// How long runs that are cut may take to leave their records: those whose caller hears of it, and then those whose
/// caller takes nothing more, which end with their connections.
const CUTTING: Duration = Duration::from_secs(1);

/// How long the last decisions may take to be written, and the last spans to be exported.
const WRITING: Duration = Duration::from_secs(5);

/// What a drain takes away, in the order of its fields.
pub(super) struct Drain {
    pub(super) readiness: Arc<Readiness>,
    pub(super) health: Health,
    pub(super) stop: Sender<()>,
    pub(super) current: Current,
    pub(super) admission: Admission,
    pub(super) decisions: Decisions,
    pub(super) traces: Traces,
}

impl Drain {
    /// Withdraws readiness, goes on for as long as others need to see that, then takes nothing new and lets what
    /// runs finish.
    pub(super) async fn run(
        mut self,
        config: &Config,
        mut serving: Pin<Box<impl Future<Output = Result<(), Error>>>>,
    ) -> Result<(), Error> {
        let (delay, limit) = (config.drain.delay, config.drain.timeout.unwrap_or(self.current.longest_run()));
        info!(delay_s = delay.as_secs_f64(), limit_s = limit.as_secs_f64(), "draining");
        self.readiness.draining();
        self.current.door().draining();
        self.health.withdraw().await;
        tokio::select! {
            ended = &mut serving => return ended,
            () = tokio::time::sleep(delay) => {}
        }
        drop(self.stop);
        self.health.end().await;
        self.current.end_background().await;
        let over = Self::last_runs(&self.admission, limit, serving).await;
        self.current.end_limits().await;
        self.decisions.close(WRITING).await;
        self.traces.shutdown(WRITING).await;
        info!("stopped");
        over
    }

    /// Lets the last runs finish, wherever they came in, and ends those that take longer.
    async fn last_runs(
        admission: &Admission,
        limit: Duration,
        serving: Pin<Box<impl Future<Output = Result<(), Error>>>>,
    ) -> Result<(), Error> {
        let mut ending = Box::pin(async {
            let over = serving.await;
            admission.idle().await;
            over
        });
        if let Ok(over) = tokio::time::timeout(limit, &mut ending).await {
            return over;
        }
        warn!("some runs were still going on at the end of the drain");
        admission.cut();
        if let Ok(over) = tokio::time::timeout(CUTTING, ending).await {
            return over;
        }
        if tokio::time::timeout(CUTTING, admission.idle()).await.is_err() {
            warn!("some runs end without a record");
        }
        Ok(())
    }
}
