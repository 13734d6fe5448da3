//! The way back: where a rollback of a stage would go now, and how long that takes.
//!
//! Must not know: who asks, or how it is shown. It decides nothing: `decide` asks the same again when somebody goes that way.
//!
//! Main functions: [`back`], which gives the [`Back`] of a stage; [`passed`], which says what lies on the way that cannot be
//! taken back, and [`held`], which of that nobody has agreed to.

use std::ops::Bound::{Excluded, Included};

use api::{ReleaseNumber, StageName};

use super::decide;
use super::state::{Entering, Marked, StartTakes, State};

/// So many marked releases are named one by one.
const NAMED_MOST: usize = 3;

/// Where a rollback without further words goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Back {
    /// The release that would serve everything.
    pub to: ReleaseNumber,
    /// How long it needs before; none: it takes over at once.
    pub start: Option<StartTakes>,
    /// Why it could not be started at all; empty: it could.
    pub problem: String,
    /// What it goes past that is marked not reversible, the oldest first: the highest has to be named.
    pub past: Vec<Marked>,
}

/// Where a rollback of a stage would go; `None` when there is nothing to go back to, or when that has just been done.
pub fn back(state: &State, name: &StageName) -> Option<Back> {
    let stage = state.stage(name)?;
    if stage.entering.as_ref().is_some_and(|entering| entering.rollback) {
        return None;
    }
    if stage.entering.is_none() && stage.rolled_back.is_some() {
        return None;
    }
    let to = stage.rollback_target()?;
    let (start, problem) = match decide::must_start(state, name, to) {
        _ if stage.stable == Some(to) => (None, String::new()),
        Ok(starts) => (starts.then(|| stage.start_takes(to)), String::new()),
        Err(refusal) => (None, refusal.to_string()),
    };
    let serves: Vec<_> = stage.entering.iter().map(|entering| entering.release).chain(stage.stable).collect();
    Some(Back { to, start, problem, past: passed(state, name, &serves, to) })
}

/// The releases marked not reversible that `to` does not know of, the oldest first: numbers above its own, up to the highest of
/// `from` that has started, of which each has started in this stage.
///
/// What is stable lives with all that ran before: behind it is only what is about to leave. And what somebody went back past
/// once is behind that release no more, until it enters again.
///
/// A release that never started here did nothing here, whatever its number: it may be of another branch.
pub fn passed(state: &State, name: &StageName, from: &[ReleaseNumber], to: ReleaseNumber) -> Vec<Marked> {
    marked(state, name, from, to).0
}

/// The marked releases on the same way that never started here.
pub fn passed_over(state: &State, name: &StageName, from: &[ReleaseNumber], to: ReleaseNumber) -> Vec<Marked> {
    marked(state, name, from, to).1
}

/// Marked releases between, those that have started in the stage and those that have not.
fn marked(state: &State, name: &StageName, from: &[ReleaseNumber], to: ReleaseNumber) -> (Vec<Marked>, Vec<Marked>) {
    let Some((service, stage)) = state.service(&name.service).zip(state.stage(name)) else { return Default::default() };
    let highest = from.iter().copied().filter(|from| stage.ran.contains(from)).max();
    let Some(highest) = highest.filter(|highest| *highest > to) else { return Default::default() };
    let lives_with = stage.gone_past.get(&to).copied();
    let is_behind =
        |number: &ReleaseNumber| Some(*number) > lives_with && (stage.stable != Some(to) || from.contains(number));
    let between = service.releases.range((Excluded(to), Included(highest))).filter(|(number, _)| is_behind(number));
    let marked = between.filter_map(|(number, release)| {
        let reason = release.not_reversible.as_ref()?.reason.clone();
        Some(Marked { release: *number, reason })
    });
    marked.partition(|mark| stage.ran.contains(&mark.release))
}

/// What keeps a release that enters from taking over from the stable one by itself: the highest that it would go past and that
/// nobody has agreed to.
pub fn held(state: &State, name: &StageName, entering: &Entering) -> Option<Marked> {
    let stable = state.stage(name)?.stable?;
    let marks = passed(state, name, &[stable], entering.release);
    marks.into_iter().next_back().filter(|mark| Some(mark.release) > entering.past)
}

/// "r42, which is marked not reversible (drops the column names)".
pub fn named(marks: &[Marked]) -> String {
    let one = |mark: &Marked| format!("{} ({})", mark.release, mark.reason);
    match marks {
        [Marked { release, reason }] => format!("{release}, which is marked not reversible ({reason})"),
        [all @ .., last] if all.len() < NAMED_MOST => {
            let all: Vec<_> = all.iter().map(one).collect();
            format!("{} and {}, which are marked not reversible", all.join(", "), one(last))
        }
        [.., last] => format!("{} and {} others, which are marked not reversible", one(last), marks.len() - 1),
        [] => "nothing".to_owned(),
    }
}
