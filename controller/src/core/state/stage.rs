//! One service in one environment: what serves, what enters, what leaves.

use std::collections::{BTreeMap, BTreeSet};

use api::{MemberName, ReleaseNumber, Share, Span};
use serde::{Deserialize, Serialize};

use super::rollout::{Queued, Rollout, Watching};

/// Warm releases of one stage: half of the backends that proxies accept, and more than anybody goes back.
pub const WARM_MOST: usize = 32;

/// One service in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stage {
    /// Serves what `entering` does not.
    pub stable: Option<ReleaseNumber>,
    /// The one release that is on its way in.
    pub entering: Option<Entering>,
    /// Releases that left and still run.
    pub leaving: BTreeMap<ReleaseNumber, Leaving>,
    /// Rolled back from: never a default target until `unhold`.
    pub bad: BTreeSet<ReleaseNumber>,
    /// Releases that were stable here, oldest first, each once at its last time.
    pub past: Vec<ReleaseNumber>,
    /// Releases that ever had weight here: what may go on downstream.
    pub served: BTreeSet<ReleaseNumber>,
    /// Where routed components run, as agents reported.
    pub placed: BTreeMap<ReleaseNumber, BTreeMap<MemberName, std::net::SocketAddr>>,
    /// The last rollback, until something is promoted again.
    pub rolled_back: Option<RolledBack>,
    /// The highest number that a rollout had here.
    #[serde(default)]
    pub rollouts: u64,
    /// A release that waits until `entering` is none.
    #[serde(default)]
    pub queued: Option<Queued>,
    /// What goes on after the last rollout; it rests while a release enters.
    #[serde(default)]
    pub watching: Option<Watching>,
    /// How long each release took to start here last time, in milliseconds from its promotion.
    #[serde(default)]
    pub start_took_ms: BTreeMap<ReleaseNumber, u64>,
    /// Releases that ever started here, with weight or without: what they did to data is done.
    #[serde(default)]
    pub ran: BTreeSet<ReleaseNumber>,
    /// For releases that somebody went back to, past releases marked not reversible: the highest of those.
    #[serde(default)]
    pub gone_past: BTreeMap<ReleaseNumber, ReleaseNumber>,
}

/// How long a release probably takes to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartTakes {
    /// So many milliseconds, as last time.
    AsLastTime(u64),
    /// So many milliseconds, as this release, which serves now.
    As(ReleaseNumber, u64),
    /// Neither was started here.
    Unknown,
}

/// A release on its way into a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entering {
    /// Which.
    pub release: ReleaseNumber,
    /// Its share now, or once it has started.
    pub share: Share,
    /// Until when it must have started; none: it has.
    pub starting_until_ms: Option<u64>,
    /// It is an old release that is fetched back.
    pub rollback: bool,
    /// Since when.
    pub since_ms: u64,
    /// It waited for the end of another's rollout, entered by itself, and nothing has moved since.
    #[serde(default)]
    pub waited: bool,
    /// How it enters; none: a rollback, or one that began before there were strategies.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Somebody said that it may come in past releases that are marked not reversible, up to this one.
    #[serde(default)]
    pub past: Option<ReleaseNumber>,
}

/// Why a release that has no weight still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// Ready to take over at once.
    Warm {
        /// Until when.
        until_ms: u64,
    },
    /// No new requests; ends when those in flight have ended, or at the deadline.
    Draining {
        /// Until when at most.
        until_ms: u64,
    },
}

/// A rollback that nothing followed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// From this release.
    pub from: ReleaseNumber,
    /// To this one.
    pub to: ReleaseNumber,
    /// When.
    pub at_ms: u64,
}

// === impl Stage ===

impl Stage {
    /// Share of a release now; what is not running has none.
    pub fn share(&self, release: ReleaseNumber) -> Share {
        let entering = self.entering.as_ref().filter(|entering| entering.starting_until_ms.is_none());
        let taken = entering.map_or(Share::NONE, |entering| entering.share);
        if entering.is_some_and(|entering| entering.release == release) {
            taken
        } else if self.stable == Some(release) {
            taken.rest()
        } else {
            Share::NONE
        }
    }

