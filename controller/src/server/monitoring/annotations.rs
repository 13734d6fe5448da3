//! What happened to stages, as dashboards mark it: a moment with a title, a sentence and tags.
//!
//! Must not know: how anything is decided or drawn. Words are the event's own.
//!
//! Main types: [`Asked`], what is asked for; [`Annotation`], one moment; [`Gathered`], how far the search is. Source of the
//! fields: Grafana, "Annotations HTTP API".

use std::num::ParseIntError;
use std::ops::ControlFlow;

use api::{ReleaseNumber, StageName};
use serde::Serialize;
use tonic::Status;

use super::parameters::{Parameters, cut};
use crate::core::Event;
use crate::engine::{Engine, Handle, event_of};
use crate::server::who::{Operator, stopping};
use crate::store::{Record, Store, StoreError};

/// Annotations in one answer; a graph shows fewer.
const MOST: usize = 1_000;
/// Events that are looked through for one answer: a busy day has fewer.
const LOOKED_AT: usize = 100_000;
/// Events read at once, so that the engine is never held up for long.
const PAGE: usize = 500;
/// How far back an answer goes by default.
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// Whose moments are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Inclusive, in milliseconds since 1970 (UTC).
    from_ms: u64,
    /// Inclusive.
    to_ms: u64,
    /// Only there; none: in all stages.
    stage: Option<StageName>,
}

/// A moment on a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Annotation {
    /// Milliseconds since 1970 (UTC).
    time: u64,
    /// Stage, release, and what became of it.
    title: String,
    /// The event's sentence, who, and why.
    text: String,
    /// To filter by: `pointsman`, service, environment, `rollout`, the release, the event's kind.
    tags: Vec<String>,
}

/// A time as it is written in a URL.
#[derive(Debug, Clone, Copy)]
struct Moment(u64);

// === impl Asked ===

impl Asked {
    /// From the parameters `from`, `to` and `stage`. Without `to` it is now, without `from` a day before that.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub(super) fn read(query: &str, now_ms: u64) -> Result<Self, Vec<String>> {
        let mut parameters = Parameters::read(query, &["from", "to", "stage"]);
        let (from, to) = (parameters.take::<Moment>("from"), parameters.take::<Moment>("to"));
        let stage = parameters.take("stage");
        let to_ms = to.map_or(now_ms, |to| to.0);
        let from_ms = from.map_or(to_ms.saturating_sub(DAY_MS), |from| from.0);
        if from_ms > to_ms {
            parameters.mistake(format!("from: {from_ms} is after to ({to_ms}): accepted is a time before it"));
        }
        parameters.end(Self { from_ms, to_ms, stage })
    }
}

impl std::str::FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_: ParseIntError| {
            format!("{} is no time: accepted are milliseconds since 1970 (UTC), such as 1785062400000", cut(text))
        })
    }
}

/// All that is asked for and may be seen, oldest first: of more than [`MOST`] the newest.
///
/// Looks through the last [`LOOKED_AT`] events of that time.
///
/// # Errors
/// The store cannot be read, or the controller is stopping.
pub(super) async fn gather(engine: &Handle, who: &Operator, asked: Asked) -> Result<Vec<Annotation>, Status> {
    let failed = |problem: StoreError| Status::internal(problem.to_string());
    let to_ms = asked.to_ms;
    let look = move |engine: &Engine| last_until(&engine.store, to_ms);
    let mut end = engine.read(look).await.ok_or_else(stopping)?.map_err(failed)?;
    let mut gathered = Gathered { who, asked, looked_at: 0, found: Vec::new() };
    while end > 0 {
        let first = end.saturating_sub(PAGE as u64) + 1;
        let count = usize::try_from(end + 1 - first).unwrap_or(PAGE);
        let page = engine.read(move |engine: &Engine| engine.store.read(first, count)).await;
        if gathered.take(&page.ok_or_else(stopping)?.map_err(failed)?).is_break() {
            break;
        }
        end = first - 1;
    }
    gathered.found.reverse();
    Ok(gathered.found)
}

