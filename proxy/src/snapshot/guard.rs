//! A split's guard: what it must be, and what a request reads of it.
//!
//! Must not know: what is counted, or when a canary is stopped.
//!
//! Main functions: [`check`] and [`check_release`], which refuse; [`compile`].

use std::sync::Arc;

use api::fleet;

use super::Backend;
use super::check::Problems;
use crate::forward_headers::{Fate, fate};
use crate::guard::{Guard, Tripwire};

/// Longest name of a field that we look for in answers.
const NAME_BYTES: usize = 256;

/// What is wrong with it alone.
pub(super) fn check(guard: Option<&fleet::Guard>, problems: &mut Problems<'_>) {
    let Some(guard) = guard else { return };
    if guard.rollout == 0 {
        problems.add("guard.rollout", "is 0: rollouts are numbered from 1");
    }
    if guard.canary == 0 {
        problems.add("guard.canary", "is 0: releases are numbered from 1");
    } else if guard.canary == guard.stable {
        problems.add("guard.stable", format!("is the canary itself, r{}", guard.canary));
    }
    if !guard.failure_header.is_empty()
        && let Err(wrong) = failure_header(&guard.failure_header)
    {
        problems.add("guard.failure_header", format!("{:?} {wrong}", guard.failure_header));
    }
    if let Some(fleet::Tripwire { failures, among }) = guard.tripwire {
        if !(1..=api::TRIPWIRE_MOST).contains(&among) {
            problems.add("guard.tripwire.among", format!("is {among}, not 1 to {}", api::TRIPWIRE_MOST));
        }
        if !(1..=among).contains(&failures) {
            problems
                .add("guard.tripwire.failures", format!("is {failures}, not 1 to {among}, as many as are looked at"));
        }
    }
}

/// What is wrong with it in its stage. The stable release may be gone already.
pub(super) fn check_release(guard: Option<&fleet::Guard>, backends: &[Backend], problems: &mut Problems<'_>) {
    // That it is 0 was said.
    if let Some(canary) = guard.map(|guard| guard.canary).filter(|canary| *canary > 0)
        && !backends.iter().any(|backend| backend.release == canary)
    {
        problems.add("guard.canary", format!("r{canary} is no backend of the stage"));
    }
}

/// The guard of a split that was found good. `before`: of the same stage; with the same number its trip goes on.
pub(super) fn compile(split: &fleet::Split, backends: &[Backend], before: Option<&Guard>) -> Option<Arc<Guard>> {
    let guard = split.guard.as_ref()?;
    let has_weight = split.weights.iter().any(|entry| entry.release == guard.stable && entry.weight > 0);
    let serves = |backend: &Backend| backend.release == guard.stable && !backend.endpoints.is_empty();
    let trip = before.filter(|before| before.rollout == guard.rollout).map(|before| before.trip.clone());
    Some(Arc::new(Guard {
        rollout: guard.rollout,
        epoch: guard.epoch,
        canary: guard.canary,
        stable: guard.stable,
        slow_us: guard.slow_us,
        failure_header: (!guard.failure_header.is_empty()).then(|| guard.failure_header.as_str().into()),
        tripwire: guard.tripwire.map(|fleet::Tripwire { failures, among }| Tripwire { failures, among }),
        fallback: backends.iter().position(serves).filter(|_| has_weight),
        trip: trip.unwrap_or_default(),
    }))
}

