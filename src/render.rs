//! What people see: pure functions from messages to styled lines.
//!
//! Must not know: connections, files, clocks, or the terminal. The time, the time zone and the width are arguments.
//!
//! Main types: [`Line`] (text that is safe to show, in pieces with a meaning each), [`Table`] and [`View`].
//! Every piece of text is cleaned where it enters a line, so nothing that came from a commit, a log or another machine
//! can move the cursor, change colours or turn the reading direction.

mod access;
mod bar;
mod certificates;
mod change;
mod changes;
mod explain;
mod history;
mod line;
mod lists;
mod log;
mod marks;
pub(crate) mod numbers;
mod release;
mod resolved;
mod rollout;
mod status;
mod table;
mod times;
mod transfer;

pub(crate) use access::{application, applications, key_made};
pub(crate) use certificates::{certificate_details, certificates};
pub(crate) use change::{Manner, Told, change_lines};
pub(crate) use changes::changes;
pub(crate) use explain::{policy_explained, request_explained};
pub(crate) use history::history_line;
pub(crate) use line::{Line, Style, clean, clean_lines, is_unsafe};
pub(crate) use lists::{environment, environments, fleet, invitation, resolved, service, services, tokens};
pub(crate) use log::LogText;
pub(crate) use release::{differ, release, release_in_short, release_with_output, releases, verified};
pub(crate) use resolved::{repositories, stage_resolved};
pub(crate) use rollout::{rollout, rollout_ended, rollout_explained, rollout_line, rollout_now};
pub(crate) use status::{headline, status};
pub(crate) use table::{Align, Table};
pub(crate) use times::{ago, clock, stamp};
pub(crate) use transfer::{Pace, transfer};

/// How to show: the moment, the place and the room there is.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Where the reader is, for clock times.
    pub(crate) zone: jiff::tz::TimeZone,
    /// Whether more than ASCII can be shown.
    pub(crate) unicode: bool,
    /// Columns there are; `None`: no limit (not a terminal).
    pub(crate) width: Option<usize>,
}

#[cfg(test)]
impl View {
    /// The fixed view of all rendering tests: 2026-03-01 12:00:00 UTC.
    pub(crate) fn of_tests() -> Self {
        Self { now_ms: 1_772_366_400_000, zone: jiff::tz::TimeZone::UTC, unicode: true, width: None }
    }
}

/// The lines as plain text, for comparing with what they should be.
#[cfg(test)]
pub(crate) fn plain(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text().trim_end().to_owned() + "\n").collect()
}