/// The last event that was not later; 0: there is none.
///
/// INVARIANT: no event is earlier than the one before it (`engine::clock`), so halving finds it.
fn last_until(store: &Store, to_ms: u64) -> Result<u64, StoreError> {
    let (mut known, mut later) = (0, store.last().saturating_add(1));
    while later - known > 1 {
        let middle = known + (later - known) / 2;
        match store.read(middle, 1)?.first() {
            Some(record) if record.at_ms <= to_ms => known = middle,
            _ => later = middle,
        }
    }
    Ok(known)
}

/// What was found so far, newest first.
struct Gathered<'a> {
    who: &'a Operator,
    asked: Asked,
    looked_at: usize,
    found: Vec<Annotation>,
}

// === impl Gathered ===

impl Gathered<'_> {
    /// Takes what counts from a page of events, oldest first, that lies before those that were taken. Breaks when nothing
    /// more can come.
    fn take(&mut self, page: &[Record]) -> ControlFlow<()> {
        for record in page.iter().rev() {
            if record.at_ms < self.asked.from_ms || self.found.len() >= MOST || self.looked_at >= LOOKED_AT {
                return ControlFlow::Break(());
            }
            self.looked_at += 1;
            if record.at_ms <= self.asked.to_ms {
                self.found.extend(self.annotation(record));
            }
        }
        ControlFlow::Continue(())
    }

    fn annotation(&self, record: &Record) -> Option<Annotation> {
        let stage: StageName = record.about.parse().ok()?;
        let is_asked = self.asked.stage.as_ref().is_none_or(|asked| *asked == stage);
        if !is_asked || !self.who.sees(Some(&stage.service), Some(&stage.environment)) {
            return None;
        }
        let event = event_of(record).ok()??;
        let (release, became) = became(&event)?;
        let why = if record.reason.is_empty() { String::new() } else { format!(": {}", record.reason) };
        let words = ["pointsman", stage.service.as_str(), stage.environment.as_str(), "rollout"].map(str::to_owned);
        let release = release.map(|release| release.to_string());
        let title = format!("{stage} {}", [release.clone().unwrap_or_default(), became].join(" ").trim_start());
        Some(Annotation {
            time: record.at_ms,
            title,
            text: format!("{}\nby {}{why}", event.sentence(), record.by),
            tags: words.into_iter().chain(release).chain([record.kind.clone()]).collect(),
        })
    }
}

/// Which release an event is about, and what became of it; none for what moves nothing.
fn became(event: &Event) -> Option<(Option<ReleaseNumber>, String)> {
    let (release, became) = match event {
        Event::Promoted { release, rollback: true, .. } => (release, "is fetched back".to_owned()),
        Event::Promoted { release, .. } => (release, "was promoted".to_owned()),
        Event::PromotionFailed { release, .. } => (release, "did not get in".to_owned()),
        Event::Entered { release, .. } => (release, "has started".to_owned()),
        Event::ShareSet { release, share, .. } => (release, format!("gets {share}")),
        Event::Completed { release, .. } => (release, "serves all".to_owned()),
        Event::RolledBack { from, to, .. } => (from, format!("was rolled back to {to}")),
        Event::StepTaken { release, step, of, .. } => (release, format!("takes step {} of {of}", u64::from(*step) + 1)),
        Event::Flipped { release, .. } => (release, "was flipped to".to_owned()),
        Event::RolloutPaused { release, .. } => (release, "is paused".to_owned()),
        Event::RolloutResumed { release, .. } => (release, "goes on".to_owned()),
        Event::RolloutFrozen { release, .. } => (release, "is frozen".to_owned()),
        Event::TakenOver { release, .. } => (release, "goes on by hand".to_owned()),
        Event::Replaced { release, by, .. } => (release, format!("was replaced by {by}")),
        Event::Queued { release, .. } => (release, "waits".to_owned()),
        Event::Dropped { release, .. } => (release, "waits no more".to_owned()),
        Event::Breached { release, .. } => (release, "breaks its objective".to_owned()),
        Event::WatchEnded { release, .. } => (release, "is watched no longer".to_owned()),
        Event::Unheld { release, .. } => (release, "is no longer marked bad".to_owned()),
        Event::OverrideTold { proxy, release: Some(release), .. } => (release, format!("was forced on {proxy}")),
        Event::OverrideTold { proxy, release: None, .. } => {
            return Some((None, format!("is no longer overridden on {proxy}")));
        }
        _ => return None,
    };
    Some((Some(*release), became))
}

#[cfg(test)]
mod tests;
