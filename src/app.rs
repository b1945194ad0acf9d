//! The composition root: bind, serve, drain.

use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::ExternalProcessorServer;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tracing::{info, warn};

use crate::config::{Address, Config};
use crate::ensemble::{Runner, Snapshot};
use crate::ext_proc::Service;
use crate::limits::{Admission, Cooldowns};
use crate::telemetry::Traces;
use crate::upstream::{HttpCaller, Retrying, check};

/// What Envoy may send in one message beyond a body of the allowed size: headers, metadata, and
/// what it reads past its own buffer limit.
const MESSAGE_SLACK: usize = 2 << 20;
/// Plain requests come through here as well: a lower bound for aliases must not refuse them.
const MIN_MESSAGE: usize = 32 << 20;
/// Callers that connect and vanish in one burst reset as many streams; the default of 20 would end
/// the connection that all the others share.
const MAX_PENDING_RESETS: usize = 65_536;
/// How much of one request's body Envoy may send ahead, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// How much it may send ahead on one connection, in bytes; a thousand streams share it.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long a drain waits for runs without a bound of their own.
const DRAIN: Duration = Duration::from_secs(60);

/// How long the last spans may take to be exported.
const FLUSH: Duration = Duration::from_secs(5);

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The gRPC server failed.
    #[error("the ext_proc server failed")]
    Serve(#[from] tonic::transport::Error),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
}

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix domain socket.
    Unix(UnixListener),
}

impl Listener {
    /// Binds `address`. A Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(address: &Address) -> Result<Self, Error> {
        let bound = match address {
            Address::Tcp(host_port) => TcpListener::bind(host_port).await.map(Self::Tcp),
            Address::Unix(path) => remove_stale(path).and_then(|()| UnixListener::bind(path)).map(Self::Unix),
        };
        bound.map_err(|source| Error::Bind { address: address.to_string(), source })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix(unix) => match unix.local_addr() {
                Ok(address) => format!("unix:{}", address.as_pathname().unwrap_or("".as_ref()).display()),
                Err(e) => e.to_string(),
            },
        }
    }
}

/// Removes a socket that an earlier process has left: one, and nothing else, that refuses connections.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match UnixStream::connect(path) {
        Err(e) if is_socket && e.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}

/// Binds, serves until SIGTERM or SIGINT, drains.
///
/// # Errors
/// When a listener cannot be bound, or the server fails.
pub async fn serve(config: Config) -> Result<(), Error> {
    let listener = Listener::bind(&config.listen.ext_proc).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    run(listener, config, shutdown).await
}

/// Serves on `listener` until `shutdown`, then lets what runs finish.
///
/// # Errors
/// When the server fails.
pub async fn run(
    listener: Listener,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let admission = Admission::new(config.max_inflight);
    let (caller, cooldowns) = (Arc::new(HttpCaller), Cooldowns::default());
    let mut checks = JoinSet::new();
    for model in config.direct_models {
        if model.background_check.is_some() {
            checks.spawn(check(Arc::clone(&caller), cooldowns.clone(), model));
        }
    }
    let caller = Retrying::new(caller, cooldowns);
    let traces = Traces::from_environment();
    let runner = Runner::new(Arc::new(caller), admission, config.max_answer_bytes).traced(traces.clone());
    let max_message_bytes = config.ext_proc.max_request_bytes.max(MIN_MESSAGE).saturating_add(MESSAGE_SLACK);
    let drain = longest_run(&config.snapshot);
    let ensembles = config.snapshot.ensembles().count();
    let service = Service::new(config.snapshot, runner, config.ext_proc);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ExternalProcessorServer<Service>>().await;
    let router = Server::builder()
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        // Fixed, not adaptive: with hyper's adaptive windows a burst of some hundred bodies ends the connection
        // that all streams share.
        .initial_stream_window_size(Some(STREAM_WINDOW))
        .initial_connection_window_size(Some(CONNECTION_WINDOW))
        .add_service(health_service)
        .add_service(
            ExternalProcessorServer::new(service)
                .max_decoding_message_size(max_message_bytes)
                .max_encoding_message_size(usize::MAX),
        );
    info!(addr = %listener.address(), ensembles, "listening");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = accept(router, listener, async {
        // A sender that is gone means the same.
        let _stop = stopped.await;
    });
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended,
        () = shutdown => {}
    }
    info!(limit_s = drain.as_secs(), "draining");
    health.set_not_serving::<ExternalProcessorServer<Service>>().await;
    drop(stop);
    checks.shutdown().await;
    if tokio::time::timeout(drain, serving).await.is_err() {
        warn!("some runs were still going on at the end of the drain");
    }
    traces.shutdown(FLUSH).await;
    info!("stopped");
    Ok(())
}

async fn accept(router: Router, listener: Listener, stop: impl Future<Output = ()>) -> Result<(), Error> {
    match listener {
        Listener::Tcp(tcp) => {
            let incoming = TcpIncoming::from(tcp).with_nodelay(Some(true));
            router.serve_with_incoming_shutdown(incoming, stop).await?;
        }
        Listener::Unix(unix) => {
            router.serve_with_incoming_shutdown(UnixListenerStream::new(unix), stop).await?;
        }
    }
    Ok(())
}

/// The longest that a run may take by its own bounds.
fn longest_run(snapshot: &Snapshot) -> Duration {
    snapshot.ensembles().map(|e| e.longest_run().unwrap_or(DRAIN)).max().unwrap_or(DRAIN)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, live, stale) =
            (dir.path().join("file"), dir.path().join("live"), dir.path().join("stale"));
        fs::write(&file, "precious").unwrap();
        let _listening = UnixListener::bind(&live).unwrap();
        drop(UnixListener::bind(&stale).unwrap());
        for path in [&file, &live, &dir.path().join("none")] {
            remove_stale(path).unwrap();
        }
        // A process that another test is starting may hold the socket until it has begun.
        for _ in 0..200 {
            remove_stale(&stale).unwrap();
            if !stale.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!((file.exists(), live.exists(), stale.exists()), (true, true, false));
    }
}
