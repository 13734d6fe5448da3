//! Lengths of time as people write them: `500ms`, `2s`, `15m`, `1h30m`, `7d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{NotAccepted, serde_as_text};

/// A length of time in whole milliseconds, from 1 ms to 366 days.
///
/// Written as numbers with units `ms`, `s`, `m`, `h`, `d`, the larger first, each at most once: `1h30m`. A day is 24
/// hours. The bound keeps every sum with a point in time far from overflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

/// Largest first. `ms` stands before `m` where a suffix is looked for, see `from_str`.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Span {
    /// Longest accepted span.
    pub const MAX: Self = Self(366 * 86_400_000);

    /// From milliseconds; `None` for 0 and above 366 days.
    pub const fn from_ms(ms: u64) -> Option<Self> {
        if ms >= 1 && ms <= Self::MAX.0 { Some(Self(ms)) } else { None }
    }

    /// Milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// As the standard type.
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl FromStr for Span {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let wrong = || {
            NotAccepted::new(
                "a duration",
                text,
                "numbers with units d, h, m, s, ms, the larger first, from 1ms to 366d, such as \"30s\" or \"1h30m\"",
            )
        };
        let (mut rest, mut units, mut total) = (text, UNITS.iter(), 0u64);
        if text.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(letters);
            // `find` moves the iterator on, so that a unit is neither repeated nor followed by a larger one.
            let (_, factor) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            total = number.checked_mul(*factor).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
            rest = tail;
        }
        Self::from_ms(total).ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut rest, mut text) = (self.0, String::new());
        for (unit, factor) in UNITS {
            if rest >= factor {
                text.push_str(&format!("{}{unit}", rest / factor));
                rest %= factor;
            }
        }
        f.pad(&text)
    }
}

serde_as_text!(Span);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_trip() {
        for (text, ms) in [
            ("1ms", 1),
            ("500ms", 500),
            ("2s", 2_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("1s500ms", 1_500),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!((span.ms(), span.to_string().as_str()), (ms, text));
        }
        assert_eq!("90m".parse::<Span>().expect("90m").to_string(), "1h30m");
    }

    #[test]
    fn hostile_h83_spans_refuse_the_rest() {
        for bad in [
            "",
            "0s",
            "-1s",
            "1",
            "s",
            "1.5h",
            "1m1h",
            "1s1s",
            "10000y",
            "3660000d",
            "99999999999999999999s",
            "1 s",
            "NaN",
            "1S",
            "٣s",
        ] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
