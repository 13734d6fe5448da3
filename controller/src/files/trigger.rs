//! What asks for builds by itself: `[trigger]`.

use std::num::NonZeroU32;

use crate::core::spec::{BuildLimits, POLL, POLL_LEAST, POLL_MOST, ScheduleSpec, TriggerSpec};
use crate::sources::schedule::Schedule;

use super::environment::time_zone;
use super::walk::{Section, Walk};

const KEYS: [&str; 6] = ["commits", "tags", "schedule", "time_zone", "poll", "limits"];

/// Most builds of a service that are counted.
const LIMIT_MOST: u32 = 1_000;

/// Reads it; without the section everything is asked for by hand.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> TriggerSpec {
    let Some(section) = root.section(walk, "trigger", "[trigger]") else { return TriggerSpec::default() };
    section.check_keys(walk, &KEYS, &[]);
    if !root.has("source") {
        walk.missing(
            section.at,
            "[trigger] asks for builds: the file needs `source`, which says where commits come from",
        );
    }
    TriggerSpec {
        commits: section.boolean(walk, "commits").unwrap_or(false),
        tags: section.boolean(walk, "tags").unwrap_or(false),
        schedule: schedule(walk, &section),
        poll: section.within(walk, "poll", POLL_LEAST, POLL_MOST).unwrap_or(POLL),
        limits: limits(walk, &section),
    }
}

/// Five fields and the zone in which they are meant: neither means anything alone.
fn schedule(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<ScheduleSpec> {
    let written = section.text(walk, "schedule");
    let zone = time_zone(walk, section);
    if section.has("time_zone") && !section.has("schedule") {
        walk.missing(section.place("time_zone"), "`time_zone` says where the times of `schedule` are: it is not there");
    }
    if section.has("schedule") && !section.has("time_zone") {
        let message = "`schedule` needs `time_zone`, an IANA name such as \"Australia/Sydney\" or \"UTC\"";
        walk.missing(section.place("schedule"), message);
    }
    let (cron, at) = written?;
    // A zone that was not understood was told; the times are looked at as if it were another.
    let in_zone = zone.as_deref().unwrap_or("UTC");
    if let Err(why) = Schedule::read(&cron, in_zone) {
        walk.wrong(at, format!("`schedule`: {why}"));
    }
    Some(ScheduleSpec { cron, time_zone: zone? })
}

fn limits(walk: &mut Walk<'_>, section: &Section<'_>) -> BuildLimits {
    let Some(section) = section.section(walk, "limits", "`limits`") else { return BuildLimits::default() };
    section.check_keys(walk, &["hour", "day"], &[]);
    let mut most = |key| section.number(walk, key, 1..=LIMIT_MOST).and_then(NonZeroU32::new);
    BuildLimits { hour: most("hour"), day: most("day") }
}
