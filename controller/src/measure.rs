//! What the proxies counted, folded over the fleet: totals since the controller started, and the last seconds.
//!
//! Must not know: clocks. `now` is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use api::fleet::{Counts, ReleaseCounts};
use api::{Histogram, MemberName, ReleaseNumber, StageName};

use crate::fleet::LEASE;

/// "The last seconds": long enough for a rate that does not jump, short enough to see what a step did.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// What a report tells of: the second before it, and a little that it was on its way.
const REPORT: Duration = Duration::from_millis(1_100);

/// For so long after a change nobody knows a rate: two reports.
const UNKNOWN: Duration = Duration::from_millis(2_500);

/// Counters of one release in one stage.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    /// Answers of class 5xx, gRPC errors beside HTTP 200, and requests without an answer.
    pub(crate) failed: u64,
    pub(crate) latency: Histogram,
}

/// Stage and release, as they are counted.
type Key = (String, u32);

#[derive(Default)]
pub(crate) struct Measure {
    proxies: HashMap<MemberName, Reported>,
    totals: HashMap<Key, Totals>,
    /// Differences of the last seconds, oldest first.
    recent: HashMap<Key, VecDeque<(Instant, Totals)>>,
    /// When the first report came.
    first: Option<Instant>,
    /// When `recent` was last cleared of releases that nobody asks for any more.
    cleared: Option<Instant>,
    /// What there is to be counted: stages with the newest release of their service.
    newest: HashMap<String, ReleaseNumber>,
}

/// The last counters of one run of one proxy.
#[derive(Default)]
struct Reported {
    run: u64,
    heard: Option<Instant>,
    releases: HashMap<Key, (Totals, u64)>,
}

impl Measure {
    /// From now on a stage is counted, up to this release. What proxies report beyond is passed over, so that memory
    /// grows with what there is and not with what is said.
    pub(crate) fn know(&mut self, stage: &StageName, newest: ReleaseNumber) {
        self.newest.insert(stage.to_string(), newest);
    }

    /// Nothing is in flight on a proxy that left the fleet.
    pub(crate) fn forget(&mut self, proxy: &MemberName) {
        if let Some(reported) = self.proxies.get_mut(proxy) {
            reported.releases.values_mut().for_each(|(_, outstanding)| *outstanding = 0);
        }
    }

    /// Takes in a report: counters only grow within a run, so what counts is the difference to the one before.
    pub(crate) fn take_in(&mut self, proxy: &MemberName, counts: &Counts, now: Instant) {
        // What a proxy counted before we knew it is part of the totals, but nobody knows when it was.
        let known = self.proxies.contains_key(proxy);
        self.first.get_or_insert(now);
        let reported = self.proxies.entry(proxy.clone()).or_default();
        if reported.run != counts.run {
            *reported = Reported { run: counts.run, ..Reported::default() };
        }
        reported.heard = Some(now);
        for release in &counts.releases {
            let newest = self.newest.get(&release.stage).copied();
            if !newest.is_some_and(|newest| (1..=newest.number()).contains(&release.release)) {
                continue;
            }
            let key = (release.stage.clone(), release.release);
            let totals = Totals::from(release);
            let (before, outstanding) = reported.releases.entry(key.clone()).or_default();
            let difference = totals.since(before);
            (*before, *outstanding) = (totals, release.outstanding);
            if difference.requests > 0 || difference.failed > 0 || difference.latency.total() > 0 {
                self.totals.entry(key.clone()).or_default().add(&difference);
                if known {
                    let recent = self.recent.entry(key).or_default();
                    recent.push_back((now, difference));
                    while recent.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
                        recent.pop_front();
                    }
                }
            }
        }
        if self.cleared.is_none_or(|cleared| now.duration_since(cleared) >= WINDOW) {
            self.cleared = Some(now);
            self.recent.retain(|_, all| all.back().is_some_and(|(at, _)| now.duration_since(*at) < WINDOW));
        }
    }

    /// Since the controller started, as far as the proxies' runs reach back.
    pub(crate) fn total(&self, stage: &StageName, release: ReleaseNumber) -> Totals {
        self.totals.get(&(stage.to_string(), release.number())).cloned().unwrap_or_default()
    }

    /// Over the last [`WINDOW`].
    pub(crate) fn recent(&self, stage: &StageName, release: ReleaseNumber, now: Instant) -> Totals {
        self.recent_since(stage, release, None, now)
    }

    /// The same, without what was counted before something changed; none: nothing has.
    pub(crate) fn recent_since(
        &self,
        stage: &StageName,
        release: ReleaseNumber,
        changed: Option<Instant>,
        now: Instant,
    ) -> Totals {
        let mut sum = Totals::default();
        let is_after = |at: Instant| changed.is_none_or(|changed| at >= changed + REPORT);
        for (at, difference) in self.recent.get(&(stage.to_string(), release.number())).into_iter().flatten() {
            if now.duration_since(*at) < WINDOW && is_after(*at) {
                sum.add(difference);
            }
        }
        sum
    }

    /// Requests a second of the last seconds, since something changed; none: it is too early to say.
    pub(crate) fn rate_since(
        &self,
        stage: &StageName,
        release: ReleaseNumber,
        changed: Option<Instant>,
        now: Instant,
    ) -> Option<f64> {
        let since = self.first?.max(changed.unwrap_or(self.first?));
        let looked = now.duration_since(since).min(WINDOW);
        let counted = self.recent_since(stage, release, changed, now).requests;
        (looked >= UNKNOWN).then(|| counted as f64 / looked.as_secs_f64())
    }

    /// Requests in flight now, by all proxies that were heard of within the lease.
    pub(crate) fn outstanding(&self, stage: &StageName, release: ReleaseNumber, now: Instant) -> u64 {
        let key = (stage.to_string(), release.number());
        let leased = |reported: &&Reported| reported.heard.is_some_and(|heard| now.duration_since(heard) < LEASE);
        self.proxies
            .values()
            .filter(leased)
            .filter_map(|reported| reported.releases.get(&key))
            .fold(0, |sum, (_, outstanding)| sum.saturating_add(*outstanding))
    }
}

