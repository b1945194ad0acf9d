//! The plain HTTP door, as it is put together.

use axum::serve::ListenerExt as _;
use tokio::net::TcpStream;
use tracing::warn;

use super::listener::Listener;
use crate::http::door::{Connections, Live, router, serve};

/// Answers callers until `stop`, then lets what runs finish.
pub(super) async fn open(
    door: Live,
    listener: Option<Listener>,
    connections: Connections,
    stop: impl Future<Output = ()>,
) {
    let router = router(door);
    match listener {
        Some(Listener::Tcp(tcp)) => {
            // A socket that is gone already needs no setting.
            let tcp = tcp.tap_io(|io: &mut TcpStream| drop(io.set_nodelay(true)));
            serve(tcp, router, connections, stop).await;
        }
        Some(Listener::Unix(unix)) => serve(unix, router, connections, stop).await,
        None => stop.await,
    }
}

/// Tells the operator that other replicas will know no ticket and no marker of this process's.
pub(super) fn warn_of_own_secret(signs_alone: bool) {
    if signs_alone {
        warn!(
            remedy = "where there are several replicas, give all of them the same signing.secrets",
            "tickets and markers are signed with a secret that this process alone knows"
        );
    }
}

/// Tells the operator of a door at `exposed` that anybody can come in by.
pub(super) fn warn_of_exposure(exposed: Option<&str>, has_keys: bool) {
    if let Some(addr) = exposed.filter(|_| !has_keys) {
        warn!(
            addr,
            remedy = "set http.api_keys, or listen on loopback behind something that knows its callers",
            "the HTTP door is open to whoever can reach it"
        );
    }
}
