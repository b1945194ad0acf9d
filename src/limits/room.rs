//! The bound on the bodies that are held at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound on the bodies that are held at once, in bytes: while they are collected, and while their runs last. A
/// cap on runs does not know of the former.
#[derive(Clone, Debug)]
pub struct Room {
    held: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// What one request has of the room; dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    room: Room,
    bytes: usize,
    /// It has asked for more than there was.
    is_short: bool,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { held: Arc::default(), max_bytes }
    }

    /// Another bound on the same bodies: those that are held now count.
    #[must_use]
    pub fn with_max(&self, max_bytes: usize) -> Self {
        Self { max_bytes, ..self.clone() }
    }

    /// An empty share.
    pub fn share(&self) -> Share {
        Share { room: self.clone(), bytes: 0, is_short: false }
    }
}

impl Default for Room {
    /// Room for everything.
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Share {
    /// Takes so many bytes more, where they are free.
    pub fn take(&mut self, bytes: usize) {
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= self.room.max_bytes);
        match self.room.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => self.bytes += bytes,
            Err(_) => self.is_short = true,
        }
    }

    /// Whether there was less room than it has asked for.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Gives everything back.
    pub fn give_back(&mut self) {
        self.room.held.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_free_under_every_bound() {
        let room = Room::new(10);
        let (mut first, mut second) = (room.share(), room.with_max(12).share());
        first.take(10);
        assert!(!first.is_short(), "up to the bound");
        second.take(2);
        assert!(!second.is_short());
        second.take(1);
        assert!(second.is_short(), "one past it");
        drop(second);
        first.give_back();
        let mut third = room.share();
        third.take(10);
        assert!(!third.is_short());
        drop(first);
        let mut fourth = room.share();
        fourth.take(1);
        assert!(fourth.is_short(), "nothing is given back twice");
    }
}
