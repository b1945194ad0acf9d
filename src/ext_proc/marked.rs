//! Whether an alias's request is one that Consort itself made.

use tracing::warn;

use super::Setup;
use super::headers::RequestHead;
use crate::chat::ApiError;
use crate::dispatch::{Headers, loop_detected};
use crate::signing::{self, MARKER, marker};
use crate::telemetry::{Seldom, metrics};

/// Whether a request is Consort's own.
pub(super) enum Marked {
    /// It is a caller's.
    No,
    /// It is, and goes on to its upstream.
    Ours,
    /// It is, or was, and must not be answered again.
    Looping(Box<ApiError>),
}

/// Reads the marker, which each replica with the same secrets knows. One that nobody of ours has made means nothing.
pub(super) fn marked(head: &RequestHead, body: &[u8], setup: &Setup) -> Marked {
    let Some(text) = head.value(MARKER) else {
        return Marked::No;
    };
    let digest = || signing::digest([body]);
    match marker::check(text, digest, &setup.settings.secrets, &setup.spent, signing::now()) {
        None => {
            ignored();
            Marked::No
        }
        Some(Ok(())) => Marked::Ours,
        Some(Err(refused)) => {
            metrics::loop_refused(refused.label());
            Marked::Looping(Box::new(loop_detected()))
        }
    }
}

/// Counts a marker that nobody of ours has made, and tells of it seldom: callers may send as many as they like.
fn ignored() {
    static TOLD: Seldom = Seldom::new();
    metrics::marker_ignored();
    if TOLD.is_due() {
        warn!(
            "a marker means nothing here: a caller has made it up, or a replica signs with another secret (`signing`)"
        );
    }
}
