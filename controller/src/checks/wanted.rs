//! Which checks are to be asked now: those of every rollout in a step or before its flip, and of what is watched after it.
//!
//! Must not know: how, or what they say.

use api::{Host, HostTarget, ReleaseNumber, StageName};

use crate::core::rollout::seen_as;
use crate::core::spec::{CertificateSource, Check};
use crate::core::state::{Phase, Stage};
use crate::core::{State, resources};

/// One check of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) stage: StageName,
    /// The rollout's number and step: what it says counts for this one and no other.
    pub(super) of: (u64, u32),
    pub(super) release: ReleaseNumber,
    /// The release's own.
    pub(super) host: Host,
    /// Hosts below it have certificates of the controller's own authority; none: it has none there.
    pub(super) development_zone: Option<Host>,
    /// Whether the stage is open to strangers.
    pub(super) public: bool,
    /// Whether whoever may know of the stage and may not call it is told so.
    pub(super) denies_openly: bool,
    /// Whether the stage calls for the credentials of a user.
    pub(super) wants_user: bool,
    pub(super) check: Check,
}

impl Wanted {
    /// What it is called, whichever step it belongs to.
    pub(super) fn key(&self) -> (StageName, String) {
        (self.stage.clone(), self.check.name.clone())
    }

    /// Whether a host is the release's, or its stage's. No name of a service has two dashes in a row.
    pub(super) fn is_own(&self, host: &str) -> bool {
        let own = self.host.as_str();
        host == own || own.split_once("--").is_some_and(|(_, stage)| host == stage)
    }
}

/// All of them.
pub(super) fn now(state: &State) -> Vec<Wanted> {
    state.stage_names().flat_map(|name| of_stage(state, &name).unwrap_or_default()).collect()
}

fn of_stage(state: &State, name: &StageName) -> Option<Vec<Wanted>> {
    let stage = state.stage(name)?;
    let of = seen_as(stage)?;
    let (release, checks) = checked(stage)?;
    let environment = state.environments.get(&name.environment)?;
    let is_own = matches!(environment.certificates, CertificateSource::Development);
    let host = HostTarget { service: name.service.clone(), release: Some(release) }.host(&environment.zone);
    let access = resources::of_itself(state, name);
    let wanted = checks.iter().map(|check| Wanted {
        stage: name.clone(),
        of,
        release,
        host: host.clone(),
        development_zone: is_own.then(|| environment.zone.clone()),
        public: access.public,
        denies_openly: access.explicit_denial,
        wants_user: access.needs_user,
        check: check.clone(),
    });
    Some(wanted.collect())
}

/// The release that is checked, and how. A rollout by hand has no checks, nor has one at once.
fn checked(stage: &Stage) -> Option<(ReleaseNumber, &[Check])> {
    if let Some((entering, rollout, _)) = stage.rolling() {
        return match rollout.phase {
            Phase::Step(_) | Phase::BeforeFlip => Some((entering.release, &rollout.spec.checks)),
            Phase::AtOnce | Phase::ByHand => None,
        };
    }
    let watching = stage.watched().filter(|watching| watching.until_ms.is_some())?;
    Some((watching.release, &watching.checks))
}
