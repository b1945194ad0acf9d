//! Requests that Envoy's door hands over, and those that Consort itself has made.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::{Door, authorise, refusal};
use crate::chat::ApiError;
use crate::dispatch::{Settled, loop_detected};
use crate::limits::CallerKey;
use crate::signing::{self, MARKER, Refused, TICKET, Ticket, marker};
use crate::telemetry::metrics;

/// Lets those in who have a ticket, which is looked at again with the body, or else a key. What Consort has made itself
/// has nothing to seek here: this is where a call would begin anew.
pub(super) async fn admit(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let secrets = &door.settings.secrets;
    let headers = request.headers_mut();
    if headers.remove(MARKER).is_some_and(|text| marker::is_authentic(text.as_bytes(), secrets)) {
        metrics::loop_refused("door");
        return refusal::refused(&loop_detected(), request.headers());
    }
    let Some(text) = headers.remove(TICKET) else {
        return authorise(State(door), request, next).await;
    };
    match Ticket::read(text.as_bytes(), door.settings.ticket_ttl, secrets, signing::now()) {
        Ok(ticket) => {
            request.extensions_mut().insert(ticket);
            next.run(request).await
        }
        Err(why) => refusal::refused(&invalid(why), request.headers()),
    }
}

impl Door {
    /// Takes a ticket for this request.
    pub(super) fn redeem(&self, ticket: &Ticket, alias: &str, body: &[u8]) -> Result<Settled, ApiError> {
        let body = signing::digest([body]);
        let grant = ticket.redeem(alias, body, &self.spent, signing::now()).map_err(invalid)?;
        let caller_key = grant.caller.as_deref().map(CallerKey::written);
        Ok(Settled { caller_key, condition_failed: grant.in_doubt })
    }
}

fn invalid(why: Refused) -> ApiError {
    metrics::ticket_refused(why.label());
    refusal::invalid_ticket()
}
