//! How a service's commits become releases: where they come from, what asks for a build, how one is built.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use api::Span;
use serde::{Deserialize, Serialize};

/// How often a repository is looked at when nobody says otherwise.
pub const POLL: Span = Span::from_ms(60_000).expect("a minute is a span");
/// Shortest and longest time between two looks.
pub const POLL_LEAST: Span = Span::from_ms(5_000).expect("5 s is a span");
/// See [`POLL_LEAST`].
pub const POLL_MOST: Span = Span::from_ms(86_400_000).expect("a day is a span");
/// A workspace may take so many bytes when nobody says otherwise.
pub const WORKSPACE_BYTES: u64 = 20 * 1024 * 1024 * 1024;
/// Checks of one release.
pub const BUILD_CHECKS_MOST: usize = 16;

/// A git repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// URL or path, as `git clone` takes it; schemes https, http, ssh, file, or an absolute path.
    pub repository: String,
    /// Branch that `release build` takes without further words; default `main`.
    pub branch: String,
    /// What a tag that is released looks like: exactly one of `{semver}`, `{date}` and `{number}` with text around it; none:
    /// semver, with or without a `v` before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
}

/// What asks for builds by itself; without any of it they are asked for by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerSpec {
    /// Each new head of the branch; default no.
    pub commits: bool,
    /// Each new tag of the source's form; default no.
    pub tags: bool,
    /// The head, at these times, if it was not released yet.
    pub schedule: Option<ScheduleSpec>,
    /// Time between two looks at the repository; default [`POLL`].
    pub poll: Span,
    /// Builds that may begin by themselves.
    pub limits: BuildLimits,
}

/// Times of a calendar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// Five fields, as cron(8) takes them.
    pub cron: String,
    /// IANA name of the zone in which they are meant.
    pub time_zone: String,
}

/// Builds of a service that may begin by themselves; those asked for by hand are counted and never held up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLimits {
    /// Within 60 minutes; none: no limit.
    pub hour: Option<NonZeroU32>,
    /// Within 24 hours; none: no limit.
    pub day: Option<NonZeroU32>,
}

/// How a commit becomes artifacts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// Program and arguments, run in the checkout.
    pub command: Vec<String>,
    /// Longest time; default 15 min.
    pub timeout: Span,
    /// Variables set for the command, beside PATH, LANG, HOME and the `POINTSMAN_` ones.
    pub environment: BTreeMap<String, String>,
    /// Variables passed on from the controller's own environment, by name.
    pub pass: Vec<String>,
    /// Names of secrets that the operator gave this service: a variable and a file each.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Whether the command may push to the operator's registry; default no.
    #[serde(default)]
    pub registry: bool,
    /// Bytes that the workspace may take; default [`WORKSPACE_BYTES`].
    #[serde(default = "workspace_bytes")]
    pub size_bytes: u64,
    /// Whether it runs in a PID namespace of its own; default yes.
    #[serde(default = "yes")]
    pub contain: bool,
    /// Run against what was built, one after the other, before it counts as built.
    #[serde(default)]
    pub checks: Vec<BuildCheck>,
}

/// A command that judges what was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildCheck {
    /// Unique within the service; as names of components.
    pub name: String,
    /// Program and arguments, run in the checkout.
    pub command: Vec<String>,
    /// Longest time; default 5 min.
    pub timeout: Span,
}

/// An image that the build command pushes, and how it tells which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// File of the checkout with `sha256:...` or `REF@sha256:...`; `{environment}` in it makes one for each stage.
    pub digest_file: String,
    /// Where it was pushed to, for a file with a bare digest.
    pub repository: Option<registry::Place>,
}

// === impl TriggerSpec ===

impl Default for TriggerSpec {
    fn default() -> Self {
        Self { commits: false, tags: false, schedule: None, poll: POLL, limits: BuildLimits::default() }
    }
}

impl TriggerSpec {
    /// Whether anything asks for builds by itself.
    pub fn is_any(&self) -> bool {
        self.commits || self.tags || self.schedule.is_some()
    }
}

fn workspace_bytes() -> u64 {
    WORKSPACE_BYTES
}

fn yes() -> bool {
    true
}
