//! Hot fixes: a commit on top of a released one, by a branch off it or made of picked commits.
//!
//! Must not know: releases. The same picks on the same base give the same commit each time and on every machine: author and
//! author's date are those of what was picked, the committer is fixed, and his date is the author's.

use api::ServiceName;

use crate::core::spec::Source;

use super::mirror::{Mirror, plain};
use super::process::Ended;
use super::workspace::Workspace;
use super::{BuildFolders, BuildProblem, Commit, Revision, mirror};

/// Who puts picked commits on top of others.
const COMMITTER: [(&str, &str); 2] =
    [("GIT_COMMITTER_NAME", "pointsman"), ("GIT_COMMITTER_EMAIL", "pointsman@localhost")];

/// Most files that a sentence names.
const NAMED: usize = 10;

/// What a hot fix is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    /// The newest commit of a branch that begins at the base.
    Branch(String),
    /// These commits, in this order, on top of it.
    Picks(Vec<String>),
}

/// A hot fix that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// What is to be built.
    pub commit: Commit,
    /// What was picked, in order: full hash and subject.
    pub picks: Vec<(String, String)>,
}

/// Finds or makes the commit of a hot fix of `base`, a full hash.
///
/// # Errors
/// One sentence: the branch does not begin at the base (and where they part), a pick is a merge or conflicts (and in which
/// files), or as [`resolve`](super::resolve).
pub async fn fix(
    folders: &BuildFolders,
    service: &ServiceName,
    source: &Source,
    base: &str,
    wanted: &Fix,
) -> Result<Fixed, BuildProblem> {
    match wanted {
        Fix::Branch(branch) => {
            let revision = Revision::Branch(branch.clone());
            let commit = Box::pin(super::resolve(folders, service, source, &revision)).await?;
            let mut mirror = open(folders, service, source).await?;
            mirror.need(base).await?;
            if mirror.is_ancestor(base, &commit.id).await? {
                return Ok(Fixed { commit, picks: Vec::new() });
            }
            let parted = mirror.merge_base(base, &commit.id).await?;
            let parted =
                parted.map_or("they have nothing in common".into(), |at| format!("they part at {}", short(&at)));
            Err(BuildProblem::new(format!(
                "the branch {branch} does not contain the released commit {base}: {parted}; begin it there with \
                 `git switch --create NAME {}`",
                short(base)
            )))
        }
        Fix::Picks(picks) => {
            let mut found = Vec::new();
            for pick in picks {
                let revision = Revision::Commit(pick.clone());
                let commit = Box::pin(super::resolve(folders, service, source, &revision)).await?;
                found.push((commit.id, commit.subject));
            }
            let mut mirror = open(folders, service, source).await?;
            let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
            let id = make(&mut mirror, folders, service, base, &ids).await?;
            let (author, subject) = mirror.describe(&id).await?;
            Ok(Fixed { commit: Commit { id, subject, author, tag: None }, picks: found })
        }
    }
}

/// Makes sure that the commit which `picks` on top of `base` gave is in the mirror; it is on no server.
///
/// # Errors
/// As [`fix`]; and when they give another commit now.
pub(crate) async fn need(
    mirror: &mut Mirror<'_>,
    folders: &BuildFolders,
    service: &ServiceName,
    commit: &str,
    base: &str,
    picks: &[String],
) -> Result<(), BuildProblem> {
    if mirror.commit_id(commit).await?.is_some() {
        return Ok(());
    }
    let made = make(mirror, folders, service, base, picks).await?;
    if made == commit {
        return Ok(());
    }
    let sentence = format!(
        "the picked commits on top of {base} give {made} here and gave {commit} when they were asked for: ask for them anew"
    );
    Err(BuildProblem::new(sentence))
}

