//! What happened to a release: from the moment it was asked for, and in every stage.

use std::collections::VecDeque;

use api::ReleaseName;
use api::operator::HistoryEntry;
use serde_json::Value;
use tonic::Status;

use crate::engine::Engine;
use crate::server::Shared;
use crate::server::operator::seeing::{PAGE, entry};
use crate::server::who::{Operator, stopping};
use crate::store::Record;

/// The newest so many are told.
const MOST: usize = 1_000;

/// Fields of events that name a release.
const NAMES: [&str; 4] = ["release", "from", "to", "by"];

impl Shared {
    /// What happened to a release, oldest first. Read in pages from the end, so that the engine is never held up for long.
    pub(super) async fn happened_to(&self, who: &Operator, name: &ReleaseName) -> Result<Vec<HistoryEntry>, Status> {
        let mut end = self.engine.read(|engine| engine.store.last()).await.ok_or_else(stopping)?;
        let mut happened = VecDeque::new();
        while end > 0 && happened.len() < MOST {
            let first = end.saturating_sub(PAGE as u64) + 1;
            let count = usize::try_from(end + 1 - first).unwrap_or(PAGE);
            let read = move |engine: &Engine| engine.store.read(first, count);
            let page = self.engine.read(read).await.ok_or_else(stopping)?;
            let page = page.map_err(|problem| Status::internal(problem.to_string()))?;
            for record in page.iter().rev().filter(|record| is_about(record, name)) {
                if happened.len() < MOST && may_see(who, record, name) {
                    entry(record).into_iter().for_each(|told| happened.push_front(told));
                }
                if is_first(record, name) {
                    return Ok(happened.into());
                }
            }
            end = first - 1;
        }
        Ok(happened.into())
    }
}

/// Whether a record tells of the release: by its name, or by its number in one of the service's stages.
fn is_about(record: &Record, name: &ReleaseName) -> bool {
    if record.about == name.to_string() {
        return true;
    }
    let Some((service, _)) = record.about.split_once('/') else { return false };
    let number = name.number.to_string();
    let named = |field: &str| record.payload.get(field).and_then(Value::as_str) == Some(&number);
    service == name.service.as_str() && NAMES.into_iter().any(named)
}

/// Whether nothing came before it: the numbers of releases are given once.
fn is_first(record: &Record, name: &ReleaseName) -> bool {
    record.about == name.to_string() && matches!(record.kind.as_str(), "release_requested" | "release_added")
}

fn may_see(who: &Operator, record: &Record, name: &ReleaseName) -> bool {
    let environment = record.about.split_once('/').and_then(|(_, environment)| environment.parse().ok());
    who.sees(Some(&name.service), environment.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evolve_test::World;
    use crate::core::{Command, Event};

    fn record(event: &Event) -> Record {
        Record {
            seq: 1,
            at_ms: 1,
            by: "anna".into(),
            reason: String::new(),
            about: event.about(),
            kind: event.kind().into(),
            schema: 1,
            payload: serde_json::to_value(event).expect("JSON"),
        }
    }

    #[test]
    fn releases_know_what_happened_to_them_and_not_to_others() {
        let mut world = World::with_static_releases(12).promoted_everywhere("hello@r1").promoted_everywhere("hello@r2");
        let stage = "hello/production".parse().expect("a name");
        world.command(Command::Rollback { stage, to: None }, "").expect("rolled back");
        let about = |name: &str| -> Vec<&'static str> {
            let name = name.parse().expect("a name");
            let events = world.log.iter().map(|(event, _)| event);
            events.filter(|event| is_about(&record(event), &name)).map(Event::kind).collect()
        };
        let (first, second) = (about("hello@r1"), about("hello@r2"));
        for (kinds, times) in [(&first, 3), (&second, 3)] {
            assert_eq!(kinds.iter().filter(|kind| **kind == "promoted").count(), times, "{kinds:?}");
            assert!(kinds.contains(&"rolled_back") && kinds[0] == "release_added", "{kinds:?}");
        }
        assert_eq!(about("hello@r12"), ["release_added"], "r1 is no r12");
        assert!(about("other@r1").is_empty());
        let requested =
            |kind: &str| world.log.iter().find(|(event, _)| event.kind() == kind).map(|(event, _)| record(event));
        let first = "hello@r1".parse().expect("a name");
        assert!(is_first(&requested("release_added").expect("one"), &first));
        assert!(!is_first(&requested("promoted").expect("one"), &first));
    }
}
