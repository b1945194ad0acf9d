//! Connections: accepted, held to their time, ended in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::TryFutureExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::patience::Patience;
use super::untaken::Answers;
use crate::http::{Lingering, ServerTls};

/// How often a caller that is silent over HTTP/2 is asked whether it is there.
const PING: Duration = Duration::from_secs(20);
/// How many requests may have been given up before they are seen. Behind an Envoy many callers share a connection, and
/// leave in a crowd; hyper's 20 would end it for all of them.
const MAX_PENDING_RESETS: usize = 1024;
/// How long a caller that was told of an idle connection's end may take to go: a request that was on its way when it
/// was told is still answered.
const LEAVING: Duration = Duration::from_secs(1);

/// How long a connection may take for what is its caller's part.
#[derive(Clone, Debug)]
pub struct Connections {
    /// From its beginning to the end of its first request's head, TLS included.
    pub head_timeout: Duration,
    /// Of a request's head, over HTTP/1.1: at least 8192. Over HTTP/2, which counts 32 bytes more for each header, half as
    /// much again: an Envoy that hands over takes 60 KiB from its caller, and adds to it.
    pub max_head_bytes: u32,
    /// Of a request over HTTP/1.1.
    pub max_headers: usize,
    /// Without a request in flight; and for taking a piece of an answer.
    pub idle_timeout: Duration,
    /// How many are open at once; further ones wait to be accepted. At least 1.
    pub max_open: usize,
    /// Where the door speaks TLS.
    pub tls: Option<Arc<ServerTls>>,
}

/// Serves on `listener` until `stop`, then lets what is in flight finish: HTTP/1.1 and HTTP/2, by TLS's
/// negotiation, or by the caller's first bytes.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    connections: Connections,
    stop: impl Future<Output = ()>,
) {
    let (stopping, _) = watch::channel(false);
    let mut open = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            (io, _) = listener.accept(), if open.len() < connections.max_open => {
                let began = Instant::now();
                let (router, bounds, stopped) = (router.clone(), connections.clone(), stopping.subscribe());
                match connections.tls.clone() {
                    Some(tls) => open.spawn(secured(io, tls, router, bounds, stopped, began)),
                    None => open.spawn(connection(io, router, bounds, stopped, began)),
                };
            }
            // Connections that are over leave nothing but their place in the set.
            Some(_) = open.join_next() => {}
        }
    }
    drop(listener);
    stopping.send_replace(true);
    while open.join_next().await.is_some() {}
}

async fn secured(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: Arc<ServerTls>,
    router: Router,
    bounds: Connections,
    stopped: watch::Receiver<bool>,
    began: Instant,
) {
    if let Some(io) = tls.accept(io, bounds.head_timeout).await {
        connection(io, router, bounds, stopped, began).await;
    }
}

