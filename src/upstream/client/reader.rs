//! Response bodies, read under their bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::upstream::Failure;

/// A response body, read under its bounds.
#[derive(Debug)]
pub(in crate::upstream) struct Reader {
    incoming: Incoming,
    idle_timeout: Option<Duration>,
    max_bytes: usize,
    seen: usize,
    /// The connection is taken as long as this is read.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Reader {
    pub(super) fn new(
        incoming: Incoming,
        idle_timeout: Option<Duration>,
        max_bytes: usize,
        slot: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self { incoming, idle_timeout, max_bytes, seen: 0, _slot: slot }
    }

    /// The next piece; none at the end.
    pub(in crate::upstream) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            let Some(frame) = within(self.idle_timeout, self.incoming.frame()).await? else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(|e| Failure::Broken(e.into()))?.into_data() {
                self.seen += data.len();
                if self.seen > self.max_bytes {
                    return Err(Failure::TooLarge { max_bytes: self.max_bytes });
                }
                return Ok(Some(data));
            }
        }
    }

    /// The whole body.
    pub(in crate::upstream) async fn collect(mut self) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await? else {
            return Ok(Bytes::new());
        };
        let Some(second) = self.next().await? else {
            return Ok(first);
        };
        let mut all = BytesMut::from(first);
        all.extend_from_slice(&second);
        while let Some(piece) = self.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }
}

pub(super) async fn within<F: Future>(bound: Option<Duration>, future: F) -> Result<F::Output, Failure> {
    match bound {
        Some(bound) => tokio::time::timeout(bound, future).await.map_err(|_elapsed| Failure::Timeout),
        None => Ok(future.await),
    }
}
