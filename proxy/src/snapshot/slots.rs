//! Places in the tables of workers: each stage and each release in it has one as long as it is there.
//!
//! Must not know: what workers keep there. A place is given again once nobody in the snapshot has it, so that tables
//! are as long as the largest snapshot was and no longer; a worker that finds what belonged to another starts anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::Stage;

/// All places that are taken.
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: HashMap<Arc<str>, Taken>,
    stages: Places,
    releases: Places,
}

/// Places of one stage.
#[derive(Debug)]
struct Taken {
    stage: u32,
    releases: HashMap<u32, u32>,
}

/// Numbers without gaps: those given back are given first.
#[derive(Debug, Default)]
struct Places {
    next: u32,
    free: Vec<u32>,
}

impl Slots {
    /// The place of a stage.
    pub(super) fn stage(&mut self, name: &Arc<str>) -> u32 {
        self.taken(name).stage
    }

    /// The place of a release in a stage.
    pub(super) fn release(&mut self, name: &Arc<str>, release: u32) -> u32 {
        if let Some(slot) = self.taken(name).releases.get(&release) {
            return *slot;
        }
        let slot = self.releases.take();
        self.taken(name).releases.insert(release, slot);
        slot
    }

    /// Takes back what the stage of this name, as it is now, does not use.
    pub(super) fn keep(&mut self, name: &Arc<str>, stage: Option<&Stage>) {
        let Some(taken) = self.taken.get_mut(name) else { return };
        let gone = taken.releases.extract_if(|release, _| stage.is_none_or(|stage| stage.backend(*release).is_none()));
        self.releases.free.extend(gone.map(|(_, slot)| slot));
        if stage.is_none() {
            self.stages.free.push(taken.stage);
            self.taken.remove(name);
        }
    }

    fn taken(&mut self, name: &Arc<str>) -> &mut Taken {
        let stages = &mut self.stages;
        self.taken.entry(name.clone()).or_insert_with(|| Taken { stage: stages.take(), releases: HashMap::new() })
    }
}

impl Places {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }
}
