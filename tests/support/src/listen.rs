use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 4096;

pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is known as a whole.
pub(crate) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A server for HTTP/1.1 and h2c on one port; dropping it ends its connections.
///
/// When a caller leaves, hyper drops the future or the body of its answer: that is what the kit measures by.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// An error from `respond` breaks the connection off; `malformed` hears of what was not HTTP.
    pub(crate) async fn start<R, F, M>(addr: SocketAddr, respond: R, malformed: M) -> io::Result<Self>
    where
        R: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
        M: Fn(String) + Clone + Send + Sync + 'static,
    {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        // Thousands of calls may come at once; a full queue would cost them seconds.
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((socket, peer)) = listener.accept().await {
                let (respond, malformed) = (respond.clone(), malformed.clone());
                let counted = Counted::new(Arc::clone(&counter));
                open.spawn(async move {
                    let _counted = counted;
                    connection(socket, peer, respond, malformed).await;
                });
                while open.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, connections, accepting })
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection<R, F, M>(socket: TcpStream, peer: SocketAddr, respond: R, malformed: M)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = io::Result<Response<Body>>> + Send + 'static,
    M: Fn(String),
{
    // Small frames must leave when they are written, or gaps could not be scripted.
    let _ = socket.set_nodelay(true);
    let service = service_fn(|request| respond(request, peer));
    let served =
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await;
    if let Err(error) = served
        && error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse)
    {
        malformed(crate::http::chain(error.as_ref()));
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::SeqCst);
        Self(counter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
