//! Keeps browsers' pages of other origins out: the listener trusts whoever reaches it, and a browser on this machine
//! does.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HOST, ORIGIN};
use http::uri::Authority;

use super::InForce;
use crate::chat::ApiError;
use crate::http::reply;

/// Refuses what was sent to a name that is none of ours (a foreign name may be made to resolve to this machine), and
/// what a page of another origin sends.
pub(super) async fn refuse_foreign(
    State(current): State<Arc<ArcSwap<InForce>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(host) = called_by(&request).filter(|host| is_ours(host, &current.load().hosts)) else {
        let message = "this listener is not called by that name: `admin.hosts` names those that it is";
        return reply::error(&ApiError::new(403, "foreign_host", message));
    };
    if !is_same_origin(&request, &host) {
        let message = "this listener takes nothing from pages of other origins";
        return reply::error(&ApiError::new(403, "foreign_origin", message));
    }
    next.run(request).await
}

/// The name that the peer calls us by: HTTP/2 has it in the URI, HTTP/1.1 in `host`.
fn called_by(request: &Request) -> Option<Authority> {
    match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request.headers().get(HOST)?.to_str().ok()?.parse().ok(),
    }
}

fn is_ours(authority: &Authority, hosts: &[String]) -> bool {
    let host = authority.host().to_ascii_lowercase();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback()) || hosts.contains(&host)
}

/// Whether a browser sends the request for a page that this listener gave it. Who is no browser says no origin; `null`
/// is one of nobody's.
fn is_same_origin(request: &Request, host: &Authority) -> bool {
    let mut origins = request.headers().get_all(ORIGIN).iter();
    origins.all(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host.as_str()))
    })
}
