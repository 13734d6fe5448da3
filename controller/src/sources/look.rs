//! What follows from what was seen of a repository (pure).

use std::collections::BTreeMap;

use crate::build::mirror::{Remote, moved_tag};
use crate::core::state::Trigger;

use super::kept::Remembered;
use super::schedule::Schedule;
use super::tags::TagForm;
use super::watched::{Standing, Wants};

/// Builds of tags that one look asks for; the rest comes with the next.
const TAGS_AT_ONCE: usize = 20;

/// What is to be done for a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Follows {
    /// The head, and what asks for it; none: there is none, or nothing does.
    pub(super) head: Option<(String, Trigger)>,
    /// Tags to be built, in this order, each with its commit.
    pub(super) build: Vec<(String, String)>,
    /// Tags that were there before, perhaps none, to be put on record without a build.
    pub(super) record: Option<BTreeMap<String, String>>,
    /// What is to be remembered once all of it is done.
    pub(super) remember: Remembered,
    /// What people should know, a sentence each.
    pub(super) problems: Vec<String>,
}

/// What follows for a service from what its repository has at `now_ms`.
pub(super) fn follow(
    wants: &Wants,
    standing: &Standing,
    remote: &Remote,
    is_asked: bool,
    remembered: Remembered,
    now_ms: u64,
) -> Follows {
    let mut follows = Follows { remember: remembered, ..Follows::default() };
    // Whatever their form, they were released, or would have been.
    let moved = standing.tags.iter().filter_map(|(tag, first)| Some((tag, first, remote.tags.get(tag)?)));
    let moved = moved.filter(|(_, first, now)| first != now).map(|(tag, first, now)| moved_tag(tag, first, now));
    follows.problems.extend(moved);
    if wants.trigger.tags {
        tags(wants, standing, remote, &mut follows);
    }
    head(wants, remote, is_asked, now_ms, &mut follows);
    follows
}

/// Which commit the branch that is released has.
pub(super) fn head_of<'r>(wants: &Wants, remote: &'r Remote) -> Option<&'r String> {
    remote.branches.get(&wants.source.branch)
}

fn tags(wants: &Wants, standing: &Standing, remote: &Remote, follows: &mut Follows) {
    let form = match TagForm::read(wants.source.tags.as_deref()) {
        Ok(form) => form,
        Err(problem) => return follows.problems.push(problem),
    };
    let of = (wants.source.repository.clone(), wants.source.tags.clone());
    let fits = |(tag, _): &(&String, &String)| form.value(tag).is_some();
    let new = remote.tags.iter().filter(fits).filter(|(tag, _)| !standing.tags.contains_key(*tag));
    let mut new: Vec<_> = new.map(|(tag, commit)| (tag.clone(), commit.clone())).collect();
    // Of another repository or form than before, all of them are as old as at the first look.
    if standing.has_looked && follows.remember.tags_of.as_ref().is_none_or(|before| *before == of) {
        new.sort_by(|(one, _), (other, _)| form.order(one, other));
        new.truncate(TAGS_AT_ONCE);
        follows.build = new;
    } else {
        follows.record = Some(new.into_iter().collect());
    }
    follows.remember.tags_of = Some(of);
}

fn head(wants: &Wants, remote: &Remote, is_asked: bool, now_ms: u64, follows: &mut Follows) {
    let (source, trigger) = (&wants.source, &wants.trigger);
    let head = head_of(wants, remote);
    if head.is_none() && (trigger.commits || trigger.schedule.is_some()) {
        let sentence = format!("the branch {} does not exist in {}", source.branch, source.repository);
        follows.problems.push(sentence);
    }
    let is_tag = head.is_some_and(|head| follows.build.iter().any(|(_, commit)| commit == head));
    let head = head.filter(|_| !is_asked && !is_tag);
    if let Some(schedule) = &trigger.schedule {
        match Schedule::read(&schedule.cron, &schedule.time_zone) {
            Ok(times) => {
                let since_ms = follows.remember.since(schedule).unwrap_or(now_ms);
                let is_due = times.was_due(since_ms, now_ms);
                if let Some(head) = head.filter(|_| is_due) {
                    follows.head = Some((head.clone(), Trigger::Schedule));
                }
                // Until the head is on record as asked for, the time is not over.
                let since_ms = if is_due && is_asked { now_ms } else { since_ms };
                follows.remember.schedule = Some((schedule.cron.clone(), schedule.time_zone.clone(), since_ms));
            }
            Err(problem) => follows.problems.push(problem),
        }
    }
    if let Some(head) = head.filter(|_| trigger.commits) {
        follows.head = Some((head.clone(), Trigger::Commit { branch: source.branch.clone() }));
    }
}

#[cfg(test)]
mod tests;