    /// The rollout whose release takes part in serving, or could: with the one that it is compared with.
    pub fn rolling(&self) -> Option<(&Entering, &Rollout, ReleaseNumber)> {
        let entering = self.entering.as_ref().filter(|entering| entering.starting_until_ms.is_none())?;
        Some((entering, entering.rollout.as_ref()?, self.stable?))
    }

    /// What is watched now that the rollout is over; nothing while the next one is under way.
    pub fn watched(&self) -> Option<&Watching> {
        let watching = self.watching.as_ref().filter(|_| self.entering.is_none())?;
        self.is_warm(watching.before).then_some(watching)
    }

    /// The release whose rollout is not over: one that enters, or one that was flipped to and has not passed its watch.
    pub fn busy(&self) -> Option<ReleaseNumber> {
        let flipped = || self.watched().filter(|watching| watching.until_ms.is_some()).map(|watching| watching.release);
        self.entering.as_ref().map(|entering| entering.release).or_else(flipped)
    }

    /// Every release that should be running: stable, entering, warm and draining.
    pub fn running(&self) -> BTreeSet<ReleaseNumber> {
        let entering = self.entering.as_ref().map(|entering| entering.release);
        self.stable.into_iter().chain(entering).chain(self.leaving.keys().copied()).collect()
    }

    /// How long a release that does not run probably takes to start.
    pub fn start_takes(&self, release: ReleaseNumber) -> StartTakes {
        let took = |of: ReleaseNumber| self.start_took_ms.get(&of).copied();
        let as_stable = || self.stable.and_then(|stable| Some(StartTakes::As(stable, took(stable)?)));
        took(release).map(StartTakes::AsLastTime).or_else(as_stable).unwrap_or(StartTakes::Unknown)
    }

    /// Releases that proxies know: those that run and do not drain.
    pub fn routed(&self) -> BTreeSet<ReleaseNumber> {
        let draining = |release: &ReleaseNumber| matches!(self.leaving.get(release), Some(Leaving::Draining { .. }));
        self.running().into_iter().filter(|release| !draining(release)).collect()
    }

    /// Whether the release runs and could take weight at once.
    pub fn is_warm(&self, release: ReleaseNumber) -> bool {
        matches!(self.leaving.get(&release), Some(Leaving::Warm { .. }))
    }

    /// Warm releases, the first to end first.
    pub fn warm(&self) -> Vec<ReleaseNumber> {
        let until = |(release, why): (&ReleaseNumber, &Leaving)| match why {
            Leaving::Warm { until_ms } => Some((*until_ms, *release)),
            Leaving::Draining { .. } => None,
        };
        let mut warm: Vec<_> = self.leaving.iter().filter_map(until).collect();
        warm.sort_unstable();
        warm.into_iter().map(|(_, release)| release).collect()
    }

    /// Warm releases beyond [`WARM_MOST`], the oldest.
    pub fn too_many_warm(&self) -> Vec<ReleaseNumber> {
        let mut warm = self.warm();
        warm.truncate(warm.len().saturating_sub(WARM_MOST));
        warm
    }

    /// The release that a rollback without further words goes to: the last stable before that is not bad.
    pub fn rollback_target(&self) -> Option<ReleaseNumber> {
        let now = self.stable;
        if self.entering.as_ref().is_some_and(|entering| !entering.rollback) {
            return now;
        }
        self.past.iter().rev().copied().find(|release| Some(*release) != now && !self.bad.contains(release))
    }
}

// === impl StartTakes ===

impl StartTakes {
    /// In milliseconds; `None` when nobody knows.
    pub fn ms(self) -> Option<u64> {
        match self {
            Self::AsLastTime(ms) | Self::As(_, ms) => Some(ms),
            Self::Unknown => None,
        }
    }
}

/// After "it needs".
impl std::fmt::Display for StartTakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whole seconds, and rather one more: nobody should wait for longer than was said.
        let about = |ms: u64| Span::from_ms(ms.div_ceil(1_000).max(1) * 1_000).unwrap_or(Span::MAX);
        match self {
            Self::AsLastTime(ms) => write!(f, "about {} to start (as long as last time)", about(*ms)),
            Self::As(release, ms) => write!(f, "about {} to start (as long as {release})", about(*ms)),
            Self::Unknown => f.write_str("to start first, and nobody knows how long that takes"),
        }
    }
}
