//! What is to be gone from the operator's registry.

use api::Digest;
use registry::Place;

use crate::core::State;
use crate::core::keep;

/// For so long after a release was trimmed its manifests are asked for: a crash in between is made good after the next
/// start, and what was removed long ago is not asked for for ever.
const ASKED_MS: u64 = 7 * 86_400_000;

/// Manifests of releases that have lost their artifacts, where `[keep]` says that the registry loses them, too.
///
/// Only what was put where our own artifacts go, and nothing whose digest another release still has.
pub(super) fn gone(state: &State, now_ms: u64) -> Vec<(Place, Digest)> {
    let Some(registry) = state.releases.registry.as_ref().filter(|_| state.releases.keep.in_registry) else {
        return Vec::new();
    };
    let kept = keep::digests(state);
    let mut gone = Vec::new();
    for (service, found) in &state.services {
        let lately = |at_ms: u64| now_ms.saturating_sub(at_ms) < ASKED_MS;
        let trimmed = found.releases.values().filter(|release| release.trimmed.artifacts_ms.is_some_and(lately));
        for (_, component, artifact) in trimmed.flat_map(|release| release.all_artifacts()) {
            let ours = registry.address.below(&[service.as_str(), component.as_str()]).ok();
            if let Some(place) = artifact.place.as_ref().filter(|place| Some(*place) == ours.as_ref())
                && !kept.contains(&artifact.digest)
            {
                gone.push((place.clone(), artifact.digest));
            }
        }
    }
    gone.sort();
    gone.dedup();
    gone
}
