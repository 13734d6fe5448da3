//! Clocks that differ from the controller's: of members by their own word, of others by what they refuse.
//!
//! Must not know: why anybody connects. Written by connections, read by whoever shows warnings.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use api::MemberName;

/// A clock that is off by less is not worth a word: a slow connection looks the same.
const WORTH_A_WORD: Duration = Duration::from_secs(10);
/// Whoever has a wrong clock tries again every few seconds: after so long without, it is right or gone.
const REFUSALS_KEPT: Duration = Duration::from_secs(5 * 60);
/// Addresses that are remembered; anybody can be one.
const REFUSALS_MOST: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Clocks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// As each said at its last connection.
    members: BTreeMap<MemberName, Told>,
    /// Who refused the controller's certificate as expired, and when last.
    refusals: BTreeMap<IpAddr, Instant>,
}

#[derive(Debug)]
struct Told {
    address: Option<IpAddr>,
    at: Instant,
    /// Milliseconds that its clock is ahead.
    ahead_ms: i64,
}

impl Clocks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is one insert or removal.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member connected and said what its clock says; 0: it is of a version that does not.
    pub(crate) fn told(&self, name: &MemberName, address: Option<IpAddr>, their_ms: u64, our_ms: u64, at: Instant) {
        let milliseconds = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let ahead_ms = if their_ms == 0 { 0 } else { milliseconds(their_ms) - milliseconds(our_ms) };
        let mut inner = self.lock();
        // What it refused before is settled: it has just taken the controller's certificate.
        if let Some(address) = address {
            inner.refusals.remove(&address);
        }
        inner.members.insert(name.clone(), Told { address, at, ahead_ms });
    }

    /// Somebody refused the controller's certificate as expired.
    pub(crate) fn refused(&self, address: IpAddr, at: Instant) {
        let mut inner = self.lock();
        inner.refusals.insert(address, at);
        if inner.refusals.len() > REFUSALS_MOST
            && let Some(oldest) = inner.refusals.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address)
        {
            inner.refusals.remove(&oldest);
        }
    }

    /// What an operator should know, of members that `belong` to the fleet.
    pub(crate) fn warnings(&self, now: Instant, belongs: impl Fn(&MemberName) -> bool) -> Vec<String> {
        let mut inner = self.lock();
        inner.members.retain(|name, _| belongs(name));
        inner.refusals.retain(|_, at| now.saturating_duration_since(*at) < REFUSALS_KEPT);
        let mut warnings: Vec<String> =
            inner.members.iter().filter_map(|(name, told)| skew(name, told.ahead_ms)).collect();
        for address in inner.refusals.keys() {
            let there = inner.members.iter().filter(|(_, told)| told.address == Some(*address));
            let last = there.max_by_key(|(_, told)| told.at).map(|(name, _)| name);
            let heard = last.map_or_else(String::new, |name| format!(", from where {name} was heard last,"));
            warnings.push(format!(
                "somebody at {address}{heard} refuses the controller's certificate as expired: its clock is probably \
                 wrong"
            ));
        }
        warnings
    }
}

fn skew(name: &MemberName, ahead_ms: i64) -> Option<String> {
    let off = Duration::from_millis(ahead_ms.unsigned_abs());
    let side = if ahead_ms > 0 { "ahead of" } else { "behind" };
    (off > WORTH_A_WORD).then(|| format!("the clock of {name} is {} {side} the controller's", rough(off)))
}

/// The two largest units of a duration: `3h 2m`, `1d`, `12s`.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400, u64::MAX), ("h", 3_600, 24), ("m", 60, 60), ("s", 1, 60)];
    let parts = units.map(|(unit, size, most)| (seconds / size % most, unit));
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown = parts[first..].iter().take(2).filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 20_000 * 24 * HOUR_MS;

    fn name(text: &str) -> MemberName {
        text.parse().expect("a name")
    }

    #[test]
    fn clock_of_a_member_is_told_when_it_is_off_by_more_than_ten_seconds() {
        for (their_ms, expected) in [
            (NOW_MS, None),
            (0, None),
            (NOW_MS + 10_000, None),
            (NOW_MS - 10_000, None),
            (NOW_MS + 11_000, Some("the clock of p1 is 11s ahead of the controller's")),
            (NOW_MS - 3 * HOUR_MS - 125_000, Some("the clock of p1 is 3h 2m behind the controller's")),
            (NOW_MS - 24 * HOUR_MS, Some("the clock of p1 is 1d behind the controller's")),
            (NOW_MS + 49 * HOUR_MS + 59_000, Some("the clock of p1 is 2d 1h ahead of the controller's")),
            (1, Some("the clock of p1 is 19999d 23h behind the controller's")),
        ] {
            let (clocks, now) = (Clocks::default(), Instant::now());
            clocks.told(&name("p1"), None, their_ms, NOW_MS, now);
            assert_eq!(clocks.warnings(now, |_| true).first().map(String::as_str), expected, "{their_ms}");
            assert!(clocks.warnings(now, |_| false).is_empty(), "it does not belong to the fleet any more");
            assert!(clocks.warnings(now, |_| true).is_empty(), "and is forgotten");
        }
        let clocks = Clocks::default();
        clocks.told(&name("p1"), None, u64::MAX, 0, Instant::now());
        assert_eq!(clocks.warnings(Instant::now(), |_| true).len(), 1, "whatever it says");
        clocks.told(&name("p1"), None, NOW_MS, NOW_MS, Instant::now());
        assert!(clocks.warnings(Instant::now(), |_| true).is_empty(), "the last word counts");
    }

    #[test]
    fn clock_that_makes_somebody_refuse_the_controller_is_told_once_per_address_and_for_minutes() {
        let (clocks, now) = (Clocks::default(), Instant::now());
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 7].into(), [10, 0, 0, 8].into()];
        clocks.told(&name("p1"), Some(one), NOW_MS, NOW_MS, now);
        clocks.told(&name("p2"), Some(one), NOW_MS, NOW_MS, now + Duration::from_secs(1));
        for address in [one, one, one, other] {
            clocks.refused(address, now);
        }
        let end = "refuses the controller's certificate as expired: its clock is probably wrong";
        let expected = [
            format!("somebody at 10.0.0.7, from where p2 was heard last, {end}"),
            format!("somebody at 10.0.0.8 {end}"),
        ];
        assert_eq!(clocks.warnings(now, |_| true), expected);
        assert_eq!(clocks.warnings(now + REFUSALS_KEPT / 2, |_| true).len(), 2);
        clocks.told(&name("p1"), Some(one), NOW_MS, NOW_MS, now);
        assert_eq!(clocks.warnings(now, |_| true).len(), 1, "it takes the certificate again");
        assert!(clocks.warnings(now + REFUSALS_KEPT, |_| true).is_empty());
    }

    #[test]
    fn clock_of_strangers_takes_bounded_memory() {
        let (clocks, now) = (Clocks::default(), Instant::now());
        for number in 0..10_000u32 {
            clocks.refused(number.to_be_bytes().into(), now + Duration::from_millis(number.into()));
        }
        let warnings = clocks.warnings(now + Duration::from_secs(10), |_| true);
        assert_eq!(warnings.len(), REFUSALS_MOST);
        assert!(warnings.iter().any(|warning| warning.contains("0.0.39.15")), "the newest stay: {warnings:?}");
    }
}
