//! Times of a calendar at which a service is built (pure).
//!
//! Must not know: the clock, or what is built. A wall clock time that never happens, because clocks were set forward, counts at the
//! moment after; one that happens twice counts once, unless the schedule is one of steps (`*/10 * * * *`), which goes on through
//! both.

use std::time::Duration;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Longest accepted pattern: a list of all minutes takes 169 characters.
const PATTERN_LENGTH: usize = 256;

/// When something is to happen again and again.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// Reads five fields (minute, hour, day of the month, month, day of the week) and the IANA name of a zone.
    ///
    /// # Errors
    /// A sentence with the accepted form; also for times that never come, such as 30 February.
    pub(crate) fn read(cron: &str, zone: &str) -> Result<Self, String> {
        let form =
            "five fields: minute, hour, day of the month, month and day of the week, such as \"0 3 * * mon-fri\"";
        let shown: String = cron.chars().filter(|c| !c.is_control()).take(64).collect();
        let wrong = |why: String| format!("\"{shown}\" is not a schedule{why}: accepted are {form}");
        if cron.len() > PATTERN_LENGTH || cron.contains('@') || !cron.is_ascii() {
            return Err(wrong(String::new()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let read = parser.parse(cron).map_err(|problem| wrong(format!(" ({problem})")))?;
        let zone = TimeZone::get(zone).map_err(|_| {
            let shown: String = zone.chars().filter(|c| !c.is_control()).take(64).collect();
            format!("\"{shown}\" is not a time zone: accepted are IANA names, such as \"Australia/Sydney\" or \"UTC\"")
        })?;
        let schedule = Self { cron: read, zone };
        // Any moment will do: a date that exists at all comes within a few years.
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(format!("\"{shown}\" never comes: there is no such day in any year")),
        }
    }

    /// The first time after that moment, both in milliseconds since the Unix epoch; none: not within what calendars know.
    pub(crate) fn next_after(&self, after_ms: u64) -> Option<u64> {
        let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?.to_zoned(self.zone.clone());
        let next: Zoned = self.cron.find_next_occurrence(&after, false).ok()?;
        u64::try_from(next.timestamp().as_millisecond()).ok()
    }

    /// Whether it was time at least once in (`after_ms`, `now_ms`]: times that were missed count once.
    pub(crate) fn was_due(&self, after_ms: u64, now_ms: u64) -> bool {
        self.next_after(after_ms).is_some_and(|next| next <= now_ms)
    }

    /// How long until the next time.
    pub(crate) fn until_next(&self, now_ms: u64) -> Option<Duration> {
        Some(Duration::from_millis(self.next_after(now_ms)?.saturating_sub(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        let zoned: Timestamp = text.parse().expect("a time");
        u64::try_from(zoned.as_millisecond()).expect("after 1970")
    }

    fn times(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::read(cron, zone).expect(cron);
        let mut at = ms(from);
        let mut all = Vec::new();
        for _ in 0..count {
            at = schedule.next_after(at).expect("another one");
            let at = Timestamp::from_millisecond(i64::try_from(at).expect("fits")).expect("a time");
            all.push(at.to_string());
        }
        all
    }

    #[test]
    fn schedules_live_through_gaps_and_overlaps() {
        for (cron, zone, from, expected) in [
            // An hour is missing on 4 October 2026 (02:00 to 03:00), and there twice on 5 April 2026 (02:00 to 03:00).
            (
                "30 2 * * *",
                "Australia/Sydney",
                "2026-10-02T12:00:00Z",
                ["2026-10-02T16:30:00Z", "2026-10-03T16:00:00Z", "2026-10-04T15:30:00Z"],
            ),
            (
                "30 2 * * *",
                "Australia/Sydney",
                "2026-04-03T12:00:00Z",
                ["2026-04-03T15:30:00Z", "2026-04-04T15:30:00Z", "2026-04-05T16:30:00Z"],
            ),
            // Steps go on through both.
            (
                "*/30 * * * *",
                "Australia/Sydney",
                "2026-04-04T15:15:00Z",
                ["2026-04-04T15:30:00Z", "2026-04-04T16:00:00Z", "2026-04-04T16:30:00Z"],
            ),
            // Half an hour is missing on Lord Howe (02:00 to 02:30), and there twice (01:30 to 02:00).
            (
                "15 2 * * *",
                "Australia/Lord_Howe",
                "2026-10-02T12:00:00Z",
                ["2026-10-02T15:45:00Z", "2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
            ),
            (
                "45 1 * * *",
                "Australia/Lord_Howe",
                "2026-04-03T12:00:00Z",
                ["2026-04-03T14:45:00Z", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
            ),
            (
                "0 0 29 2 *",
                "UTC",
                "2026-01-01T00:00:00Z",
                ["2028-02-29T00:00:00Z", "2032-02-29T00:00:00Z", "2036-02-29T00:00:00Z"],
            ),
            (
                "0 3 * * mon-fri",
                "UTC",
                "2026-11-20T03:00:00Z",
                ["2026-11-23T03:00:00Z", "2026-11-24T03:00:00Z", "2026-11-25T03:00:00Z"],
            ),
        ] {
            assert_eq!(times(cron, zone, from, 3), expected, "{cron} in {zone}");
        }
    }

    #[test]
    fn missed_times_count_once() {
        let schedule = Schedule::read("0 3 * * *", "UTC").expect("a schedule");
        let (before, week) = (ms("2026-11-01T03:00:00Z"), ms("2026-11-08T02:59:59Z"));
        assert!(!schedule.was_due(before, before), "not again at the moment itself");
        assert!(!schedule.was_due(before, before + 86_399_999));
        assert!(schedule.was_due(before, before + 86_400_000));
        assert!(schedule.was_due(before, week) && !schedule.was_due(week, week + 999));
        assert!(!schedule.was_due(week, before), "a clock that goes back");
        assert_eq!(schedule.until_next(week), Some(Duration::from_secs(1)));
    }

    #[test]
    fn hostile_h83_what_is_no_schedule_is_refused() {
        for cron in
            ["", "* * * *", "* * * * * *", "61 * * * *", "@daily", "0 0 * * mon-xyz", "*/0 * * * *", "ä * * * *", "\n"]
        {
            let problem = Schedule::read(cron, "UTC").expect_err(cron);
            assert!(problem.contains("accepted are five fields"), "{cron}: {problem}");
        }
        assert!(Schedule::read(&"1,".repeat(500), "UTC").is_err());
        assert!(Schedule::read("0 0 30 2 *", "UTC").expect_err("no such day").contains("never comes"));
        for zone in ["", "Mars/Olympus", "../../etc/passwd", "+10:00", "\u{1b}[31m"] {
            let problem = Schedule::read("0 3 * * *", zone).expect_err(zone);
            assert!(problem.contains("is not a time zone") && !problem.contains('\u{1b}'), "{problem}");
        }
    }
}
