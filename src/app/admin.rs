//! The operators' listener, as it is put together.

use std::convert::Infallible;
use std::future::pending;

use axum::Router;
use tracing::warn;

use super::Listener;
use crate::http;
use crate::http::admin::{Admin, BOUNDS, router};

/// The operators' listener.
pub(super) struct Operators<F> {
    /// Where it is; none when it is turned off.
    pub(super) address: Option<String>,
    /// Its answers, until it is dropped.
    pub(super) serving: F,
}

/// Answers operators for as long as the process lives, its end included.
pub(super) fn serve(
    listener: Option<Listener>,
    admin: Admin,
    more: Router,
) -> Operators<impl Future<Output = Infallible>> {
    let address = listener.as_ref().map(Listener::address);
    let serving = async move {
        let router = router(admin, more);
        match listener {
            Some(Listener::Tcp(tcp)) => http::serve(tcp, router, BOUNDS, pending()).await,
            Some(Listener::Unix(unix)) => http::serve(unix, router, BOUNDS, pending()).await,
            None => {}
        }
        pending().await
    };
    Operators { address, serving }
}

/// Tells the operator of a listener that takes anybody for an operator.
pub(super) fn warn_of_exposure(listener: Option<&Listener>) {
    if let Some(listener) = listener.filter(|listener| listener.is_exposed()) {
        warn!(
            addr = listener.address(),
            remedy = "listen on loopback or a Unix socket, or let only operators reach it",
            "the admin listener is exposed: it shows decisions, and changes the log level, for whoever can reach it"
        );
    }
}
