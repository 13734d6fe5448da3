//! What a test has found, as people read it: odds.
//!
//! Must not know: how evidence is made, or when it is enough.
//!
//! Main function: [`words`], of one test; [`Odds`] is one number.

use std::fmt;

use crate::judge::Test;

/// Beyond this nobody reads the digits.
const MOST: u64 = 100_000;

/// Evidence as odds: `3,300 to 1`, `1 to 20`. Given as a natural logarithm in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Odds(pub(crate) i64);

/// Both sides of a test, and from where on either is enough.
pub(crate) fn words(test: &Test) -> String {
    let Test { worse_milli, no_worse_milli, enough_milli, .. } = test;
    format!(
        "{} that it is worse, {} no worse; {} is enough",
        Odds(*worse_milli),
        Odds(*no_worse_milli),
        Odds(*enough_milli)
    )
}

impl fmt::Display for Odds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Thousandths were cut off, not rounded: half of one is likely missing. Capped, so that nothing overflows.
        let to_one = ((self.0.unsigned_abs().min(20_000) as f64 + 0.5) / 1_000.0).exp().round() as u64;
        let to_one = three_figures(to_one);
        let over = if to_one > MOST { "over " } else { "" };
        let number = grouped(to_one.min(MOST));
        if self.0 < 0 { write!(f, "{over}1 to {number}") } else { write!(f, "{over}{number} to 1") }
    }
}

/// More of them say nothing about odds, and would not hide that logarithms are rounded.
fn three_figures(number: u64) -> u64 {
    let mut unit = 1;
    while number / unit >= 1_000 {
        unit *= 10;
    }
    (number + unit / 2) / unit * unit
}

/// `12,340`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let (head, tail) = digits.split_at(digits.len() % 3);
    let groups = tail.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    let head = (!head.is_empty()).then(|| head.to_owned());
    head.into_iter().chain(groups).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_odds_are_for_people() {
        for (milli, expected) in [
            (0, "1 to 1"),
            (300, "1 to 1"),
            (700, "2 to 1"),
            (-1_100, "1 to 3"),
            (6_908, "1,000 to 1"),
            (7_600, "2,000 to 1"),
            (6_907, "1,000 to 1"),
            (8_100, "3,300 to 1"),
            (-9_210, "1 to 10,000"),
            (11_500, "98,800 to 1"),
            (14_000, "over 100,000 to 1"),
            (i64::MAX, "over 100,000 to 1"),
            (i64::MIN, "over 1 to 100,000"),
        ] {
            assert_eq!(Odds(milli).to_string(), expected, "{milli}");
        }
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_340, "12,340"), (123_456, "123,456")] {
            assert_eq!(grouped(number), expected);
        }
    }
}
