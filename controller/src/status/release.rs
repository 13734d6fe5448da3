//! A release as people and programs see it: what it is, how far it is, why it waits, and where it runs.
//!
//! Must not know: who asks.

use api::operator::{
    Artifact, CheckDone, Commit, HotFix, NotReversible, Release, StaticAddress, Transfer as TransferShown,
};
use api::{ComponentName, ReleaseName, ReleaseNumber, Share};
use jiff::Timestamp;

use super::{clock_ms, role};
use crate::core::observe::Transfer;
use crate::core::queue::{self, QueueWait};
use crate::core::state::{
    self, ArtifactKind, BuildStep, CheckVerdict, CommitNamed, ReleaseProgress, Service, Trigger, Wanted,
};
use crate::engine::Engine;

/// A release with where it is; `None` when there is no such release.
pub(crate) fn release(engine: &Engine, name: &ReleaseName) -> Option<Release> {
    let (found, service) = (engine.state.release(name)?, engine.state.service(&name.service)?);
    let mut shown = Release {
        service: name.service.to_string(),
        number: name.number.number(),
        created_ms: found.created_ms,
        begun_ms: found.begun_ms.unwrap_or_default(),
        by: found.by.clone(),
        reason: found.reason.clone(),
        artifacts: artifacts(found),
        places: places(service, name),
        kept_from: found.kept_from.map_or(0, ReleaseNumber::number),
        checks: found.checks.iter().map(check).collect(),
        waits: waits(engine, name),
        transfer: engine.seen.transfers.get(name).map(transfer),
        trimmed: trimmed(found),
        cancel_asked: found.cancel_asked && !found.progress.is_terminal(),
        not_reversible: found.not_reversible.as_ref().map(|mark| NotReversible {
            reason: mark.reason.clone(),
            by: mark.by.clone(),
            at_ms: mark.at_ms,
        }),
        ..Release::default()
    };
    take_wanted(&mut shown, &found.wanted);
    take_progress(&mut shown, &found.progress);
    Some(shown)
}

/// What is under way to the registry.
pub(crate) fn transfer(seen: &Transfer) -> TransferShown {
    TransferShown { what: seen.what.clone(), done_bytes: seen.done_bytes, all_bytes: seen.all_bytes }
}

/// A commit as it is sent.
pub(crate) fn commit(named: &CommitNamed) -> Commit {
    Commit { id: named.id.clone(), subject: named.subject.clone() }
}

fn take_wanted(shown: &mut Release, wanted: &Wanted) {
    shown.version = wanted.version.clone();
    shown.commit = wanted.commit.clone();
    shown.subject = wanted.subject.clone();
    shown.author = wanted.author.clone();
    shown.trigger = trigger(wanted);
    shown.hot_fix = wanted.hot_fix.as_ref().map(|fix| HotFix {
        of: fix.of.number(),
        base: fix.base.clone(),
        branch: fix.branch.clone().unwrap_or_default(),
        picks: fix.picks.iter().map(commit).collect(),
    });
    shown.overtook = wanted.overtook.commits.iter().map(commit).collect();
    shown.overtook_more = wanted.overtook.more;
    shown.retry_of = wanted.retry_of.map_or(0, ReleaseNumber::number);
}

fn take_progress(shown: &mut Release, progress: &ReleaseProgress) {
    let (state, ended_ms) = match progress {
        ReleaseProgress::Queued => ("queued", 0),
        ReleaseProgress::Building => ("building", 0),
        ReleaseProgress::Ready { at_ms } => ("ready", *at_ms),
        ReleaseProgress::Failed { at_ms, problem, step, exit } => {
            shown.problem = problem.clone();
            shown.step = step.map(step_word).unwrap_or_default().to_owned();
            shown.exit = *exit;
            ("failed", *at_ms)
        }
        ReleaseProgress::Cancelled { at_ms, by } => {
            shown.problem = format!("cancelled by {by}");
            ("cancelled", *at_ms)
        }
        ReleaseProgress::Overtaken { at_ms, by } => {
            shown.overtaken_by = by.number();
            ("overtaken", *at_ms)
        }
    };
    (shown.state, shown.built_ms) = (state.to_owned(), ended_ms);
}

