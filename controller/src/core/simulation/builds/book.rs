//! A second pair of eyes: reads the events of builds one by one and asks of each whether it may have happened.

use std::collections::{BTreeMap, BTreeSet};

use api::{Digest, ReleaseName, ServiceName};

use super::{BUILDERS, HOUR_LIMIT, HOUR_MS};
use crate::core::Event;
use crate::core::evolve_test::World;
use crate::core::state::{Release, ReleaseProgress, Trigger, Wanted};

/// A second pair of eyes on events of builds.
#[derive(Default)]
pub(super) struct Book {
    read: usize,
    numbers: BTreeMap<ServiceName, u32>,
    triggers: BTreeMap<ReleaseName, Wanted>,
    begun: BTreeMap<ServiceName, Vec<u64>>,
    /// Asked for, and neither overtaken nor forgotten since.
    commits: BTreeMap<ReleaseName, String>,
    digests: BTreeMap<ReleaseName, BTreeSet<Digest>>,
    tags: BTreeMap<(ServiceName, String), String>,
}

impl Book {
    pub(super) fn read(&mut self, world: &World) {
        for (event, at_ms) in &world.log[self.read..] {
            self.take_in(event, *at_ms);
        }
        self.read = world.log.len();
        self.look(world);
    }

    fn take_in(&mut self, event: &Event, at_ms: u64) {
        match event {
            Event::ReleaseRequested { release, wanted } => {
                // INVARIANT: no number is given twice.
                let last = self.numbers.insert(release.service.clone(), release.number.number());
                assert!(last < Some(release.number.number()), "{release} again");
                // INVARIANT: by itself a commit is asked for once.
                let same = |(other, commit): (&ReleaseName, &String)| {
                    other.service == release.service && *commit == wanted.commit
                };
                let is_head = matches!(wanted.trigger, Trigger::Commit { .. });
                assert!(!is_head || !self.commits.iter().any(same), "{release}: {wanted:?} was asked for");
                self.commits.insert(release.clone(), wanted.commit.clone());
                self.triggers.insert(release.clone(), Wanted::clone(wanted));
                // INVARIANT: a tag never moves.
                if let Some(tag) = &wanted.tag {
                    let key = (release.service.clone(), tag.clone());
                    let first = self.tags.entry(key).or_insert_with(|| wanted.commit.clone());
                    assert_eq!(*first, wanted.commit, "{tag} has moved");
                }
            }
            Event::BuildStarted { release } => {
                let begun = self.begun.entry(release.service.clone()).or_default();
                let lately = begun.iter().filter(|begun| **begun + HOUR_MS > at_ms).count();
                // INVARIANT: limits hold for all that begins by itself. Those of before the world had limits are by hand.
                let is_free = self.triggers.get(release).is_none_or(|wanted| wanted.trigger == Trigger::ByHand);
                assert!(is_free || lately < HOUR_LIMIT as usize, "{release}: {lately} within the hour");
                begun.push(at_ms);
            }
            Event::ReleaseOvertaken { release, by } => {
                assert!(*by > release.number, "{release} by {by}");
                self.commits.remove(release);
            }
            Event::ReleaseForgotten { release } => {
                self.commits.remove(release);
                self.digests.remove(release);
            }
            _ => {}
        }
    }

    fn look(&mut self, world: &World) {
        let mut building = 0;
        for (name, service) in &world.state.services {
            let own = service.releases.values().filter(|release| release.progress == ReleaseProgress::Building).count();
            // INVARIANT: one build of a service at a time, and no more in all than there are builders.
            assert!(own <= 1, "{name} builds {own}");
            building += own;
            for (number, release) in &service.releases {
                self.look_at(ReleaseName::new(name.clone(), *number), release);
            }
        }
        assert!(building <= BUILDERS as usize && world.seen.building.len() <= BUILDERS as usize, "{building}");
        for name in world.stage_names() {
            for number in world.state.stage(&name).expect("listed").running() {
                let release = world.state.release(&ReleaseName::new(name.service.clone(), number));
                let release = release.unwrap_or_else(|| panic!("{number} runs in {name} and is forgotten"));
                // INVARIANT: what runs has its artifacts.
                assert_eq!(release.trimmed.artifacts_ms, None, "{number} runs in {name}");
            }
        }
    }

    fn look_at(&mut self, name: ReleaseName, release: &Release) {
        if release.is_ready() {
            // INVARIANT: what a ready release is made of never changes.
            let first = self.digests.entry(name).or_insert_with(|| release.digests());
            assert_eq!(*first, release.digests());
        }
    }
}
