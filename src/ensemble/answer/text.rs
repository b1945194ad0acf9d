//! Free texts: never equal, only more or less alike.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use unicode_segmentation::UnicodeSegmentation;

/// How much of a text is compared, in bytes: others wait meanwhile.
const MAX_BYTES: usize = 256 << 10;

/// What is compared of a text: the set of its pairs of neighbouring words.
///
/// Words are those of Unicode (UAX #29), in lower case: where a script writes no spaces, as Chinese, each
/// character is one. A text of a single word is the set of that word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text {
    /// Hashes of the pairs, ascending, each once.
    pairs: Box<[u64]>,
}

impl Text {
    /// What is compared of `text`: its first 256 KiB.
    pub fn of(text: &str) -> Self {
        let text = text.get(..text.floor_char_boundary(MAX_BYTES)).unwrap_or(text);
        let words: Vec<u64> = text.unicode_words().map(|word| hash(&word.to_lowercase())).collect();
        let mut pairs = if words.len() < 2 { words } else { words.windows(2).map(hash).collect() };
        pairs.sort_unstable();
        pairs.dedup();
        Self { pairs: pairs.into() }
    }

    /// How alike two texts are, 0 to 1: what share of all their pairs of words both have (Jaccard's index).
    /// Two empty texts are alike.
    pub fn similarity(&self, other: &Self) -> f64 {
        let both = shared(&self.pairs, &other.pairs);
        let all = self.pairs.len() + other.pairs.len() - both;
        if all == 0 { 1.0 } else { both as f64 / all as f64 }
    }
}

/// How many elements two ascending sequences share.
fn shared(a: &[u64], b: &[u64]) -> usize {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut count = 0;
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        let order = x.cmp(y);
        count += usize::from(order.is_eq());
        if order.is_le() {
            a.next();
        }
        if order.is_ge() {
            b.next();
        }
    }
    count
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_alike_by_their_pairs_of_words() {
        for (a, b, similarity) in [
            ("", "", 1.0),
            ("", " ,. ", 1.0),
            ("", "yes", 0.0),
            ("yes", "Yes!", 1.0),
            ("yes", "no", 0.0),
            ("yes", "yes yes", 0.0),
            ("The sky is blue.", "the SKY is, blue", 1.0),
            ("the sky is blue", "the sky is grey", 0.5),
            ("the sky is blue", "is the sky blue", 0.2),
            ("Über  straße", "über\nStraße", 1.0),
            ("今天天气很好", "今天天气不好", 3.0 / 7.0),
            ("a b a b a b", "a b a", 1.0),
        ] {
            assert_eq!(Text::of(a).similarity(&Text::of(b)), similarity, "{a:?} and {b:?}");
        }
    }

    #[test]
    fn a_text_is_compared_as_far_as_the_bound_and_no_further() {
        let beginning = "word ".repeat(MAX_BYTES / 5 + 1);
        let (within, past) = (beginning.split_at(MAX_BYTES - 4).0, beginning.split_at(MAX_BYTES).0);
        assert!(Text::of(&format!("{within}once")).similarity(&Text::of(&format!("{within}else"))) < 1.0);
        assert_eq!(Text::of(&format!("{past} once")).similarity(&Text::of(&format!("{past} else"))), 1.0);
    }

    proptest! {
        #[test]
        fn similarity_is_symmetric_bounded_and_one_for_itself(a in "[ab ]{0,12}", b in "[ab ]{0,12}") {
            let (x, y) = (Text::of(&a), Text::of(&b));
            prop_assert_eq!(x.similarity(&y), y.similarity(&x));
            prop_assert!((0.0..=1.0).contains(&x.similarity(&y)));
            prop_assert_eq!(x.similarity(&Text::of(&a)), 1.0);
        }
    }
}
