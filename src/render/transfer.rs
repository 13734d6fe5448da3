//! Bytes on their way to a registry.

use api::operator::Transfer;

use super::bar::bar;
use super::{Line, Style, View, numbers};

/// What is pushed, how much of it is there, and how fast the rest comes; never wider than the terminal.
pub(crate) fn transfer(transfer: &Transfer, bytes_per_sec: Option<u64>, view: &View) -> Line {
    let Transfer { what, done_bytes, all_bytes } = transfer;
    let ppm = u128::from(*done_bytes) * 1_000_000 / u128::from(*all_bytes).max(1);
    let mut line = Line::of(Style::Moving, "pushing ").with(Style::Plain, what).with(Style::Plain, "  ");
    line.append(bar(u32::try_from(ppm).unwrap_or(u32::MAX), view.unicode));
    line.push(Style::Plain, format!("  {} of {}", numbers::bytes(*done_bytes), numbers::bytes(*all_bytes)));
    if let Some(rate) = bytes_per_sec {
        line.push(Style::Dim, format!(", {}/s", numbers::bytes(rate)));
    }
    view.width.map_or_else(|| line.clone(), |width| line.cut(width, view.unicode))
}

/// How fast something goes: since it began, or began anew with other bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace {
    what: String,
    since_ms: u64,
    from_bytes: u64,
}

impl Pace {
    /// Bytes per second until now; none: too early to tell.
    pub(crate) fn at(&mut self, transfer: &Transfer, now_ms: u64) -> Option<u64> {
        if self.since_ms == 0 || self.what != transfer.what || transfer.done_bytes < self.from_bytes {
            *self = Self { what: transfer.what.clone(), since_ms: now_ms, from_bytes: transfer.done_bytes };
        }
        let passed_ms = now_ms.saturating_sub(self.since_ms);
        let bytes = transfer.done_bytes - self.from_bytes;
        (passed_ms >= 1_000)
            .then(|| u64::try_from(u128::from(bytes) * 1_000 / u128::from(passed_ms)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(what: &str, done_bytes: u64, all_bytes: u64) -> Transfer {
        Transfer { what: what.into(), done_bytes, all_bytes }
    }

    #[test]
    fn hostile_transfers_stay_on_one_line() {
        let mut view = View::of_tests();
        let text = |transfer_: &Transfer, rate, view: &View| transfer(transfer_, rate, view).text();
        assert_eq!(
            text(&of("web", 512_000_000, 1_024_000_000), Some(180_000_000), &view),
            "pushing web  █████·····  512.0 MB of 1.0 GB, 180.0 MB/s"
        );
        view.unicode = false;
        assert_eq!(text(&of("ui for qa", 0, 0), None, &view), "pushing ui for qa  ..........  0 B of 0 B");
        // More than all, names that move the cursor, a narrow terminal.
        let odd = of("\x1b[2Jweb\n", u64::MAX, 1);
        assert!(text(&odd, Some(u64::MAX), &view).starts_with(r"pushing \u{1b}[2Jweb\n  ##########  "));
        view.width = Some(20);
        assert_eq!(transfer(&odd, None, &view).width(), 20);
    }

    #[test]
    fn a_pace_begins_with_each_transfer() {
        let mut pace = Pace::default();
        for (what, done, now_ms, expected) in [
            ("web", 100, 1_000, None),
            ("web", 200, 1_500, None),
            ("web", 300, 3_000, Some(100)),
            ("ui", 300, 4_000, None),
            ("ui", 1_300, 5_000, Some(1_000)),
            // Begun anew, and a clock that goes back.
            ("ui", 0, 9_000, None),
            ("ui", 10, 8_000, None),
            ("ui", 4_000, 11_000, Some(2_000)),
        ] {
            assert_eq!(pace.at(&of(what, done, 5_000), now_ms), expected, "{what} {done} at {now_ms}");
        }
    }
}
