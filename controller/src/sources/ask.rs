//! Asks the engine for what follows from a look: builds of tags at once, the head when it is the head's turn.
//!
//! Must not know: how a look is paced.

use std::collections::BTreeMap;

use api::ServiceName;

use crate::build::mirror::{Mirror, Remote};
use crate::build::{BuildProblem, Cancel};
use crate::core::Command;
use crate::core::spec::Source;
use crate::core::state::{CommitNamed, Overtook, Trigger, Wanted};
use crate::engine::{Engine, NotDone, Priority, Submission};
use crate::status::clock_ms;

use super::Around;
use super::look::{Follows, follow, head_of};
use super::watched::{Standing, Wants, is_asked};

/// Tags in one event.
const TAGS_TOGETHER: usize = 1_000;

/// What the last look made of a head: it is not asked of git again.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    base: Option<String>,
    wanted: Option<Wanted>,
}

/// Looking is ended by dropping it.
pub(super) fn nobody() -> Cancel {
    tokio::sync::watch::channel(false).1
}

/// Does what follows for one service; whether its head has to be looked at again at once, because a build ended meanwhile.
/// `standing` is from before the repository was asked.
pub(super) async fn service(
    around: &Around,
    name: &ServiceName,
    wants: &Wants,
    standing: &Standing,
    remote: &Remote,
    found: &mut Found,
) -> Result<bool, BuildProblem> {
    let Some(is_asked) = asked(around, name, head_of(wants, remote).cloned()).await else { return Ok(false) };
    let follows = follow(wants, standing, remote, is_asked, around.kept.of(name), clock_ms());
    let Follows { head, build, record, remember, mut problems } = follows;
    let recorded = match record {
        Some(tags) => notice(around, name, tags, &mut problems).await,
        None => true,
    };
    let built = tags(around, name, &wants.source, build, &mut problems).await;
    let head = match head.filter(|_| !standing.is_building) {
        Some((commit, trigger)) => Some(describe(around, name, &wants.source, commit, trigger, standing, found).await?),
        None => None,
    };
    let stale = put(around, name, head, standing.clone()).await;
    if recorded && built? {
        around.kept.remember(name, remember).await;
    }
    around.sources.known().services.insert(name.clone(), problems);
    Ok(stale)
}

/// Whether a release of the head was asked for; none: the controller is stopping, or the service is gone.
async fn asked(around: &Around, name: &ServiceName, head: Option<String>) -> Option<bool> {
    let name = name.clone();
    let read = move |engine: &Engine| {
        let service = engine.state.service(&name)?;
        Some(head.is_some_and(|head| is_asked(service, &head)))
    };
    around.engine.read(read).await.flatten()
}

/// Puts tags that were there before on record.
async fn notice(
    around: &Around,
    name: &ServiceName,
    tags: BTreeMap<String, String>,
    problems: &mut Vec<String>,
) -> bool {
    let all: Vec<_> = tags.into_iter().collect();
    let none = [&all[..]];
    let chunks: Vec<&[_]> = if all.is_empty() { none.to_vec() } else { all.chunks(TAGS_TOGETHER).collect() };
    for some in chunks {
        let tags = some.iter().cloned().collect();
        if !submit(around, Command::NoticeTags { service: name.clone(), tags }, problems).await {
            return false;
        }
    }
    true
}

/// Asks for builds of tags, in their order; each is on record before the next.
async fn tags(
    around: &Around,
    name: &ServiceName,
    source: &Source,
    tags: Vec<(String, String)>,
    problems: &mut Vec<String>,
) -> Result<bool, BuildProblem> {
    if tags.is_empty() {
        return Ok(true);
    }
    let mut mirror = Mirror::open(&around.folders, name, source, nobody()).await?;
    let mut all_well = true;
    for (tag, commit) in tags {
        // A tag may point at anything; one that is no commit keeps no other from being built.
        if let Err(problem) = mirror.need(&commit).await {
            problems.push(format!("tag {tag}: {problem}"));
            continue;
        }
        let (author, subject) = mirror.describe(&commit).await?;
        let (version, of) = (tag.clone(), Some(tag.clone()));
        let wanted = Wanted {
            version,
            commit: commit.clone(),
            subject,
            author,
            tag: of,
            trigger: Trigger::Tag,
            ..Wanted::default()
        };
        let command = Command::Build { service: name.clone(), wanted: Box::new(wanted), again: false };
        let is_built = submit(around, command, problems).await;
        all_well &= is_built && notice(around, name, [(tag, commit)].into(), problems).await;
    }
    Ok(all_well)
}

/// What is wanted of a head, with what it overtook.
async fn describe(
    around: &Around,
    name: &ServiceName,
    source: &Source,
    commit: String,
    trigger: Trigger,
    standing: &Standing,
    found: &mut Found,
) -> Result<Wanted, BuildProblem> {
    if let Some(known) = found.wanted.clone().filter(|one| one.commit == commit && found.base == standing.base) {
        return Ok(Wanted { trigger, ..known });
    }
    let mut mirror = Mirror::open(&around.folders, name, source, nobody()).await?;
    mirror.need(&commit).await?;
    let (author, subject) = mirror.describe(&commit).await?;
    let version = mirror.tag_at(&commit).await?.unwrap_or_default();
    let overtook = match &standing.base {
        Some(base) => {
            let between = mirror.between(base, &commit).await?;
            let commits = between.commits.into_iter().map(|(id, subject)| CommitNamed { id, subject }).collect();
            Overtook { commits, more: between.more, rewritten: between.rewritten }
        }
        None => Overtook::default(),
    };
    let wanted = Wanted { version, commit, subject, author, trigger, overtook, ..Wanted::default() };
    *found = Found { base: standing.base.clone(), wanted: Some(wanted.clone()) };
    Ok(wanted)
}

/// Tells the engine of the head, or that there is none to ask for. While a build runs none is told of: what is newest is looked for
/// after it. Whether one ended since `before`, so that the head may be an old one by now.
async fn put(around: &Around, name: &ServiceName, head: Option<Wanted>, before: Standing) -> bool {
    let (name, (tell, told)) = (name.clone(), tokio::sync::oneshot::channel());
    around.engine.tell(move |engine| {
        let now = engine.state.service(&name).map(Standing::of).unwrap_or_default();
        let is_stale = now.ended != before.ended;
        match head.filter(|_| !is_stale && !now.is_building) {
            Some(wanted) => drop(engine.seen.heads.insert(name, wanted)),
            None => drop(engine.seen.heads.remove(&name)),
        }
        let _ = tell.send(is_stale); // Nobody may wait any more.
    });
    told.await.unwrap_or(false)
}

/// Has a command carried out; what it is refused for is told.
async fn submit(around: &Around, command: Command, problems: &mut Vec<String>) -> bool {
    match around.engine.submit(Submission::own(command), Priority::Normal).await {
        Ok(_) => true,
        Err(NotDone::Refused(refusal)) => {
            problems.push(refusal.to_string());
            false
        }
        Err(NotDone::Store(problem)) => {
            problems.push(problem.to_string());
            false
        }
        Err(NotDone::Stopping) => false,
    }
}
