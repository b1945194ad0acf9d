//! Answers that their callers do not take, although their connection goes on.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Error;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

/// The answers of a connection. Over HTTP/2 each has a window of its own, and is asked for nothing while that is shut: a
/// caller that never opens it would hold a run for ever, and the connection is no slower for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    next: u64,
    answers: HashMap<u64, Arc<Mutex<Answer>>>,
}

/// An answer that goes out.
#[derive(Debug)]
struct Answer {
    /// What is yet to come of it; none when it was given up.
    body: Option<Body>,
    /// What is left of a piece, and whether some of it has gone out.
    rest: Bytes,
    is_cut: bool,
    /// Since when it is the caller's turn.
    untaken: Option<Instant>,
}

/// The body of an answer, as long as its caller takes it.
#[derive(Debug)]
pub(super) struct Outgoing {
    id: u64,
    open: Arc<Mutex<Open>>,
    answer: Arc<Mutex<Answer>>,
}

/// How much of a piece is handed over at once, in bytes: a slow caller has its time for each.
const SLICE: usize = 16 << 10;

impl Answers {
    /// One more.
    pub(super) fn add(&self, body: Body) -> Outgoing {
        let answer = Arc::new(Mutex::new(Answer {
            body: Some(body),
            rest: Bytes::new(),
            is_cut: false,
            untaken: Some(Instant::now()),
        }));
        let mut open = lock(&self.0);
        let id = open.next;
        open.next += 1;
        open.answers.insert(id, Arc::clone(&answer));
        Outgoing { id, open: Arc::clone(&self.0), answer }
    }

    /// Ends those of which nothing was taken for so long; when that is to be looked at again.
    pub(super) fn give_up(&self, bound: Duration) -> Instant {
        let now = Instant::now();
        let mut oldest = now;
        let mut given_up: Vec<(Option<Body>, Bytes)> = Vec::new();
        for answer in lock(&self.0).answers.values() {
            // It is being asked for.
            let Ok(mut answer) = answer.try_lock() else { continue };
            match answer.untaken {
                Some(since) if now.saturating_duration_since(since) >= bound => {
                    given_up.push((answer.body.take(), std::mem::take(&mut answer.rest)))
                }
                Some(since) => oldest = oldest.min(since),
                None => {}
            }
        }
        // With them end their runs, and not under the lock.
        drop(given_up);
        oldest + bound
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let answer = &mut *lock(&self.answer);
        if answer.rest.is_empty() {
            answer.untaken = None;
            let Some(body) = &mut answer.body else {
                return Poll::Ready(Some(Err(Error::new("the answer was not taken in time"))));
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => answer.rest = frame.into_data().unwrap_or_default(),
                ended => return Poll::Ready(ended),
            }
        }
        answer.untaken = Some(Instant::now());
        if answer.rest.len() <= SLICE && !answer.is_cut {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut answer.rest)))));
        }
        let slice = answer.rest.split_to(SLICE.min(answer.rest.len()));
        answer.is_cut = !answer.rest.is_empty();
        // A copy: while it waits for its caller it must not hold the whole.
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&slice)))))
    }

    fn is_end_stream(&self) -> bool {
        let answer = lock(&self.answer);
        answer.rest.is_empty() && answer.body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let answer = lock(&self.answer);
        let mut hint = answer.body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint);
        let rest = answer.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Its run ends with ours, which is the other hold on it, and not under the lock.
        lock(&self.open).answers.remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{StreamExt, poll, stream};
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    use super::*;

    const BOUND: Duration = Duration::from_secs(5);
    const MS: Duration = Duration::from_millis(1);

    /// An answer whose first piece is there and whose second never comes; and what tells when it was dropped.
    fn answer() -> (Body, oneshot::Receiver<()>) {
        let (held, dropped) = oneshot::channel::<()>();
        let pieces = stream::iter([Ok::<_, Infallible>("one")]).chain(stream::pending());
        let body = Body::from_stream(pieces.map(move |piece| {
            let _held = &held;
            piece
        }));
        (body, dropped)
    }

    fn is_there(dropped: &mut oneshot::Receiver<()>) -> bool {
        dropped.try_recv() == Err(oneshot::error::TryRecvError::Empty)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_asks_for_is_given_up() {
        let (answers, (body, mut dropped)) = (Answers::default(), answer());
        let mut outgoing = answers.add(body);
        advance(BOUND - MS).await;
        assert_eq!(answers.give_up(BOUND), Instant::now() + MS, "when to look again");
        assert!(is_there(&mut dropped));
        advance(MS).await;
        answers.give_up(BOUND);
        assert!(!is_there(&mut dropped));
        assert!(outgoing.frame().await.unwrap().is_err(), "whoever asks now is told");
        drop(outgoing);
        assert!(lock(&answers.0).answers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn so_is_one_of_which_a_piece_was_not_taken_and_none_that_is_waited_for() {
        let answers = Answers::default();
        let ((stops, mut stopped), (waits, mut waited)) = (answer(), answer());
        let (mut stops, mut waits) = (answers.add(stops), answers.add(waits));
        advance(BOUND - MS).await;
        for outgoing in [&mut stops, &mut waits] {
            assert_eq!(outgoing.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        }
        assert!(poll!(waits.frame()).is_pending());
        advance(BOUND - MS).await;
        answers.give_up(BOUND);
        assert!(is_there(&mut stopped));
        advance(MS).await;
        answers.give_up(BOUND);
        assert_eq!((is_there(&mut stopped), is_there(&mut waited)), (false, true));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_large_piece_stays_when_it_is_given_up() {
        let answers = Answers::default();
        let piece = Bytes::from(vec![7; 2 * SLICE + 1]);
        let mut outgoing = answers.add(Body::from(piece.clone()));
        let slice = outgoing.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(!piece.is_unique(), "the rest of it waits");
        advance(BOUND).await;
        answers.give_up(BOUND);
        assert!(piece.is_unique() && slice.len() == SLICE, "what was handed over is no part of it");
        assert!(outgoing.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_large_piece_is_handed_over_in_slices() {
        let mut outgoing = Answers::default().add(Body::from(vec![7; 2 * SLICE + 1]));
        let mut slices = Vec::new();
        while !http_body::Body::is_end_stream(&outgoing) {
            let left = http_body::Body::size_hint(&outgoing).exact().unwrap();
            let slice = outgoing.frame().await.unwrap().unwrap().into_data().unwrap();
            slices.push((left, slice.len()));
        }
        let (slice, all) = (SLICE, 2 * SLICE as u64 + 1);
        assert_eq!(slices, [(all, slice), (SLICE as u64 + 1, slice), (1, 1)]);
    }
}
