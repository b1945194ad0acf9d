//! Exact numbers.

use std::fmt;

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// How many digits are ever printed behind a decimal point.
const MAX_DECIMALS: u32 = 400;

/// A number as it was meant, not as it was spelt: `1/2` is `0.5`, and `18.0` is `18`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number(BigRational);

impl Number {
    /// The ratio that it is.
    pub fn as_rational(&self) -> &BigRational {
        &self.0
    }

    /// It with so many digits behind the decimal point (at most 400), rounded half away from zero.
    pub fn print(&self, decimals: u32) -> String {
        let decimals = decimals.min(MAX_DECIMALS);
        let (numerator, denominator) = (self.0.numer().magnitude(), self.0.denom().magnitude());
        let doubled = numerator * power(10, decimals) * 2u8 + denominator;
        let rounded = doubled / (denominator * 2u8);
        let sign = if self.0.is_negative() && !rounded.is_zero() { "-" } else { "" };
        let width = decimals as usize + 1;
        let digits = format!("{rounded:0>width$}");
        match digits.split_at_checked(digits.len() - decimals as usize) {
            Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
            _ => format!("{sign}{digits}"),
        }
    }

    /// How many digits behind the point it takes to write it out; none where no number of them does.
    pub fn decimals(&self) -> Option<u32> {
        let mut rest = self.0.denom().magnitude().clone();
        let twos = u32::try_from(rest.trailing_zeros().unwrap_or_default()).ok()?;
        rest >>= twos;
        let mut fives = 0;
        while !rest.is_one() && (&rest % 5u8).is_zero() {
            rest /= 5u8;
            fives += 1;
        }
        Some(twos.max(fives)).filter(|decimals| rest.is_one() && *decimals <= MAX_DECIMALS)
    }
}

/// As a decimal where one is exact, otherwise as a fraction in lowest terms.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.decimals() {
            Some(decimals) => f.write_str(&self.print(decimals)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl From<BigRational> for Number {
    fn from(ratio: BigRational) -> Self {
        Self(ratio)
    }
}

impl From<i64> for Number {
    fn from(whole: i64) -> Self {
        Self(BigInt::from(whole).into())
    }
}

fn power(base: u8, exponent: u32) -> BigUint {
    BigUint::from(base).pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(numerator: i64, denominator: i64) -> Number {
        Number(BigRational::new(numerator.into(), denominator.into()))
    }

    #[test]
    fn a_number_is_shown_as_the_shortest_exact_spelling() {
        for (number, shown) in [
            (ratio(18, 1), "18"),
            (ratio(0, 7), "0"),
            (ratio(-36, 2), "-18"),
            (ratio(1, 2), "0.5"),
            (ratio(-1, 8), "-0.125"),
            (ratio(1, 3), "1/3"),
            (ratio(-10, 6), "-5/3"),
            (ratio(1_234_500, 1000), "1234.5"),
            (ratio(602_000_000_000_000_000, 1), "602000000000000000"),
            (ratio(15, 10_000), "0.0015"),
        ] {
            assert_eq!(number.to_string(), shown);
        }
        assert_eq!(Number::from(18), ratio(36, 2));
    }

    #[test]
    fn printing_rounds_half_away_from_zero() {
        for (number, decimals, printed) in [
            (ratio(5, 2), 0, "3"),
            (ratio(-5, 2), 0, "-3"),
            (ratio(1, 3), 2, "0.33"),
            (ratio(2, 3), 2, "0.67"),
            (ratio(-1, 1000), 2, "0.00"),
            (ratio(-5, 1000), 2, "-0.01"),
            (ratio(18, 1), 2, "18.00"),
            (ratio(9995, 1000), 2, "10.00"),
            (ratio(1, 16), 3, "0.063"),
        ] {
            assert_eq!(number.print(decimals), printed, "{number} with {decimals}");
        }
        assert_eq!(ratio(1, 3).print(u32::MAX).len(), 402, "bounded");
    }
}
