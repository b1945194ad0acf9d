//! What was taken already.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Millis, Refused};

/// How many are kept in mind. Only what is signed gets here, and goes when its time is over; beyond this, nothing is taken.
const MAX_KEPT: usize = 1 << 18;

/// The nonces that this process has taken, for as long as they could be presented again. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Spent(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    nonces: HashSet<u128>,
    /// The same, the first to expire on top.
    by_expiry: BinaryHeap<Reverse<(Millis, u128)>>,
}

impl Spent {
    /// Takes a nonce, unless it was taken before, or cannot be kept in mind.
    pub(super) fn spend(&self, nonce: u128, expires: Millis, now: Millis) -> Result<(), Refused> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(now);
        if kept.nonces.contains(&nonce) {
            return Err(Refused::Replayed);
        }
        if kept.nonces.len() >= MAX_KEPT {
            return Err(Refused::Full);
        }
        kept.nonces.insert(nonce);
        kept.by_expiry.push(Reverse((expires, nonce)));
        Ok(())
    }
}

impl Kept {
    /// What has expired is refused for that.
    fn forget(&mut self, now: Millis) {
        while let Some(Reverse((expires, nonce))) = self.by_expiry.peek().copied()
            && expires <= now
        {
            self.by_expiry.pop();
            self.nonces.remove(&nonce);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_taken_once_until_it_expires() {
        let spent = Spent::default();
        assert_eq!([spent.spend(1, 100, 0), spent.spend(2, 50, 0)], [Ok(()); 2]);
        assert_eq!(spent.clone().spend(1, 100, 99), Err(Refused::Replayed), "a clone knows it too");
        assert_eq!(spent.spend(3, 200, 100), Ok(()));
        let kept = spent.0.lock().unwrap();
        assert_eq!((kept.nonces.len(), kept.by_expiry.len()), (1, 1), "what has expired is gone");
    }

    #[test]
    fn what_cannot_be_kept_in_mind_is_not_taken() {
        let spent = Spent::default();
        assert!((0..MAX_KEPT as u128).all(|nonce| spent.spend(nonce, 100, 0).is_ok()));
        assert_eq!(spent.spend(u128::MAX, 100, 0), Err(Refused::Full));
        assert_eq!(spent.spend(0, 100, 0), Err(Refused::Replayed), "which is known all the same");
        assert_eq!(spent.spend(u128::MAX, 200, 100), Ok(()));
    }
}
