//! Releases that are marked not reversible: the mark itself, and who may go back past it.

use api::{ReleaseName, ReleaseNumber, StageName};

use super::require_reason;
use crate::core::back::{named, passed, passed_over};
use crate::core::command::{Context, Decision, Refusal};
use crate::core::event::Event;
use crate::core::state::{ReleaseProgress, State};

/// Longest reason of a mark, in characters: it is shown wherever the release is.
const REASON_MOST: usize = 300;

/// Marks a release, or takes the mark away.
pub(super) fn mark(
    state: &State,
    name: &ReleaseName,
    reversible: bool,
    context: &Context,
) -> Result<Decision, Refusal> {
    let release = state.release(name).ok_or_else(|| Refusal::Unknown(format!("there is no release {name}")))?;
    // It counts in every stage of the service.
    let stages = state.service(&name.service).map(|service| &service.spec.stages).into_iter().flatten();
    stages.map(|(environment, _)| environment).try_for_each(|one| require_reason(state, one, context))?;
    if reversible {
        return Ok(match release.not_reversible {
            Some(_) => Decision::one(Event::ReleaseUnmarked { release: name.clone() }),
            None => Decision::already(format!("{name} is not marked: it can be left like any other")),
        });
    }
    let reason = context.reason.trim();
    if reason.is_empty() {
        return Err(Refusal::Refused(format!(
            "say what {name} does that cannot be taken back: --reason \"drops the column names\""
        )));
    }
    let length = reason.chars().count();
    if length > REASON_MOST {
        let sentence =
            format!("the reason of a mark is shown with its release: at most {REASON_MOST} characters, not {length}");
        return Err(Refusal::Wrong(vec![sentence]));
    }
    let never = match release.progress {
        ReleaseProgress::Failed { .. } => Some("failed"),
        ReleaseProgress::Cancelled { .. } => Some("was cancelled"),
        ReleaseProgress::Overtaken { .. } => Some("was overtaken"),
        ReleaseProgress::Queued | ReleaseProgress::Building | ReleaseProgress::Ready { .. } => None,
    };
    if let Some(never) = never {
        return Err(Refusal::Refused(format!("{name} {never} and never runs: mark the release that does")));
    }
    if release.not_reversible.as_ref().is_some_and(|mark| mark.reason == reason) {
        return Ok(Decision::already(format!("{name} is marked not reversible already")));
    }
    Ok(Decision::one(Event::ReleaseMarked { release: name.clone(), reason: reason.to_owned() }))
}

/// What a way back goes past: what has to be on record first, and what a person should know of it.
#[derive(Debug, Default)]
pub(super) struct Passes {
    events: Vec<Event>,
    lines: Vec<String>,
}

/// Before any of `from`, which serve now, gives way to `to`.
///
/// # Errors
/// A [`Refusal::Marked`] when marked releases lie between and nobody named the highest of them.
pub(super) fn pass(
    state: &State,
    name: &StageName,
    from: &[ReleaseNumber],
    to: ReleaseNumber,
    context: &Context,
) -> Result<Passes, Refusal> {
    let marks = passed(state, name, from, to);
    let mut passes = Passes::default();
    if let Some(last) = marks.last().map(|mark| mark.release) {
        if context.past != Some(last) {
            let named = named(&marks);
            let sentence = format!("{to} is behind {named}: `--past {last}` lets {name} go back to it all the same");
            return Err(Refusal::Marked(last, sentence));
        }
        passes.events.push(Event::MarksPassed { stage: name.clone(), to, marks });
    }
    passes.lines.extend(passes.events.iter().map(Event::sentence));
    let over = passed_over(state, name, from, to);
    if !over.is_empty() {
        passes.lines.push(format!(
            "this also goes back past {}, but never ran in {name}: if what serves brings the same, mark it, too",
            named(&over)
        ));
    }
    Ok(passes)
}

// === impl Passes ===

impl Passes {
    /// Past which release the way goes, as somebody has agreed to; none: past nothing.
    pub(super) fn past(&self, context: &Context) -> Option<ReleaseNumber> {
        context.past.filter(|_| !self.events.is_empty())
    }

    /// A decision with this before it.
    pub(super) fn before(self, decision: Decision) -> Decision {
        let events = self.events.into_iter().chain(decision.events).collect();
        Decision { events, lines: self.lines.into_iter().chain(decision.lines).collect() }
    }
}
