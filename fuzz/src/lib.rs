//! What the targets share.

/// Ways to cut bytes into pieces: not at all, at every byte, at each single place of a short text, and into pieces of
/// lengths that the bytes themselves decide.
pub fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut ways = vec![vec![bytes], bytes.chunks(1).collect()];
    if bytes.len() <= 48 {
        ways.extend((1..bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]));
    }
    let mut seed = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for longest in [3, 17, 251] {
        let (mut way, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = usize::try_from((seed >> 33) % longest + 1).expect("it is small");
            let (piece, left) = rest.split_at(length.min(rest.len()));
            way.push(piece);
            rest = left;
        }
        ways.push(way);
    }
    ways
}