async fn open<'m>(
    folders: &'m BuildFolders,
    service: &ServiceName,
    source: &'m Source,
) -> Result<Mirror<'m>, BuildProblem> {
    let (_canceller, cancel) = tokio::sync::watch::channel(false);
    Mirror::open(folders, service, source, cancel).await
}

/// Puts commits on top of another one, and what comes out into the mirror.
async fn make(
    mirror: &mut Mirror<'_>,
    folders: &BuildFolders,
    service: &ServiceName,
    base: &str,
    picks: &[String],
) -> Result<String, BuildProblem> {
    mirror.need(base).await?;
    for pick in picks {
        mirror.need(pick).await?;
        if mirror.parents(pick).await? > 1 {
            return Err(BuildProblem::new(format!("{} is a merge: pick what it merged", short(pick))));
        }
    }
    // The mirror is held, so there is one of a service at a time.
    let workspace = Workspace::within(folders.work.clone(), &format!("{service}-picks")).await?;
    let made = Box::pin(within(mirror, &workspace, base, picks)).await;
    workspace.remove().await;
    made
}

async fn within(
    mirror: &mut Mirror<'_>,
    workspace: &Workspace,
    base: &str,
    picks: &[String],
) -> Result<String, BuildProblem> {
    let checkout = workspace.checkout();
    let folder = checkout.display().to_string();
    mirror.git(&["init", "--quiet", "--template=", "--end-of-options", &folder]).await?;
    mirror.lend_objects(&checkout)?;
    mirror.git(&["-C", &folder, "checkout", "--quiet", "--force", "--detach", base, "--"]).await?;
    for pick in picks {
        put(mirror, &folder, base, pick).await?;
    }
    let head = mirror.git(&["-C", &folder, "rev-parse", "--verify", "HEAD^{commit}"]).await?;
    let head = String::from_utf8_lossy(&head).trim().to_owned();
    // A name of its own keeps it: branches and tags are the server's.
    let (from, to) = (format!("file://{folder}"), format!("+HEAD:refs/picked/{head}"));
    let verb = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--end-of-options", &from, &to];
    mirror.git(&[&["-C", "."], &verb[..]].concat()).await?;
    Ok(head)
}

/// Puts one commit on top of what is checked out.
async fn put(mirror: &mut Mirror<'_>, folder: &str, base: &str, pick: &str) -> Result<(), BuildProblem> {
    let date = mirror.git(&["log", "-1", "--date=raw", "--format=@%ad", "--end-of-options", pick]).await?;
    let date = String::from_utf8_lossy(&date).trim().to_owned();
    let [name, mail] = COMMITTER;
    let more = [name, mail, ("GIT_COMMITTER_DATE", date.as_str()), ("GIT_EDITOR", ":")];
    let verb = ["-C", folder, "cherry-pick", "--allow-empty", "--keep-redundant-commits", "-x", pick];
    let (ended, kept) = mirror.run_with(&verb, &more).await?;
    if ended == Ended::Exit(0) {
        return Ok(());
    }
    let unmerged = mirror.git(&["-C", folder, "diff", "--name-only", "--diff-filter=U", "-z"]).await?;
    let files: Vec<String> = unmerged.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(named).collect();
    let (_, subject) = mirror.describe(pick).await?;
    let what = format!("{} ({subject}) on top of {}", short(pick), short(base));
    if files.is_empty() {
        let why = mirror::reason(&kept.errors).unwrap_or_else(|| ended.to_string());
        return Err(BuildProblem::new(format!("picking {what} failed: {why}")));
    }
    let more = match files.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more files"),
    };
    let files = files.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    let sentence =
        format!("picking {what} conflicts in {files}{more}: settle it in a branch that begins there, and use --branch");
    Err(BuildProblem { exit: Some(1), ..BuildProblem::new(sentence) })
}

fn named(name: &[u8]) -> String {
    plain(&String::from_utf8_lossy(name))
}

/// As people write a hash.
fn short(id: &str) -> &str {
    id.get(..7).unwrap_or(id)
}
