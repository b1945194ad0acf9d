//! Lists of which no more is held than is wanted.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

/// The first item of a list; the others are passed over.
#[derive(Debug)]
pub struct First<T>(pub Option<T>);

/// A list of at most `N` items; a longer one is an error.
#[derive(Debug)]
pub struct UpTo<T, const N: usize>(pub Vec<T>);

/// Hands over the items of a list one after the other; how many there were.
///
/// # Errors
/// When `json` is no list of these.
pub fn each<'a, T: Deserialize<'a>>(json: &'a str, take: impl FnMut(T)) -> Result<usize, serde_json::Error> {
    struct Each<T, F>(F, PhantomData<T>);
    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for Each<T, F> {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<usize, A::Error> {
            let mut count = 0;
            while let Some(item) = items.next_element()? {
                (self.0)(item);
                count += 1;
            }
            Ok(count)
        }
    }
    let mut json = serde_json::Deserializer::from_str(json);
    let count = json.deserialize_seq(Each(take, PhantomData))?;
    json.end()?;
    Ok(count)
}

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T, const N: usize> Default for UpTo<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
            type Value = First<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<First<T>, A::Error> {
                let first = items.next_element()?;
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for UpTo<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = UpTo<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<UpTo<T, N>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    if list.len() == N {
                        return Err(A::Error::invalid_length(N + 1, &self));
                    }
                    list.push(item);
                }
                Ok(UpTo(list))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_far_as_it_is_wanted() {
        let first = |json| serde_json::from_str::<First<u8>>(json).map(|First(first)| first);
        assert_eq!(first("[1, {\"a\": [2]}, null]").unwrap(), Some(1));
        assert_eq!(first("[]").unwrap(), None);
        for json in ["{}", "null", "[1", "[\"a\"]", "[1] 2"] {
            assert!(first(json).is_err(), "{json}");
        }
        let up_to = |json| serde_json::from_str::<UpTo<u8, 2>>(json).map(|UpTo(list)| list);
        assert_eq!(up_to("[1,2]").unwrap(), [1, 2]);
        assert!(up_to("[1,2,3]").unwrap_err().to_string().contains("at most 2 items"));
        let mut seen = Vec::new();
        assert_eq!(each(" [1, 2,3] ", |item: u8| seen.push(item)).unwrap(), 3);
        assert_eq!(seen, [1, 2, 3]);
        for json in ["{}", "null", "[1", "[\"a\"]", "[1] 2"] {
            assert!(each(json, |_: u8| {}).is_err(), "{json}");
        }
    }
}
