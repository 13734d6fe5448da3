//! Points in time and lengths of time for people.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::View;

/// `3m ago`; a time that has not come (clocks differ) is `now`.
pub(crate) fn ago(view: &View, then_ms: u64) -> String {
    match view.now_ms.saturating_sub(then_ms) {
        0..=999 => "now".into(),
        ms => format!("{} ago", length(ms)),
    }
}

/// A length in its largest unit, with the next below where that one is small: `42s`, `9m`, `1h30m`, `3d`.
pub(crate) fn length(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m", seconds / 60),
        3_600..=35_999 if !(seconds / 60).is_multiple_of(60) => {
            format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60)
        }
        3_600..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", super::numbers::count(seconds / 86_400)),
    }
}

/// `14:03`, and with the day when that is another one.
pub(crate) fn clock(view: &View, at_ms: u64) -> String {
    let (Some(at), Some(now)) = (zoned(&view.zone, at_ms), zoned(&view.zone, view.now_ms)) else {
        return "?".into();
    };
    let format = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

/// `2026-03-01 14:03:22`.
pub(crate) fn stamp(view: &View, at_ms: u64) -> String {
    zoned(&view.zone, at_ms).map_or_else(|| "?".into(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `14:03:22`.
pub(crate) fn clock_seconds(view: &View, at_ms: u64) -> String {
    zoned(&view.zone, at_ms).map_or_else(|| "?".into(), |at| at.strftime("%H:%M:%S").to_string())
}

/// `until 14:03 (42m)`; `until 14:03 (over)` when that has passed.
pub(crate) fn until(view: &View, at_ms: u64) -> String {
    let left = match at_ms.checked_sub(view.now_ms) {
        // To the nearest minute, so that an hour that has just begun is not 59 minutes.
        Some(ms @ 60_000..) => length(ms + 30_000),
        Some(ms) => length(ms),
        None => "over".into(),
    };
    format!("until {} ({left})", clock(view, at_ms))
}

/// `None` for a number that is no time, whoever sent it.
fn zoned(zone: &TimeZone, at_ms: u64) -> Option<jiff::Zoned> {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(at.to_zoned(zone.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_now() {
        let view = View::of_tests();
        for (before, text) in [
            (0, "now"),
            (999, "now"),
            (12_000, "12s ago"),
            (3 * 60_000, "3m ago"),
            (90 * 60_000, "1h30m ago"),
            (120 * 60_000, "2h ago"),
            (26 * 3_600_000, "26h ago"),
            (72 * 3_600_000, "3d ago"),
        ] {
            assert_eq!(ago(&view, view.now_ms - before), text);
        }
        assert_eq!(ago(&view, view.now_ms + 5_000), "now");
    }

    #[test]
    fn clocks_name_another_day_and_refuse_nonsense() {
        let view = View::of_tests();
        assert_eq!(until(&view, view.now_ms + 42 * 60_000), "until 12:42 (42m)");
        assert_eq!(until(&view, view.now_ms + 24 * 3_600_000), "until 2026-03-02 12:00 (24h)");
        assert_eq!(until(&view, view.now_ms + 3_599_000), "until 12:59 (1h)");
        assert_eq!(until(&view, view.now_ms - 60_000), "until 11:59 (over)");
        assert_eq!(stamp(&view, view.now_ms), "2026-03-01 12:00:00");
        assert_eq!((clock(&view, u64::MAX), stamp(&view, u64::MAX)), ("?".into(), "?".into()));
        assert_eq!(until(&view, u64::MAX).split(' ').nth(1), Some("?"));
    }
}
