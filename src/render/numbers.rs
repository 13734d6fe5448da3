//! Numbers for people: counts, rates, shares and latencies, each in a form of steady width.

/// Shown where there is no number.
pub(crate) const NONE: &str = "-";

/// `12,340`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Requests per second: one decimal below a thousand, then none.
pub(crate) fn rate(per_second: f64) -> String {
    if !per_second.is_finite() || per_second < 0.0 {
        return NONE.into();
    }
    if per_second < 999.95 { format!("{per_second:.1}") } else { count(per_second.round() as u64) }
}

/// A weight that was set: exact, as it was written.
pub(crate) fn share_set(ppm: u32) -> String {
    api::Share::from_ppm(ppm).map_or_else(|| NONE.into(), |share| share.to_string())
}

/// A share that was measured: two decimals, four below one percent, so that 0.01 % can be seen to be met.
pub(crate) fn share_measured(ppm: u32) -> String {
    let percent = f64::from(ppm) / 10_000.0;
    if ppm > 0 && ppm < 10_000 { format!("{percent:.4}%") } else { format!("{percent:.2}%") }
}

/// A share of failures: two decimals, and never 0.00 % when there was one.
pub(crate) fn error_share(share: f64) -> String {
    let percent = share * 100.0;
    if !percent.is_finite() || percent < 0.0 {
        NONE.into()
    } else if percent > 0.0 && percent < 0.01 {
        "<0.01%".into()
    } else {
        format!("{percent:.2}%")
    }
}

/// A latency with three figures: `0.85ms`, `14.3ms`, `1.43s`.
pub(crate) fn latency(us: u64) -> String {
    let ms = us as f64 / 1_000.0;
    match us {
        0..=9_994 => format!("{ms:.2}ms"),
        9_995..=99_949 => format!("{ms:.1}ms"),
        99_950..=999_499 => format!("{ms:.0}ms"),
        999_500..=99_994_999 => format!("{:.2}s", ms / 1_000.0),
        _ => format!("{}s", count(us / 1_000_000)),
    }
}

/// The time a change took, as a sentence has it: `3.1 ms`.
pub(crate) fn took(us: u64) -> String {
    if us < 10_000_000 { format!("{:.1} ms", us as f64 / 1_000.0) } else { format!("{} s", count(us / 1_000_000)) }
}

/// A size: `12.3 MB`, in powers of ten.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..=999 => format!("{bytes} B"),
        1_000..=999_949 => format!("{:.1} kB", bytes as f64 / 1e3),
        999_950..=999_949_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_340, "12,340"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in
            [(0.0, "0.0"), (0.04, "0.0"), (61.23, "61.2"), (999.94, "999.9"), (999.96, "1,000"), (12_340.2, "12,340")]
        {
            assert_eq!(rate(number), text);
        }
        for (us, text) in [
            (0, "0.00ms"),
            (850, "0.85ms"),
            (1_234, "1.23ms"),
            (14_320, "14.3ms"),
            (143_200, "143ms"),
            (1_432_000, "1.43s"),
            (100_000_000, "100s"),
        ] {
            assert_eq!(latency(us), text);
        }
        for (size, text) in [(0, "0 B"), (1_500, "1.5 kB"), (12_345_678, "12.3 MB"), (3_000_000_000, "3.0 GB")] {
            assert_eq!(bytes(size), text);
        }
        assert_eq!((took(3_140), took(12_000_000)), ("3.1 ms".into(), "12 s".into()));
    }

    #[test]
    fn a_small_share_is_never_shown_as_none() {
        for (ppm, set, measured) in [
            (0, "0%", "0.00%"),
            (1, "0.0001%", "0.0001%"),
            (101, "0.0101%", "0.0101%"),
            (500_200, "50.02%", "50.02%"),
            (1_000_000, "100%", "100.00%"),
        ] {
            assert_eq!((share_set(ppm).as_str(), share_measured(ppm).as_str()), (set, measured));
        }
        for (share, text) in [(0.0, "0.00%"), (0.000_01, "<0.01%"), (0.05, "5.00%"), (1.0, "100.00%")] {
            assert_eq!(error_share(share), text);
        }
    }

    #[test]
    fn numbers_that_are_none_are_shown_as_none() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            assert_eq!((rate(bad).as_str(), error_share(bad).as_str()), (NONE, NONE));
        }
        assert_eq!(share_set(2_000_000), NONE);
    }
}
