//! Connections, under bounds that a slow or greedy peer cannot stretch.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::door::InFlight;

/// What one listener spends on its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How long the head of a request may take, and an idle connection be kept.
    pub header_timeout: Duration,
    /// How large the head of a request may be, in bytes; at least 8192.
    pub max_header_bytes: u32,
    /// How many connections are held at once; more wait to be accepted.
    pub max_connections: usize,
}

/// Serves HTTP/1.1 and h2c until `stop`, then takes nothing new and ends when what runs has ended. Dropping it ends
/// every connection.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) {
    let (places, stopping) = (Arc::new(Semaphore::new(bounds.max_connections)), CancellationToken::new());
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // It is never closed.
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (listener.accept().await.0, place)
        };
        let (io, place) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let (router, stopping) = (router.clone(), stopping.clone());
        connections.spawn(async move {
            connection(io, router, bounds, stopping).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    stopping.cancel();
    while connections.join_next().await.is_some() {}
}

async fn connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    bounds: Bounds,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(usize::try_from(bounds.max_header_bytes).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(bounds.header_timeout)
        .keep_alive_timeout(bounds.header_timeout)
        .max_header_list_size(bounds.max_header_bytes);
    let (in_flight, routes) = (InFlight::default(), TowerToHyperService::new(router));
    let service = service_fn(|request| {
        let answering = routes.call(request);
        in_flight.place().until_sent(answering)
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
        // The builder waits for the first bytes, which tell the version, without a bound; and a peer that answers
        // pings could keep its place for ever over HTTP/2.
        () = in_flight.idle(bounds.header_timeout, bounds.header_timeout) => return,
        () = stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke off");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::{mpsc, oneshot};
    use tokio::time::{Instant, sleep};

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const BOUNDS: Bounds = Bounds { header_timeout: S, max_header_bytes: 8192, max_connections: 2 };

    /// Peers that need no network, so that time can stand still.
    struct Peers(mpsc::Receiver<DuplexStream>);

    impl Listener for Peers {
        type Io = DuplexStream;
        type Addr = ();

        async fn accept(&mut self) -> (DuplexStream, ()) {
            match self.0.recv().await {
                Some(peer) => (peer, ()),
                None => pending().await,
            }
        }

        fn local_addr(&self) -> std::io::Result<()> {
            Ok(())
        }
    }

    struct Served {
        peers: mpsc::Sender<DuplexStream>,
        stop: oneshot::Sender<()>,
        serving: tokio::task::JoinHandle<()>,
    }

    fn served() -> Served {
        let (peers, accepted) = mpsc::channel(8);
        let (stop, stopped) = oneshot::channel();
        let router =
            Router::new().route("/", get(async || "ok")).route("/slow", get(async || sleep(5 * S).await));
        let stopped = async { _ = stopped.await };
        let serving = tokio::spawn(serve(Peers(accepted), router, BOUNDS, stopped));
        Served { peers, stop, serving }
    }

    impl Served {
        async fn say(&self, text: &str) -> DuplexStream {
            let (mut peer, theirs) = duplex(1 << 20);
            self.peers.send(theirs).await.unwrap();
            peer.write_all(text.as_bytes()).await.unwrap();
            peer
        }
    }

    /// What is heard until the connection's end, and how long that took.
    async fn heard(mut peer: DuplexStream) -> (String, Duration) {
        let (began, mut text) = (Instant::now(), String::new());
        peer.read_to_string(&mut text).await.unwrap();
        (text.lines().next().unwrap_or_default().to_owned(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_finish_its_head_is_left() {
        let served = served();
        for begun in ["", "GET / HTTP/1.1\r\nhost: a\r\n", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let (_, elapsed) = heard(served.say(begun).await).await;
            assert!(elapsed >= S && elapsed < 2 * S, "{begun:?}: {elapsed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_is_too_large_is_refused() {
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(9000));
        let (status, elapsed) = heard(served().say(&large).await).await;
        assert_eq!((&*status, elapsed), ("HTTP/1.1 431 Request Header Fields Too Large", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_left_over_http2_too_and_one_that_is_answered_is_not() {
        let served = served();
        let (peer, theirs) = duplex(1 << 20);
        served.peers.send(theirs).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(peer)).await.unwrap();
        let (began, connection) = (Instant::now(), tokio::spawn(connection));
        let slow = http::Request::get("http://a/slow").body(axum::body::Body::empty()).unwrap();
        assert_eq!(sender.send_request(slow).await.unwrap().status(), 200);
        assert!(began.elapsed() >= 5 * S);
        let _ended = connection.await.unwrap();
        assert!(began.elapsed() < 7 * S, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_more_than_are_held_waits() {
        let served = served();
        let held = (served.say("").await, served.say("").await);
        let third = served.say("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let (status, elapsed) = heard(third).await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(elapsed >= S, "{elapsed:?}");
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_lets_what_runs_finish_and_takes_nothing_new() {
        let Served { peers, stop, serving } = served();
        let (mut peer, theirs) = duplex(1 << 20);
        peers.send(theirs).await.unwrap();
        peer.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        sleep(S / 2).await;
        stop.send(()).unwrap();
        sleep(S / 2).await;
        assert!(peers.is_closed());
        assert_eq!(heard(peer).await, ("HTTP/1.1 200 OK".to_owned(), 4 * S));
        serving.await.unwrap();
    }
}