/// The error says what is wrong with a name.
fn failure_header(name: &str) -> Result<(), &'static str> {
    let is_token = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.len() > NAME_BYTES || !name.bytes().all(is_token) {
        return Err("is not the name of a field in lower case, of at most 256 bytes");
    }
    let frames = matches!(name, "content-length" | "host" | "trailer");
    if frames || fate(name) != Fate::Passes {
        return Err("is a field of ours, or of HTTP's framing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::Version;
    use api::fleet::{Resource, Split, WeightedRelease};

    use super::*;
    use crate::guard::Trip;
    use crate::snapshot::{Compiler, fixture};

    fn sound() -> fleet::Guard {
        let tripwire = Some(fleet::Tripwire { failures: 3, among: 10 });
        let failure_header = "x-app-failed".to_owned();
        fleet::Guard { rollout: 7, canary: 2, stable: 1, slow_us: 300_000, failure_header, tripwire, epoch: 0 }
    }

    fn split(weights: &[(u32, u32)], guard: Option<fleet::Guard>) -> Resource {
        let weights = weights.iter().map(|(release, weight)| WeightedRelease { release: *release, weight: *weight });
        fixture::resource("split", "hello/staging", &Split { weights: weights.collect(), guard, ..Split::default() })
    }

    fn with(split: Resource) -> Vec<Resource> {
        let endpoints = [1, 2].map(|release| fixture::endpoints("hello/staging", release, &["127.0.0.1:81"]));
        [vec![fixture::stage("hello/staging", &[1, 2]), split], endpoints.to_vec()].concat()
    }

    #[test]
    fn rollout_guards_that_are_not_sound_are_refused_with_their_field() {
        let tripwire = |failures, among| Some(fleet::Tripwire { failures, among });
        let named = |name: &str| fleet::Guard { failure_header: name.into(), ..sound() };
        let mut table = vec![
            (fleet::Guard { rollout: 0, ..sound() }, "guard.rollout"),
            (fleet::Guard { canary: 0, ..sound() }, "guard.canary"),
            (fleet::Guard { canary: 3, ..sound() }, "guard.canary"),
            (fleet::Guard { stable: 2, ..sound() }, "guard.stable"),
            (fleet::Guard { tripwire: tripwire(0, 10), ..sound() }, "guard.tripwire.failures"),
            (fleet::Guard { tripwire: tripwire(11, 10), ..sound() }, "guard.tripwire.failures"),
            (fleet::Guard { tripwire: tripwire(1, 65), ..sound() }, "guard.tripwire.among"),
            (fleet::Guard { tripwire: tripwire(0, 0), ..sound() }, "guard.tripwire.among"),
            (fleet::Guard { tripwire: tripwire(u32::MAX, u32::MAX), ..sound() }, "guard.tripwire.among"),
        ];
        let long = "x".repeat(257);
        for name in [
            "X-App-Failed",
            "x app",
            "x-app:",
            "x\u{e4}",
            "x\0",
            "x-pointsman-a",
            "x-request-id",
            "connection",
            "te",
            "transfer-encoding",
            "content-length",
            "host",
            "trailer",
            "upgrade",
            "x-api-key",
            long.as_str(),
        ] {
            table.push((named(name), "guard.failure_header"));
        }
        for (guard, field) in table {
            let resources = with(split(&[(1, 9), (2, 1)], Some(guard.clone())));
            let refused = Compiler::default().apply(fixture::full(Version::first_of(1), &resources));
            let told = refused.expect_err("refused").remove(0);
            assert_eq!((&*told.resource, &*told.field), ("split hello/staging", field), "{guard:?}");
        }
        let alone = split(&[], Some(sound()));
        let refused = Compiler::default().apply(fixture::full(Version::first_of(1), &[alone]));
        assert_eq!(refused.expect_err("refused")[0].field, "name", "there is no stage");
        for guard in [
            sound(),
            fleet::Guard { stable: 0, tripwire: None, slow_us: 0, ..named("") },
            // It is gone already.
            fleet::Guard { stable: 9, tripwire: tripwire(64, 64), ..sound() },
        ] {
            fixture::snapshot(&with(split(&[(1, 9), (2, 1)], Some(guard))));
        }
    }

    #[test]
    fn rollout_trips_outlive_changes_of_weights_and_end_with_their_number() {
        let mut compiler = Compiler::default();
        let mut version = Version::first_of(1);
        let mut apply = |weights: &[(u32, u32)], guard| {
            version = version.next();
            let snapshot = compiler.apply(fixture::full(version, &with(split(weights, guard)))).expect("good").snapshot;
            snapshot.stage_named("hello/staging").expect("a stage").guard.clone()
        };
        let mut guard = |weights: &[(u32, u32)], rollout| {
            apply(weights, Some(fleet::Guard { rollout, ..sound() })).expect("a guard")
        };
        let first = guard(&[(1, 9), (2, 1)], 7);
        assert_eq!((first.fallback, first.is_tripped()), (Some(0), false));
        first.trip.set(Trip { failures: 3, among: 3, at_ms: 1 }).expect("the first");
        assert!(guard(&[(1, 5), (2, 5)], 7).is_tripped());
        let all = guard(&[(1, 0), (2, 5)], 7);
        assert_eq!((all.fallback, all.is_tripped()), (None, true), "nobody else has weight");
        assert!(!guard(&[(1, 5), (2, 5)], 8).is_tripped(), "another rollout");
        assert!(!guard(&[(1, 5), (2, 5)], 7).is_tripped(), "one that comes back is another one");
    }
}
