//! How connections to a provider come about: directly, through a proxy, with TLS or without, within bounds.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use http::uri::{Authority, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tower_service::Service;

use super::tls::Secured;
use super::{BoxError, ClientSettings, Http2, Proxy, TlsError};

/// Opens connections to one provider.
#[derive(Clone)]
pub(super) struct Connector {
    route: Arc<Route>,
    timeout: Duration,
    slots: Option<Arc<Semaphore>>,
}

/// Who is connected to, and who is asked for what.
enum Route {
    /// The provider itself.
    Direct(Dial),
    /// A proxy.
    Proxied {
        /// For what it must not read: it is asked to connect us.
        tunnel: Dial,
        /// For plain HTTP/1.1, where it reads and sends on each request. (Many proxies connect to port 443 only.)
        forward: Option<Dial>,
        proxy: Uri,
    },
}

type Dial = Box<dyn Fn(Uri) -> BoxFuture<'static, Result<Box<dyn Link>, BoxError>> + Send + Sync>;

/// A connection, with or without TLS.
pub(super) trait Link: Read + Write + Connection + Send + Unpin + 'static {}

impl<T: Read + Write + Connection + Send + Unpin + 'static> Link for T {}

/// What connects.
pub(super) trait Connects:
    Service<Uri, Response: Link, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<T> Connects for T where
    T: Service<Uri, Response: Link, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static
{
}

impl Connector {
    pub(super) fn new(settings: ClientSettings, tcp: impl Connects) -> Result<Self, TlsError> {
        let tls = Secured::new(settings.tls, settings.http2)?;
        let route = match settings.proxy {
            None => Route::Direct(dial(tls.to_provider(tcp))),
            Some(proxy) => Route::through(&proxy, &tls, settings.http2, tcp),
        };
        Ok(Self {
            route: Arc::new(route),
            timeout: settings.connect_timeout,
            slots: settings.max_connections.map(|most| Arc::new(Semaphore::new(most.get()))),
        })
    }

    async fn open(self, uri: Uri) -> Result<Opened, BoxError> {
        let slot = match self.slots {
            Some(slots) => Some(slots.acquire_owned().await?),
            None => None,
        };
        let (is_proxied, link) = match &*self.route {
            Route::Direct(dial) => (false, dial(uri).await?),
            Route::Proxied { forward: Some(dial), proxy, .. } if uri.scheme() == Some(&Scheme::HTTP) => {
                (true, dial(proxy.clone()).await?)
            }
            Route::Proxied { tunnel, .. } => (false, tunnel(with_port(uri)?).await?),
        };
        Ok(Opened { link, is_proxied, born: Born(Instant::now()), _slot: slot })
    }
}

impl Route {
    fn through(proxy: &Proxy, tls: &Secured, http2: Http2, tcp: impl Connects) -> Self {
        let connected = tls.to_proxy(tcp);
        let mut tunnel = Tunnel::new(proxy.uri().clone(), connected.clone());
        if let Some(authorization) = proxy.authorization() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        Self::Proxied {
            tunnel: dial(tls.to_provider(tunnel)),
            forward: (http2 == Http2::Negotiated).then(|| dial(connected)),
            proxy: proxy.uri().clone(),
        }
    }
}

fn dial(connects: impl Connects) -> Dial {
    Box::new(move |uri| {
        let mut connects = connects.clone();
        Box::pin(async move {
            poll_fn(|cx| connects.poll_ready(cx)).await.map_err(Into::into)?;
            let link = connects.call(uri).await.map_err(Into::into)?;
            Ok(Box::new(link) as Box<dyn Link>)
        })
    })
}

/// The URI with the port that its scheme stands for: a tunnel would take 443 for all.
fn with_port(uri: Uri) -> Result<Uri, BoxError> {
    if uri.scheme() != Some(&Scheme::HTTP) || uri.port().is_some() {
        return Ok(uri);
    }
    let mut parts = uri.into_parts();
    let host = parts.authority.as_ref().map_or("", Authority::host);
    parts.authority = Some(format!("{host}:80").parse()?);
    Ok(Uri::from_parts(parts)?)
}

impl Service<Uri> for Connector {
    type Response = Opened;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Opened, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let timeout = connector.timeout;
            let opened = tokio::time::timeout(timeout, connector.open(uri)).await;
            opened.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

/// When a connection had come about; it stands in the extensions of each response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Born(pub(super) Instant);

/// An open connection.
pub(super) struct Opened {
    link: Box<dyn Link>,
    /// Whether requests on it are for a proxy, and must say where they shall go.
    is_proxied: bool,
    born: Born,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Connection for Opened {
    fn connected(&self) -> Connected {
        self.link.connected().proxy(self.is_proxied).extra(self.born)
    }
}

impl Read for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_read(cx, buffer)
    }
}

impl Write for Opened {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.link).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.link.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.link).poll_write_vectored(cx, bytes)
    }
}
