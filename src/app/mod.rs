//! The composition root: bind, serve, reload, drain.

mod admin;
mod current;
mod drain;
mod grpc;
mod listener;
mod reload;
mod signals;
mod watch;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tracing::info;

use self::current::Current;
use self::drain::Drain;
use self::grpc::Grpc;
use self::reload::Reloader;
use self::signals::Ends;
use crate::config::Config;
use crate::http::admin::Readiness;
use crate::telemetry::LogLevel;

pub use listener::{Listener, Listeners};

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
    /// The gRPC server failed.
    #[error("the ext_proc server failed")]
    Serve(#[from] tonic::transport::Error),
    /// The descriptors for gRPC reflection are not sound.
    #[error("gRPC reflection failed")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// A second signal has ended a drain.
    #[error("told to end a second time: what was still running is lost")]
    Forced,
}

/// The file that a configuration was read from, to be read again.
#[derive(Debug)]
pub struct Follow {
    /// Where it is.
    pub file: PathBuf,
    /// Reads it at once, changed or not.
    pub hang_up: Signal,
}

/// Binds, serves until SIGTERM or SIGINT by what `file` says, also when that changes, drains.
///
/// # Errors
/// When a listener cannot be bound, or the server fails, or a second signal ends the drain.
pub async fn serve(file: PathBuf, config: Config, level: LogLevel) -> Result<(), Error> {
    let listeners = Listeners::bind(&config).await?;
    let mut ends = Ends::listen().map_err(Error::Signals)?;
    let follow = Follow { file, hang_up: signals::hang_up().map_err(Error::Signals)? };
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
    tokio::select! {
        over = run(listeners, config, level, Some(follow), ended) => over,
        () = ended_twice => Err(Error::Forced),
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
    let metrics = admin::install_metrics();
    let readiness = Arc::new(Readiness::of_first());
    let current = Current::new(&config);
    let operators =
        admin::serve(listeners.admin, current.admin(Arc::clone(&readiness), level.clone(), metrics));
    let (addr, admin) = (listeners.ext_proc.address(), operators.address.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let grpc = Grpc::new(current.door(), grpc::max_message_bytes(&config)).await?;
    let (health, serving) = grpc.serve(listeners.ext_proc, async {
        // A sender that is gone means the same.
        let _stop = stopped.await;
    });
    info!(addr, admin, ensembles = config.snapshot.ensembles().count(), "listening");
    let mut reloader = Reloader::new(config, current, Arc::clone(&readiness), level);
    let serving = async {
        let mut serving = pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended,
            never = reloader.follow(follow) => match never {},
            () = shutdown => {}
        }
        let Reloader { config, current, .. } = reloader;
        Drain { readiness, health, stop, current }.run(&config, serving).await
    };
    tokio::select! {
        ended = serving => ended,
        never = operators.serving => match never {},
    }
}