fn trigger(wanted: &Wanted) -> String {
    match &wanted.trigger {
        Trigger::ByHand => "by hand".to_owned(),
        Trigger::Commit { branch } => format!("commit of {branch}"),
        Trigger::Tag => format!("tag {}", wanted.tag.as_deref().unwrap_or(&wanted.version)),
        Trigger::Schedule => "schedule".to_owned(),
    }
}

fn step_word(step: BuildStep) -> &'static str {
    match step {
        BuildStep::Checkout => "checkout",
        BuildStep::Command => "command",
        BuildStep::Outputs => "outputs",
        BuildStep::Pack => "pack",
        BuildStep::Push => "push",
        BuildStep::Check => "check",
        BuildStep::Interrupted => "interrupted",
    }
}

fn check(done: &state::CheckDone) -> CheckDone {
    let verdict = match &done.verdict {
        CheckVerdict::Well => "well".to_owned(),
        CheckVerdict::Failed(status) => format!("exit status {status}"),
        CheckVerdict::Ended(why) => why.clone(),
    };
    CheckDone { name: done.name.clone(), verdict, passed: done.verdict == CheckVerdict::Well, took_ms: done.took_ms }
}

fn trimmed(release: &state::Release) -> Vec<String> {
    let gone = [("log", release.trimmed.log_ms), ("artifacts", release.trimmed.artifacts_ms)];
    gone.into_iter().filter(|(_, at_ms)| at_ms.is_some()).map(|(what, _)| what.to_owned()).collect()
}

fn places(service: &Service, name: &ReleaseName) -> Vec<String> {
    let places = service.stages.iter().filter(|(_, stage)| stage.running().contains(&name.number));
    let places = places.map(|(environment, stage)| match stage.share(name.number) {
        Share::NONE => format!("{environment} {}", role(stage, name.number)),
        share => format!("{environment} {} {share}", role(stage, name.number)),
    });
    places.collect()
}

fn waits(engine: &Engine, name: &ReleaseName) -> String {
    queue::waits(&engine.state, &engine.seen, name, clock_ms()).map(|wait| wait_sentence(&wait)).unwrap_or_default()
}

fn wait_sentence(wait: &QueueWait) -> String {
    match wait {
        QueueWait::Behind(other) => format!("{other} is built first"),
        QueueWait::Builders { busy: 1 } => "the only builder is busy".to_owned(),
        QueueWait::Builders { busy } => format!("all {busy} builders are busy"),
        QueueWait::Limit { hours, most, until_ms } => {
            let builds = if *most == 1 { "1 build began".to_owned() } else { format!("{most} builds began") };
            let span = if *hours == 1 { "the hour" } else { "the day" };
            format!("{builds} within {span}: goes on at {}", moment(*until_ms))
        }
    }
}

