//! The gRPC listener: Envoy's door, health, reflection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::{Connected, Router, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use super::{Error, Listener};
use crate::config::Config;
use crate::ext_proc::server::{ExternalProcessorServer, SERVICE_NAME};
use crate::ext_proc::{Service, Setup};
use crate::http::{Lingering, Secured, ServerTls, secured};

/// Callers that connect and vanish in one burst reset as many streams; the default of 20 would end
/// the connection that all the others share.
const MAX_PENDING_RESETS: usize = 65_536;
/// How much of one request's body Envoy may send ahead, in bytes.
const STREAM_WINDOW: u32 = 1 << 20;
/// How much it may send ahead on one connection, in bytes; a thousand streams share it.
const CONNECTION_WINDOW: u32 = 16 << 20;

/// What Envoy may send in one message beyond a body of the allowed size: headers, metadata, and
/// what it reads past its own buffer limit.
const MESSAGE_SLACK: usize = 2 << 20;
/// Plain requests come through here as well: a lower bound for aliases must not refuse them.
const MIN_MESSAGE: usize = 32 << 20;

/// After how long a silence Envoy is asked whether it is still there, and how long it may take to say so. One that has
/// vanished (a machine without power, a network that drops everything) says nothing, and its runs would go on.
const PING_AFTER: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// The system asks, too, for where HTTP/2 has not begun: after so long a silence, so often, so far apart.
const PROBE_AFTER: Duration = Duration::from_secs(30);
const PROBES: u32 = 3;
const BETWEEN_PROBES: Duration = Duration::from_secs(10);

/// How long Envoy may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Who asks for a service by name, and who asks for the process.
const HEALTH_OF: [&str; 2] = [SERVICE_NAME, ""];

/// The listener's services, and a hand on what it says of its health.
pub(super) struct Grpc {
    router: Router,
    health: Health,
}

/// What the listener says of its health.
pub(super) struct Health(HealthReporter);

impl Grpc {
    /// Serves Envoy by what is `current` when a request begins, in messages of at most so many bytes.
    pub(super) async fn new(current: Arc<ArcSwap<Setup>>, max_message_bytes: usize) -> Result<Self, Error> {
        let (reporter, health_service) = health_reporter();
        let health = Health(reporter);
        health.tell(ServingStatus::Serving).await;
        let door = ExternalProcessorServer::new(Service::new(current))
            .max_decoding_message_size(max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let router = Server::builder()
            .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
            // Fixed, not adaptive: with hyper's adaptive windows a burst of some hundred bodies ends the connection
            // that all streams share.
            .initial_stream_window_size(Some(STREAM_WINDOW))
            .initial_connection_window_size(Some(CONNECTION_WINDOW))
            .http2_keepalive_interval(Some(PING_AFTER))
            .http2_keepalive_timeout(Some(PING_TIMEOUT))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(door);
        Ok(Self { router, health })
    }

    /// Serves on `listener`, in TLS where there is some, until `stop`, then lets what runs finish.
    pub(super) fn serve(
        self,
        listener: Listener,
        tls: Option<Arc<ServerTls>>,
        stop: impl Future<Output = ()>,
    ) -> (Health, impl Future<Output = Result<(), Error>>) {
        let Self { router, health } = self;
        let serving = async move {
            match listener {
                Listener::Tcp(tcp) => {
                    let incoming = TcpIncoming::from(tcp)
                        .with_nodelay(Some(true))
                        .with_keepalive(Some(PROBE_AFTER))
                        .with_keepalive_interval(Some(BETWEEN_PROBES))
                        .with_keepalive_retries(Some(PROBES));
                    serve_on(router, incoming, tls, stop).await
                }
                Listener::Unix(socket) => serve_on(router, socket.into_incoming(), tls, stop).await,
            }
        };
        (health, serving)
    }
}

async fn serve_on<I>(
    router: Router,
    incoming: impl Stream<Item = io::Result<I>>,
    tls: Option<Arc<ServerTls>>,
    stop: impl Future<Output = ()>,
) -> Result<(), Error>
where
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    match tls {
        Some(tls) => {
            let incoming = lingering(secured(incoming, tls, HANDSHAKE));
            router.serve_with_incoming_shutdown(incoming, stop).await?;
        }
        None => router.serve_with_incoming_shutdown(lingering(incoming), stop).await?,
    }
    Ok(())
}

/// Connections that are closed in good order.
fn lingering<I>(incoming: impl Stream<Item = io::Result<I>>) -> impl Stream<Item = io::Result<Lingering<I>>> {
    incoming.map(|accepted| accepted.map(Lingering::new))
}

impl<I: Connected> Connected for Secured<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner().connect_info()
    }
}

impl<I: Connected> Connected for Lingering<I> {
    type ConnectInfo = I::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner().connect_info()
    }
}

impl Health {
    /// Whoever balances load is to send nothing more.
    pub(super) async fn withdraw(&self) {
        self.tell(ServingStatus::NotServing).await;
    }

    /// Ends the streams of those who watch it: a drain would wait for them.
    pub(super) async fn end(&mut self) {
        for name in HEALTH_OF {
            self.0.clear_service_status(name).await;
        }
    }

    async fn tell(&self, status: ServingStatus) {
        for name in HEALTH_OF {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// How large a message from Envoy may be, in bytes.
pub(super) fn max_message_bytes(config: &Config) -> usize {
    config.ext_proc.max_request_bytes.max(MIN_MESSAGE).saturating_add(MESSAGE_SLACK)
}

/// Envoy's own descriptors are not at hand: its service is listed, and described by Envoy's documentation.
fn reflection<'b>() -> tonic_reflection::server::Builder<'b> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(SERVICE_NAME)
        .with_service_name(tonic_health::pb::health_server::SERVICE_NAME)
        .with_service_name("grpc.reflection.v1.ServerReflection")
}
