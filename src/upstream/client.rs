//! The HTTP client of one provider.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::Failure;
use crate::chat::Body;

/// How a provider is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// The bound on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// The bound on the wait for response headers; none leaves it to the call's own bound.
    pub first_byte_timeout: Option<Duration>,
    /// The bound on the wait for each further piece of a body.
    pub idle_timeout: Option<Duration>,
    /// A larger response is a failed attempt.
    pub max_response_bytes: usize,
    /// Roots trusted beside the public ones.
    pub extra_roots: Vec<CertificateDer<'static>>,
}

/// A connection pool to one provider: HTTP/1.1, or HTTP/2 where TLS negotiates it.
#[derive(Clone, Debug)]
pub struct Client {
    pool: legacy::Client<TimeoutConnector<HttpsConnector<HttpConnector>>, Body>,
    first_byte_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    max_response_bytes: usize,
}

impl Client {
    /// A pool with these settings.
    ///
    /// # Errors
    /// When an extra root is no certificate that rustls accepts.
    pub fn new(settings: ClientSettings) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for root in settings.extra_roots {
            roots.add(root)?;
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(60)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let mut connector = TimeoutConnector::new(https);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let pool = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http2_keep_alive_interval(Duration::from_secs(20))
            .build(connector);
        Ok(Self {
            pool,
            first_byte_timeout: settings.first_byte_timeout,
            idle_timeout: settings.idle_timeout,
            max_response_bytes: settings.max_response_bytes,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Reader>, Failure> {
        let response = within(self.first_byte_timeout, self.pool.request(request)).await?.map_err(|e| {
            if e.is_connect() { Failure::Connect(e.into()) } else { Failure::Broken(e.into()) }
        })?;
        Ok(response.map(|incoming| Reader {
            incoming,
            idle_timeout: self.idle_timeout,
            max_bytes: self.max_response_bytes,
            seen: 0,
        }))
    }

    /// The bound on a response.
    pub(super) fn max_response_bytes(&self) -> usize {
        self.max_response_bytes
    }
}

/// A response body, read under its bounds.
#[derive(Debug)]
pub(super) struct Reader {
    incoming: Incoming,
    idle_timeout: Option<Duration>,
    max_bytes: usize,
    seen: usize,
}

impl Reader {
    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(frame) = within(self.idle_timeout, self.incoming.frame()).await? else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(|e| Failure::Broken(e.into()))?.into_data() {
                self.seen += data.len();
                if self.seen > self.max_bytes {
                    return Err(Failure::TooLarge { max_bytes: self.max_bytes });
                }
                return Ok(Some(data));
            }
        }
    }

    /// The whole body.
    pub(super) async fn collect(mut self) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

async fn within<F: Future>(bound: Option<Duration>, future: F) -> Result<F::Output, Failure> {
    match bound {
        Some(bound) => tokio::time::timeout(bound, future).await.map_err(|_elapsed| Failure::Timeout),
        None => Ok(future.await),
    }
}
