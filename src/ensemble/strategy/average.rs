//! The middle of the numbers that members gave.

use num_rational::BigRational;
use num_traits::{Signed, Zero};

use super::super::answer::{Found, Number};
use super::super::candidate::Candidate;
use super::Average;
use crate::chat::{Completion, CompletionError};

/// The middle, and who carries it.
pub(in super::super) struct Middle {
    /// The place of the candidate whose number is nearest to it.
    pub(in super::super) place: usize,
    /// That candidate's message with the middle in the place of its number; none where it is the same.
    pub(in super::super) rewritten: Option<Completion>,
}

/// The middle of these candidates' numbers, printed with as many decimals as the nearest of them has; none where
/// there is no number. Those without a number abstain.
///
/// # Errors
/// When a message cannot be rewritten.
pub(in super::super) fn middle(
    average: Average,
    candidates: &[Candidate],
    read: impl Fn(&Completion) -> Option<Found>,
) -> Result<Option<Middle>, CompletionError> {
    let found: Vec<(usize, &Candidate, Found)> = candidates
        .iter()
        .enumerate()
        .filter_map(|(place, candidate)| Some((place, candidate, read(&candidate.completion)?)))
        .collect();
    let mut numbers: Vec<BigRational> = found.iter().map(|(.., f)| f.value.as_rational().clone()).collect();
    numbers.sort();
    let value = match average {
        Average::Median => median(&numbers),
        Average::Mean => mean(&without_outliers(&numbers)),
    };
    let Some(value) = value else {
        return Ok(None);
    };
    let distance = |found: &Found| (found.value.as_rational() - &value).abs();
    let nearest = found.iter().reduce(|best, next| {
        let is_nearer = distance(&next.2).cmp(&distance(&best.2)).reverse();
        if is_nearer.then(next.1.weight.total_cmp(&best.1.weight)).is_gt() { next } else { best }
    });
    let Some((place, candidate, carrier)) = nearest else {
        return Ok(None);
    };
    let printed = Number::from(value).print(carrier.decimals);
    let is_same = carrier.value.print(carrier.decimals) == printed;
    let rewritten = if is_same { None } else { Some(rewritten(&candidate.completion, carrier, &printed)?) };
    Ok(Some(Middle { place: *place, rewritten }))
}

/// The middle one of ascending numbers, or the mean of the two in the middle.
fn median(ascending: &[BigRational]) -> Option<BigRational> {
    let half = ascending.len() / 2;
    let upper = ascending.get(half)?;
    if ascending.len() % 2 == 1 {
        return Some(upper.clone());
    }
    let lower = ascending.get(half.checked_sub(1)?)?;
    Some((lower + upper) / BigRational::from_integer(2.into()))
}

fn mean(numbers: &[BigRational]) -> Option<BigRational> {
    let sum = numbers.iter().fold(BigRational::zero(), |sum, number| sum + number);
    (!numbers.is_empty()).then(|| sum / BigRational::from_integer(numbers.len().into()))
}

/// Without the numbers whose modified z-score, 0.6745 × distance from the median ÷ median absolute deviation (MAD),
/// is above 3.5 (Iglewicz and Hoaglin, 1993). Where more than half are equal the MAD is 0, and only these stay.
fn without_outliers(ascending: &[BigRational]) -> Vec<BigRational> {
    let Some(median_value) = median(ascending) else {
        return Vec::new();
    };
    let deviation = |number: &BigRational| (number - &median_value).abs();
    let mut deviations: Vec<BigRational> = ascending.iter().map(deviation).collect();
    deviations.sort();
    let mad = median(&deviations).unwrap_or_else(BigRational::zero);
    let ratio = |numerator: i32, denominator: i32| BigRational::new(numerator.into(), denominator.into());
    let bound = mad * ratio(35_000, 6_745);
    ascending.iter().filter(|number| deviation(number) <= bound).cloned().collect()
}

/// A message with another number in its text. Log probabilities were those of its own text.
fn rewritten(completion: &Completion, found: &Found, printed: &str) -> Result<Completion, CompletionError> {
    let content = completion.content.as_deref().unwrap_or_default();
    let before = content.get(..found.span.start).unwrap_or_default();
    let after = content.get(found.span.end..).unwrap_or_default();
    completion.with_content(&format!("{before}{printed}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[i64]) -> Vec<BigRational> {
        let mut numbers: Vec<_> = numbers.iter().map(|n| BigRational::from_integer((*n).into())).collect();
        numbers.sort();
        numbers
    }

    fn shown(number: Option<BigRational>) -> String {
        number.map(|n| Number::from(n).to_string()).unwrap_or_default()
    }

    #[test]
    fn the_median_is_the_middle_one_or_the_mean_of_the_middle_two() {
        for (given, expected) in
            [(&[][..], ""), (&[7], "7"), (&[9, 1], "5"), (&[9, 1, 2], "2"), (&[4, 1, 100, 3], "3.5")]
        {
            assert_eq!(shown(median(&numbers(given))), expected, "{given:?}");
        }
    }

    #[test]
    fn outliers_by_the_mad_are_dropped_from_the_mean() {
        for (given, expected) in [
            (&[10, 11, 12, 13, 1000][..], "11.5"),
            (&[10, 11, 12, 13, 14], "12"),
            (&[5, 5, 5, 9], "5"),
            (&[1, 3], "2"),
            // 3.5 × 1 ÷ 0.6745 is 5.189: a distance of 5 stays, one of 6 goes.
            (&[9, 10, 10, 11, 15], "11"),
            (&[9, 9, 10, 11, 11, 16], "10"),
        ] {
            assert_eq!(shown(mean(&without_outliers(&numbers(given)))), expected, "{given:?}");
        }
        assert_eq!(mean(&[]), None);
    }
}