async fn connection(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    bounds: Connections,
    mut stopped: watch::Receiver<bool>,
    began: Instant,
) {
    let io = TokioIo::new(Lingering::new(Patience::new(io, bounds.idle_timeout)));
    let (in_flight, answers) = (InFlight::default(), Answers::default());
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let version = request.version();
        let answering = in_flight.place().until_sent(router.call(request));
        // Over HTTP/1.1 the connection's own patience tells.
        let answers = (version == Version::HTTP_2).then(|| answers.clone());
        answering.map_ok(move |answer| {
            answer.map(|body| match answers {
                Some(answers) => Body::new(answers.add(Body::new(body))),
                None => Body::new(body),
            })
        })
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head_timeout)
        .max_buf_size(usize::try_from(bounds.max_head_bytes).unwrap_or(usize::MAX))
        .max_headers(bounds.max_headers);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .max_header_list_size(bounds.max_head_bytes.saturating_add(bounds.max_head_bytes / 2))
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    let mut serving = std::pin::pin!(builder.serve_connection(io, service));
    // TLS has had its part of the first bound.
    let first = bounds.head_timeout.saturating_sub(began.elapsed());
    let mut idle = std::pin::pin!(in_flight.idle(first, bounds.idle_timeout));
    let mut untaken = std::pin::pin!(tokio::time::sleep(bounds.idle_timeout));
    let (mut is_stopping, mut is_leaving) = (false, false);
    loop {
        tokio::select! {
            // What has arrived is taken up before anybody looks whether the connection is idle.
            biased;
            ended = &mut serving => {
                if let Err(error) = ended {
                    debug!(%error, "connection broken");
                }
                return;
            }
            () = &mut idle => {
                if is_leaving {
                    return;
                }
                is_leaving = true;
                serving.as_mut().graceful_shutdown();
                idle.set(in_flight.idle(LEAVING, LEAVING));
            }
            () = &mut untaken => untaken.as_mut().reset(answers.give_up(bounds.idle_timeout)),
            // A sender that is gone means the same.
            _ = stopped.wait_for(|stopped| *stopped), if !is_stopping => {
                is_stopping = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// How many requests of a connection are in flight.
#[derive(Debug)]
pub(in crate::http) struct InFlight(watch::Sender<usize>);

/// A request in flight.
pub(in crate::http) struct Place(watch::Sender<usize>);

impl Default for InFlight {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl InFlight {
    pub(in crate::http) fn place(&self) -> Place {
        self.0.send_modify(|places| *places += 1);
        Place(self.0.clone())
    }

    /// Ends when the caller has had its time: `first` for its first request, or `next` for each further one. What
    /// stands before a request, be it silence or half a head, is no request.
    pub(in crate::http) async fn idle(&self, first: Duration, next: Duration) {
        let mut places = self.0.subscribe();
        let mut bound = first;
        loop {
            let is_idle = *places.borrow_and_update() == 0;
            if !is_idle {
                bound = next;
            }
            let wait = if is_idle { bound } else { Duration::MAX };
            match tokio::time::timeout(wait, places.changed()).await {
                Ok(_) => bound = next,
                Err(_elapsed) => return,
            }
        }
    }
}

impl Place {
    /// Holds the place until the answer is sent, or dropped with a caller that has left.
    pub(in crate::http) async fn until_sent<E>(
        self,
        answering: impl Future<Output = Result<Response<Body>, E>>,
    ) -> Result<Response<impl http_body::Body<Data = Bytes, Error = axum::Error>>, E> {
        let response = answering.await?;
        Ok(response.map(|body| {
            body.map_frame(move |frame| {
                let _held = &self;
                frame
            })
        }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|places| *places -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::oneshot;
    use tokio::time::sleep;

    use super::*;

    const S: Duration = Duration::from_secs(1);
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    /// `GET /` over http, whole, on stream 1.
    const GET: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x86\x84";

    /// A caller over HTTP/2 that answers nothing by itself, and when it came.
    async fn caller() -> (DuplexStream, Instant) {
        asking(Router::new().route("/", get(async || sleep(5 * S).await))).await
    }

    async fn asking(router: Router) -> (DuplexStream, Instant) {
        let (mut caller, io) = duplex(1 << 16);
        let bounds = Connections {
            head_timeout: S,
            max_head_bytes: 8192,
            max_headers: 100,
            idle_timeout: 2 * S,
            max_open: 1,
            tls: None,
        };
        tokio::spawn(async move {
            let (_going_on, stopped) = watch::channel(false);
            connection(io, router, bounds, stopped, Instant::now()).await;
        });
        caller.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        (caller, Instant::now())
    }

    /// The next frame's type and what it holds; none at the end.
    async fn frame(caller: &mut DuplexStream) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 9];
        caller.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        caller.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    }

    async fn until(kind: u8, caller: &mut DuplexStream) -> Vec<u8> {
        loop {
            let (read, payload) = frame(caller).await.expect("the connection goes on");
            if read == kind {
                return payload;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_before_it_ends() {
        let (mut caller, began) = caller().await;
        until(SETTINGS, &mut caller).await;
        let told = until(GOAWAY, &mut caller).await;
        assert_eq!((&told[4..8], began.elapsed().as_secs()), (&[0; 4][..], 1), "no error");
        while frame(&mut caller).await.is_some() {}
        assert_eq!(began.elapsed().as_secs(), 2, "and left when it does not go");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_meets_an_idle_connections_end_is_answered() {
        let (mut caller, _) = caller().await;
        until(GOAWAY, &mut caller).await;
        sleep(S / 2).await;
        caller.write_all(GET).await.unwrap();
        assert_eq!(until(HEADERS, &mut caller).await[0], 0x88, "200");
        while frame(&mut caller).await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_whose_window_stays_shut_is_given_up_and_the_connection_goes_on() {
        let (held, dropped) = oneshot::channel::<()>();
        let held = Arc::new(Mutex::new(Some(held)));
        let endless = async move || {
            let held = held.lock().unwrap().take();
            Body::from_stream(futures_util::stream::repeat_with(move || {
                let _held = &held;
                Ok::<_, Infallible>("x")
            }))
        };
        let (mut caller, began) = asking(Router::new().route("/", get(endless))).await;
        // Streams have a window of nought from the beginning.
        caller.write_all(b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0").await.unwrap();
        caller.write_all(GET).await.unwrap();
        assert_eq!(until(HEADERS, &mut caller).await[0], 0x88, "200");
        assert!(dropped.await.is_err());
        assert_eq!(began.elapsed().as_secs(), 2);
        until(GOAWAY, &mut caller).await;
        assert_eq!(began.elapsed().as_secs(), 4, "without a request in flight it is idle");
    }
}