/// A moment for people wherever they are: a controller knows no reader's zone.
fn moment(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(|| "?".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// Components that have something for all environments or addresses, then what is for one environment each.
fn artifacts(release: &state::Release) -> Vec<Artifact> {
    let common = |component: &&ComponentName| {
        let own = release.for_environments.values().any(|artifacts| artifacts.contains_key(component));
        let given = release.addresses.iter().any(|entry| &&entry.component == component);
        given || !own || release.artifacts.contains_key(component)
    };
    let common = release.components.keys().filter(common).map(|component| {
        let given = release.addresses.iter().filter(|entry| &entry.component == component);
        let given = given.map(|entry| StaticAddress {
            environment: entry.environment.as_ref().map(ToString::to_string).unwrap_or_default(),
            component: component.to_string(),
            addresses: entry.addresses.iter().map(ToString::to_string).collect(),
        });
        Artifact { addresses: given.collect(), ..artifact(component, release.artifacts.get(component)) }
    });
    let own = release.all_artifacts().filter_map(|(environment, component, found)| {
        Some(Artifact { environment: environment?.to_string(), ..artifact(component, Some(found)) })
    });
    common.chain(own).collect()
}

fn artifact(component: &ComponentName, found: Option<&state::Artifact>) -> Artifact {
    let kind = |found: &state::Artifact| match found.kind {
        ArtifactKind::Folder => "folder",
        ArtifactKind::Image => "image",
    };
    let place = found.and_then(|found| Some(format!("{}@{}", found.place.as_ref()?, found.digest)));
    Artifact {
        component: component.to_string(),
        digest: found.map(|found| found.digest.to_string()).unwrap_or_default(),
        bytes: found.map_or(0, |found| found.bytes),
        kind: found.map(kind).unwrap_or_default().to_owned(),
        reference: place.unwrap_or_default(),
        ..Artifact::default()
    }
}

#[cfg(test)]
mod tests {
    use api::Digest;

    use super::*;
    use crate::core::evolve_test;

    #[test]
    fn releases_say_what_they_wait_for() {
        let behind = QueueWait::Behind("hello@r6".parse().expect("name"));
        let until_ms = 1_772_366_700_000;
        for (wait, sentence) in [
            (behind, "hello@r6 is built first"),
            (QueueWait::Builders { busy: 1 }, "the only builder is busy"),
            (QueueWait::Builders { busy: 2 }, "all 2 builders are busy"),
            (
                QueueWait::Limit { hours: 1, most: 6, until_ms },
                "6 builds began within the hour: goes on at 2026-03-01 12:05 UTC",
            ),
            (
                QueueWait::Limit { hours: 24, most: 1, until_ms },
                "1 build began within the day: goes on at 2026-03-01 12:05 UTC",
            ),
            (
                QueueWait::Limit { hours: 24, most: 2, until_ms: u64::MAX },
                "2 builds began within the day: goes on at ?",
            ),
        ] {
            assert_eq!(wait_sentence(&wait), sentence);
        }
    }

    #[test]
    fn releases_say_what_asked_for_them() {
        let by = |asked, tag: Option<&str>| {
            let tag = tag.map(str::to_owned);
            trigger(&Wanted { trigger: asked, tag, version: "v1".into(), ..Wanted::default() })
        };
        assert_eq!(by(Trigger::ByHand, Some("v1")), "by hand");
        assert_eq!(by(Trigger::Commit { branch: "main".into() }, None), "commit of main");
        assert_eq!((by(Trigger::Tag, Some("v2")), by(Trigger::Tag, None)), ("tag v2".into(), "tag v1".into()));
        assert_eq!(by(Trigger::Schedule, None), "schedule");
    }

    #[test]
    fn releases_show_what_is_for_one_environment_apart() {
        let world = evolve_test::World::with_built_releases(1);
        let mut release = world.state.release(&"hello@r1".parse().expect("name")).expect("there").clone();
        let (web, qa): (ComponentName, api::EnvironmentName) =
            ("web".parse().expect("name"), "qa".parse().expect("name"));
        let one = artifacts(&release);
        assert_eq!((one.len(), one[0].environment.as_str(), one[0].kind.as_str()), (1, "", "folder"));
        let own = state::Artifact {
            kind: ArtifactKind::Image,
            place: Some("registry.example.com/shop/web".parse().expect("place")),
            ..evolve_test::artifact(b"own")
        };
        release.for_environments.entry(qa).or_default().insert(web, own);
        let two = artifacts(&release);
        assert_eq!((two.len(), two[1].environment.as_str(), two[1].kind.as_str()), (2, "qa", "image"));
        assert_eq!(two[1].reference, format!("registry.example.com/shop/web@{}", Digest::of(b"own")));
        release.artifacts.clear();
        let only = artifacts(&release);
        assert_eq!((only.len(), only[0].environment.as_str()), (1, "qa"), "nothing is for all of them");
    }
}
