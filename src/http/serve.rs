//! Connections, under bounds that a slow or greedy peer cannot stretch.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

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
    let mut served = pin!(builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(router)));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stopping.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke off");
    }
}
