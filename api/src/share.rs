//! Shares of traffic as people write them, and weights as the proxy uses them.
//!
//! A percentage exists only where people write or read it. Between the parts a share is a whole number of parts per
//! million, so that `0.01%` and three thirds of it are exact.

use std::fmt;
use std::str::FromStr;

use crate::{NotAccepted, serde_as_text};

/// Relative weight of one backend.
///
/// Not a percentage: a backend receives `weight / sum(weights)`; `0` sends nothing. Range `0..=1_000_000`.
/// Source: Gateway API, `BackendRef.weight`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Weight(u32);

impl Weight {
    /// Sends nothing.
    pub const ZERO: Self = Self(0);
    /// Largest weight; alone or beside zeros it receives everything.
    pub const MAX: Self = Self(1_000_000);

    /// From a bare number; `None` above 1,000,000.
    pub fn new(weight: u32) -> Option<Self> {
        (weight <= Self::MAX.0).then_some(Self(weight))
    }

    /// The bare number.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// Share of a stage's requests in parts per million, written as a percentage: `0.01%`, `12.5%`, `100%`.
///
/// Range `0..=1_000_000`. At most four decimals, so that every accepted text is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Everything.
    pub const ALL: Self = Self(1_000_000);

    /// From parts per million; `None` above 1,000,000.
    pub fn from_ppm(ppm: u32) -> Option<Self> {
        (ppm <= Self::ALL.0).then_some(Self(ppm))
    }

    /// Parts per million.
    pub fn ppm(self) -> u32 {
        self.0
    }

    /// What remains: `share + rest == everything`.
    #[must_use]
    pub fn rest(self) -> Self {
        Self(Self::ALL.0 - self.0)
    }

    /// The weight that gives this share beside the weight of [`Share::rest`].
    pub fn weight(self) -> Weight {
        Weight(self.0)
    }
}

impl FromStr for Share {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || {
            NotAccepted::new(
                "a share",
                text,
                "a percentage from 0% to 100% with at most four decimals, such as \"0.01%\" or \"12.5%\"",
            )
        };
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, 3) || !digits(decimals, 4) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let decimals: u32 = format!("{decimals:0<4}").parse().map_err(|_| wrong())?;
        Self::from_ppm(whole * 10_000 + decimals).ok_or_else(wrong)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / 10_000, self.0 % 10_000);
        if decimals == 0 {
            return f.pad(&format!("{whole}%"));
        }
        let text = format!("{whole}.{decimals:04}");
        f.pad(&format!("{}%", text.trim_end_matches('0')))
    }
}

serde_as_text!(Share);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        for (text, ppm) in [
            ("0%", 0),
            ("0.0001%", 1),
            ("0.01%", 100),
            ("1%", 10_000),
            ("12.5%", 125_000),
            ("99.9999%", 999_999),
            ("100%", 1_000_000),
        ] {
            let share: Share = text.parse().expect(text);
            assert_eq!(share.ppm(), ppm);
            assert_eq!(share.to_string(), text);
            assert_eq!(share.ppm() + share.rest().ppm(), 1_000_000);
        }
    }

    #[test]
    fn hostile_h83_shares_refuse_the_rest() {
        for bad in [
            "",
            "%",
            "1",
            "-1%",
            "+1%",
            "NaN%",
            "inf%",
            "1e9%",
            "100.0001%",
            "101%",
            "0.00001%",
            "1.%",
            ".5%",
            " 1%",
            "1 %",
            "1,5%",
            "1000%",
            "٣%",
        ] {
            let error = bad.parse::<Share>().expect_err(bad);
            assert!(error.to_string().contains("0% to 100%"), "{error}");
        }
    }
}
