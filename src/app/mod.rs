//! The composition root: bind, serve, reload, drain.

mod admin;
mod current;
mod door;
mod drain;
mod grpc;
mod listener;
mod reload;
mod signals;
mod socket;
mod watch;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::sync::watch::{Receiver, channel};
use tonic::service::Routes;
use tracing::info;

use self::current::{Current, Exposed};
use self::drain::Drain;
use self::grpc::Grpc;
use self::reload::Reloader;
use self::signals::Ends;
use self::watch::Fingerprint;
use crate::config::{Config, Problems};
use crate::http;
use crate::http::admin::Readiness;
use crate::limits::{Admission, StoreError};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::{Decisions, LogLevel, SinkError, Traces};
use crate::upstream::Pools;

pub use listener::{Listener, Listeners};
pub use socket::Socket;

/// How long the runs that a second signal ends may take to leave their records, and those to be written.
const FORCED: Duration = Duration::from_millis(500);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be bound.
    #[error("cannot listen on {address} (`{key}`)")]
    Bind {
        /// Where the address stands in the configuration.
        key: &'static str,
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Limits cannot be counted where they should be.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The gRPC server failed.
    #[error("the ext_proc server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The descriptors for gRPC reflection are not sound.
    #[error("gRPC reflection failed")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Decisions cannot be kept where they are to be kept.
    #[error(transparent)]
    Decisions(#[from] SinkError),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A second signal has ended a drain.
    #[error("told to end a second time: what was still running is lost")]
    Forced,
}

/// A configuration that was read from a file, and follows it from then on.
#[derive(Debug)]
pub struct FromFile {
    /// What the file means.
    pub config: Config,
    file: PathBuf,
    /// What it and the files that it names held when they were read.
    seen: Fingerprint,
}

impl FromFile {
    /// Reads the configuration file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: PathBuf) -> Result<Self, Problems> {
        let (config, seen) = reload::read(&file, &Pools::default());
        Ok(Self { config: config?, file, seen })
    }
}

/// A file to be read again.
#[derive(Debug)]
pub struct Follow {
    file: PathBuf,
    /// What it and the files that it names hold.
    seen: Fingerprint,
    /// Reads it at once, changed or not.
    hang_up: Signal,
}

/// Binds, serves until SIGTERM or SIGINT by what the file says, also when that changes, drains.
///
/// # Errors
/// When a listener cannot be bound, or the server fails, or a second signal ends the drain.
pub async fn serve(from: FromFile, level: LogLevel) -> Result<(), Error> {
    let FromFile { config, file, seen } = from;
    let listeners = Listeners::bind(&config).await?;
    let mut ends = Ends::listen().map_err(Error::Signals)?;
    let hang_up = signal(SignalKind::hangup()).map_err(Error::Signals)?;
    let follow = Follow { file, seen, hang_up };
    let (end, ended) = oneshot::channel();
    let ended = async {
        // A sender that is gone means the same.
        let _ended = ended.await;
    };
    let ended_twice = async {
        ends.next().await;
        // Nobody hears it when the server has failed meanwhile.
        let _heard = end.send(());
        ends.next().await;
    };
    let kept = Kept::open(&config)?;
    tokio::select! {
        over = run_recorded(listeners, config, level, Some(follow), ended, kept.clone()) => over,
        () = ended_twice => {
            kept.admission.cut();
            // What has no record by then ends without one.
            let _elapsed = tokio::time::timeout(FORCED, kept.admission.idle()).await;
            kept.decisions.close(FORCED).await;
            Err(Error::Forced)
        }
    }
}

/// Serves on `listeners` until `shutdown`, then lets what runs finish. What it logs from is at `level`'s hand.
///
/// # Errors
/// When the server fails.
pub async fn run(
    listeners: Listeners,
    config: Config,
    level: LogLevel,
    follow: Option<Follow>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let kept = Kept::open(&config)?;
    run_recorded(listeners, config, level, follow, shutdown, kept).await
}

/// What is kept of runs.
#[derive(Clone)]
struct Kept {
    metrics: Metrics,
    admission: Admission,
    decisions: Decisions,
}

impl Kept {
    fn open(config: &Config) -> Result<Self, Error> {
        // First of all: what counts, counts there from its beginning.
        let metrics = metrics::install();
        let decisions = Decisions::open(&config.decisions)?;
        Ok(Self { metrics, admission: Admission::new(config.max_inflight), decisions })
    }
}

async fn run_recorded(
    listeners: Listeners,
    config: Config,
    level: LogLevel,
    follow: Option<Follow>,
    shutdown: impl Future<Output = ()>,
    kept: Kept,
) -> Result<(), Error> {
    let Kept { metrics, admission, decisions } = kept;
    let readiness = Arc::new(Readiness::of_first());
    let traces = Traces::from_environment();
    let door = listeners.http.as_ref().and_then(Listener::exposed);
    let exposed = Exposed { door, admin: listeners.admin.as_ref().is_some_and(Listener::is_exposed) };
    door::warn_of_exposure(exposed.door.as_deref(), !config.door.keys.is_empty());
    door::warn_of_own_secret(config.signs_alone);
    admin::warn_of_exposure(listeners.admin.as_ref());
    let is_exposed = exposed.admin;
    let current =
        Current::new(&config, exposed, admission.clone(), metrics, decisions.clone(), traces.clone())?;
    let (stop, stopped) = channel(());
    let streams = http::Streams::default();
    let log = Routes::new(http::decision_log(decisions.clone(), streams.clone())).into_axum_router();
    let more = http::console::routes()
        .merge(http::admin::playground(current.playground(), is_exposed, stopped.clone()))
        .merge(http::decision_routes(decisions.clone(), streams))
        .merge(log);
    let operators = admin::serve(listeners.admin, current.admin(Arc::clone(&readiness), level.clone()), more);
    let (addr, admin) = (listeners.ext_proc.address(), operators.address.clone());
    let http = listeners.http.as_ref().map(Listener::address);
    let grpc = Grpc::new(current.setup(), grpc::max_message_bytes(&config)).await?;
    let (health, envoy) =
        grpc.serve(listeners.ext_proc, config.ext_proc_tls.clone(), until_gone(stopped.clone()));
    let callers = door::open(current.door(), listeners.http, config.connections.clone(), until_gone(stopped));
    let serving = async { tokio::join!(envoy, callers).0 };
    info!(addr, http, admin, ensembles = config.snapshot.ensembles().count(), "listening");
    let mut reloader = Reloader::new(config, current, Arc::clone(&readiness), level);
    let serving = async {
        let mut serving = Box::pin(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            never = reloader.follow(follow) => match never {},
            () = shutdown => {}
        }
        let Reloader { config, current, .. } = reloader;
        Drain { readiness, health, stop, current, admission, decisions, traces }.run(&config, serving).await
    };
    tokio::select! {
        ended = serving => ended,
        never = operators.serving => match never {},
    }
}

/// Until the sender is gone.
async fn until_gone(mut stopped: Receiver<()>) {
    while stopped.changed().await.is_ok() {}
}