// === impl Totals ===

impl From<&ReleaseCounts> for Totals {
    fn from(counts: &ReleaseCounts) -> Self {
        let errors = counts.by_class.get(4).copied().unwrap_or(0);
        Self {
            requests: counts.requests,
            // Counts come from other machines: any number is possible.
            failed: errors.saturating_add(counts.grpc_errors).saturating_add(counts.unanswered),
            latency: counts.latency.as_ref().map(Histogram::from).unwrap_or_default(),
        }
    }
}

impl Totals {
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failed: self.failed.saturating_sub(before.failed),
            latency: self.latency.since(&before.latency),
        }
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failed = self.failed.saturating_add(other.failed);
        self.latency.merge(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the first release of hello/dev.
    fn measure() -> Measure {
        let mut measure = Measure::default();
        measure.know(&"hello/dev".parse().expect("stage"), ReleaseNumber::FIRST);
        measure
    }

    fn report(run: u64, requests: u64, errors: u64, outstanding: u64) -> Counts {
        let by_class = vec![0, requests - errors, 0, 0, errors];
        let release = ReleaseCounts {
            stage: "hello/dev".into(),
            release: 1,
            requests,
            by_class,
            outstanding,
            ..ReleaseCounts::default()
        };
        Counts { run, releases: vec![release], ..Counts::default() }
    }

    #[test]
    fn totals_survive_a_restart_of_a_proxy_and_leave_the_window() {
        let (stage, release): (StageName, _) = ("hello/dev".parse().expect("stage"), ReleaseNumber::FIRST);
        let (one, other): (MemberName, MemberName) = ("p1".parse().expect("name"), "p2".parse().expect("name"));
        let (mut measure, start) = (measure(), Instant::now());
        // Both are known, with nothing counted yet.
        measure.take_in(&one, &Counts { run: 7, ..Counts::default() }, start);
        measure.take_in(&other, &Counts { run: 8, ..Counts::default() }, start);
        measure.take_in(&one, &report(7, 100, 5, 2), start);
        measure.take_in(&other, &report(8, 10, 0, 1), start);
        measure.take_in(&one, &report(7, 150, 5, 0), start + Duration::from_secs(1));
        measure.take_in(&one, &report(9, 20, 1, 3), start + Duration::from_secs(2));
        let total = measure.total(&stage, release);
        assert_eq!((total.requests, total.failed), (180, 6));
        let now = start + Duration::from_secs(2);
        assert_eq!(measure.outstanding(&stage, release, now), 4);
        assert_eq!(measure.outstanding(&stage, release, start + LEASE), 3, "the other was not heard of for so long");
        measure.forget(&one);
        assert_eq!(measure.outstanding(&stage, release, now), 1);
        assert_eq!(measure.recent(&stage, release, start + Duration::from_secs(2)).requests, 180);
        assert_eq!(measure.recent(&stage, release, start + Duration::from_secs(11)).requests, 20);
        assert_eq!(measure.recent(&stage, release, start + Duration::from_secs(13)).requests, 0);
    }

    #[test]
    fn what_is_counted_is_what_there_is() {
        let (mut measure, start) = (measure(), Instant::now());
        for number in 0..100 {
            let mut counts = report(7, 100, 5, 2);
            counts.releases[0].release = number;
            measure.take_in(&"p1".parse().expect("name"), &counts, start);
            counts.releases[0].stage = format!("hello/e{number}");
            measure.take_in(&"p1".parse().expect("name"), &counts, start);
        }
        assert_eq!((measure.totals.len(), measure.recent.len()), (1, 1));
        let p1 = measure.proxies.values().next().expect("p1");
        assert_eq!(p1.releases.len(), 1);
        // What nobody reports any more leaves the last seconds.
        measure.take_in(&"p1".parse().expect("name"), &Counts { run: 7, ..Counts::default() }, start + WINDOW);
        assert_eq!(measure.recent.len(), 0);
    }

    #[test]
    fn counts_of_any_size_are_taken() {
        let (stage, release): (StageName, _) = ("hello/dev".parse().expect("stage"), ReleaseNumber::FIRST);
        let (mut measure, start) = (measure(), Instant::now());
        for proxy in ["p1", "p2"] {
            let proxy = proxy.parse().expect("name");
            measure.take_in(&proxy, &Counts { run: 7, ..Counts::default() }, start);
            let mut counts = report(7, u64::MAX, u64::MAX, u64::MAX);
            counts.releases[0].grpc_errors = u64::MAX;
            measure.take_in(&proxy, &counts, start);
        }
        assert_eq!(measure.total(&stage, release).failed, u64::MAX);
        assert_eq!(measure.recent(&stage, release, start).requests, u64::MAX);
        assert_eq!(measure.outstanding(&stage, release, start), u64::MAX);
    }

    #[test]
    fn what_was_counted_before_the_controller_started_is_no_rate() {
        let (stage, release): (StageName, _) = ("hello/dev".parse().expect("stage"), ReleaseNumber::FIRST);
        let (mut measure, start) = (measure(), Instant::now());
        measure.take_in(&"p1".parse().expect("name"), &report(7, 1_000_000, 0, 0), start);
        assert_eq!(
            (measure.total(&stage, release).requests, measure.recent(&stage, release, start).requests),
            (1_000_000, 0)
        );
        measure.take_in(&"p1".parse().expect("name"), &report(7, 1_000_050, 0, 0), start);
        assert_eq!(measure.recent(&stage, release, start).requests, 50);
    }

    #[test]
    fn what_was_counted_before_a_change_says_nothing_of_what_is_so_since() {
        let (stage, release): (StageName, _) = ("hello/dev".parse().expect("stage"), ReleaseNumber::FIRST);
        let (mut measure, start) = (measure(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(measure.rate_since(&stage, release, None, start), None, "no proxy has told anything");
        for second in 0..=20 {
            measure.take_in(&"p1".parse().expect("name"), &report(7, 100 * second, 0, 0), at(second));
        }
        assert_eq!(measure.rate_since(&stage, release, None, at(20)), Some(100.0));
        // In the middle of a second: the report after it tells of both.
        let changed = Some(start + Duration::from_millis(16_500));
        let since = |now| measure.recent_since(&stage, release, changed, now).requests;
        assert_eq!((since(at(17)), since(at(18)), since(at(20))), (300, 300, 300), "of 18, 19 and 20");
        assert_eq!(measure.rate_since(&stage, release, changed, at(18)), None, "too early");
        let rate = measure.rate_since(&stage, release, changed, at(20)).expect("long enough");
        assert!((80.0..=100.0).contains(&rate), "{rate}");
        let just_now = measure.recent_since(&stage, release, Some(at(20)), at(20)).requests;
        assert_eq!(just_now, 0);
    }
}
