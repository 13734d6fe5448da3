//! Who gets how much of a stage, who keeps what they got, and what is counted apart meanwhile.

use api::fleet::{self, Resource, sticky};
use api::{Digest, ReleaseNumber, SCHEMA_ROLLOUT, StageName};

use super::resource;
use crate::core::spec::Sticky;
use crate::core::state::{Rollout, Stage};

/// The cookie of a stage whose callers are told apart by one.
const COOKIE: &str = "pointsman-place";

/// A worker sends the canary nothing more once 5 of its last 10 requests failed there, and the stable release fails at most an
/// eighth as often; what is worse by less is the judge's.
const TRIPWIRE: fleet::Tripwire = fleet::Tripwire { failures: 5, among: 10 };

/// The split of a stage with these backends.
pub(super) fn of(name: &StageName, stage: &Stage, backends: &[fleet::Backend]) -> Resource {
    let is_told = |release: ReleaseNumber| backends.iter().any(|backend| backend.release == release.number());
    let weights = backends.iter().filter_map(|backend| {
        let share = stage.share(ReleaseNumber::new(backend.release)?);
        Some(fleet::WeightedRelease { release: backend.release, weight: share.weight().get() })
            .filter(|weighted| weighted.weight > 0)
    });
    let mut split = fleet::Split { weights: weights.collect(), ..fleet::Split::default() };
    if let Some((entering, rollout, stable)) = stage.rolling().filter(|(entering, ..)| is_told(entering.release)) {
        split.sticky = keeps(name, rollout, entering.release, stable);
        split.rules = rules(rollout, entering.release);
        split.guard = Some(guard(rollout, entering.release, stable));
    } else if let Some(watching) = stage.watched().filter(|watching| watching.objective.is_some()) {
        split.guard = Some(fleet::Guard {
            rollout: watching.number,
            canary: watching.release.number(),
            // Nobody is compared: the release before has no weight any more.
            stable: 0,
            slow_us: watching.slow_us(),
            failure_header: watching.failure_header.clone().unwrap_or_default(),
            tripwire: None,
            epoch: 0,
        });
    }
    // An older proxy would deal everybody out anew with each request, and let no insider in.
    let schema = if split.sticky.is_some() || !split.rules.is_empty() { SCHEMA_ROLLOUT } else { 1 };
    Resource { schema, ..resource("split", name.to_string(), &split) }
}

fn keeps(name: &StageName, rollout: &Rollout, canary: ReleaseNumber, stable: ReleaseNumber) -> Option<fleet::Sticky> {
    let (by, cookie) = match rollout.spec.sticky {
        Sticky::None => return None,
        Sticky::Identity => (sticky::By::Identity, ""),
        Sticky::Cookie => (sticky::By::Cookie, COOKIE),
    };
    // Other callers are first in each rollout, and the same ones all through it.
    let key = Digest::of(format!("{name}/{}", rollout.first).as_bytes());
    let key = key.as_bytes().get(..16).unwrap_or_default().to_vec();
    let order = vec![canary.number(), stable.number()];
    Some(fleet::Sticky { by: by.into(), key, order, cookie: cookie.to_owned() })
}

fn rules(rollout: &Rollout, canary: ReleaseNumber) -> Vec<fleet::HeaderRule> {
    let rule = |insiders: &crate::core::spec::Insiders| fleet::HeaderRule {
        name: insiders.header.clone(),
        value: insiders.value.clone(),
        release: canary.number(),
    };
    rollout.insiders.iter().map(rule).collect()
}

fn guard(rollout: &Rollout, canary: ReleaseNumber, stable: ReleaseNumber) -> fleet::Guard {
    fleet::Guard {
        rollout: rollout.number,
        canary: canary.number(),
        stable: stable.number(),
        slow_us: rollout.slow_us.unwrap_or(0),
        failure_header: rollout.spec.failure_header.clone().unwrap_or_default(),
        tripwire: Some(TRIPWIRE),
        epoch: rollout.epoch,
    }
}
