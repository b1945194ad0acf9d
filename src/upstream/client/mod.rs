//! The HTTP client of one provider.

mod connector;
mod proxy;
mod reader;
#[cfg(test)]
mod tests;
mod tls;

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::PROXY_AUTHORIZATION;
use http::uri::Scheme;
use http::{HeaderValue, Request, Response, Version};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{HttpConnector, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::connector::{Born, Connector, Connects};
use self::reader::within;
use super::Failure;
use crate::chat::Body;

pub use proxy::Proxy;
pub(super) use reader::Reader;
pub use tls::{ClientCertificate, Tls, TlsError};

type BoxError = Box<dyn Error + Send + Sync>;

/// How a provider is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// The bound on a connection's coming about: names, TCP, a proxy's word, TLS.
    pub connect_timeout: Duration,
    /// The bound on the wait for response headers; none leaves it to the call's own bound.
    pub first_byte_timeout: Option<Duration>,
    /// The bound on the wait for each further piece of a body.
    pub idle_timeout: Option<Duration>,
    /// A larger response is a failed attempt.
    pub max_response_bytes: usize,
    /// A larger server-sent event, or line of one, is a failed attempt.
    pub max_event_bytes: usize,
    /// Who is trusted, and who we are.
    pub tls: Tls,
    /// When HTTP/2 is spoken.
    pub http2: Http2,
    /// What stands on the way.
    pub proxy: Option<Proxy>,
    /// How many connections there may be at a time; what is more waits.
    pub max_connections: Option<NonZeroUsize>,
    /// An older connection gets no further request.
    pub max_connection_age: Option<Duration>,
}

/// When HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http2 {
    /// Where TLS negotiates it.
    #[default]
    Negotiated,
    /// Always, unasked.
    PriorKnowledge,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: None,
            idle_timeout: None,
            max_response_bytes: 32 << 20,
            max_event_bytes: 8 << 20,
            tls: Tls::default(),
            http2: Http2::default(),
            proxy: None,
            max_connections: None,
            max_connection_age: None,
        }
    }
}

/// A connection pool to one provider.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<Connector, Body>,
    slots: Option<Slots>,
    /// What a proxy is told with each request that it reads itself.
    proxy_authorization: Option<HeaderValue>,
    first_byte_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_response_bytes: usize,
    max_event_bytes: usize,
    max_connection_age: Option<Duration>,
}

/// The requests that may be on their way at once, as long as each of them takes a connection.
#[derive(Clone, Debug)]
struct Slots {
    free: Arc<Semaphore>,
    /// Whether the last answer came over HTTP/2, where requests share a connection.
    shared: Arc<AtomicBool>,
}

impl Client {
    /// A pool with these settings.
    ///
    /// # Errors
    /// When rustls does not accept what the settings hold for TLS.
    pub fn new(settings: ClientSettings) -> Result<Self, TlsError> {
        Self::with_tcp(settings, HttpConnector::new())
    }

    /// As [`Client::new`], where TCP connections are made in this way.
    fn with_tcp<R>(settings: ClientSettings, mut tcp: HttpConnector<R>) -> Result<Self, TlsError>
    where
        HttpConnector<R>: Connects,
    {
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let proxy_authorization = settings.proxy.as_ref().and_then(Proxy::authorization).cloned();
        let (first_byte_timeout, idle_timeout) = (settings.first_byte_timeout, settings.idle_timeout);
        let (max_response_bytes, max_event_bytes) = (settings.max_response_bytes, settings.max_event_bytes);
        let max_connection_age = settings.max_connection_age;
        let max_connections = settings.max_connections.map(NonZeroUsize::get);
        let http2 = settings.http2;
        let connector = Connector::new(settings, tcp)?;
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_only(http2 == Http2::PriorKnowledge);
        let slots = max_connections.map(|most| Slots {
            free: Arc::new(Semaphore::new(most)),
            shared: Arc::new(AtomicBool::new(http2 == Http2::PriorKnowledge)),
        });
        Ok(Self {
            pool: builder.build(connector),
            slots,
            proxy_authorization,
            first_byte_timeout,
            idle_timeout,
            max_response_bytes,
            max_event_bytes,
            max_connection_age,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Reader>, Failure> {
        let slot = self.slot().await;
        if let Some(authorization) = &self.proxy_authorization
            && request.uri().scheme() == Some(&Scheme::HTTP)
        {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        let connection = self.max_connection_age.map(|_| capture_connection(&mut request));
        let response = within(self.first_byte_timeout, self.pool.request(request)).await?.map_err(|e| {
            if e.is_connect() { Failure::Connect(e.into()) } else { Failure::Broken(e.into()) }
        })?;
        if self.is_old(&response)
            && let Some(connection) = &connection
            && let Some(connection) = connection.connection_metadata().as_ref()
        {
            connection.poison();
        }
        if let Some(slots) = &self.slots {
            slots.shared.store(response.version() == Version::HTTP_2, Ordering::Relaxed);
        }
        Ok(response.map(|incoming| Reader::new(incoming, self.idle_timeout, self.max_response_bytes, slot)))
    }

    /// The bound on a server-sent event, and on a line of one.
    pub(super) fn max_event_bytes(&self) -> usize {
        self.max_event_bytes
    }

    /// The right to take a connection; none is needed where they are unbounded, or shared.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = self.slots.as_ref()?;
        if slots.shared.load(Ordering::Relaxed) {
            return None;
        }
        // Nobody ever closes it.
        Arc::clone(&slots.free).acquire_owned().await.ok()
    }

    /// Whether a response came over a connection that should not serve another one: the provider's name may stand for
    /// other addresses by now.
    fn is_old<B>(&self, response: &Response<B>) -> bool {
        let born = response.extensions().get::<Born>();
        self.max_connection_age.zip(born).is_some_and(|(most, Born(at))| at.elapsed() >= most)
    }
}
