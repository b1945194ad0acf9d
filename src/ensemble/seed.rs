//! Chance that a request id decides, so that a request that is sent again fares alike.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The chance that belongs to `seed`. What must not hang together needs seeds of its own.
pub(super) fn rng(seed: &str) -> ChaCha8Rng {
    let mut bytes = [0u8; 32];
    for (i, byte) in seed.bytes().enumerate() {
        // Folded, so that every byte of a long id counts.
        if let Some(slot) = bytes.get_mut(i % 32) {
            *slot = slot.rotate_left(3) ^ byte;
        }
    }
    ChaCha8Rng::from_seed(bytes)
}
