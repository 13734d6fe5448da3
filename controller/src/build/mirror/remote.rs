//! What branches and tags a repository has now: one call of `git ls-remote`, which fetches nothing.
//!
//! Must not know: services, or what follows from what was seen.

use std::collections::BTreeMap;

use crate::build::process::Ended;
use crate::build::{BuildFolders, BuildProblem, Cancel};
use crate::files::{check_reference, check_repository};

use super::git::{self, Git};
use super::is_full;

/// Branches and tags of a repository, by name, each with the commit that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) branches: BTreeMap<String, String>,
    /// Of an annotated tag, what it points at.
    pub(crate) tags: BTreeMap<String, String>,
}

/// Asks a repository. Its answer is bounded; names that git itself would refuse are passed over.
///
/// # Errors
/// One sentence: it cannot be reached, refuses us, or has more branches and tags than fit into 2 MiB.
pub(crate) async fn look(folders: &BuildFolders, repository: &str, cancel: Cancel) -> Result<Remote, BuildProblem> {
    check_repository(repository).map_err(BuildProblem::new)?;
    let folder = folders.mirrors.clone();
    std::fs::create_dir_all(&folder).map_err(|error| BuildProblem::io("making the folder", &folder, &error))?;
    let mut git = Git { folders, folder, repository, cancel };
    let (ended, kept) =
        git.run(&["ls-remote", "--quiet", "--heads", "--tags", "--end-of-options", repository], &[]).await?;
    if kept.over {
        let sentence = format!("{repository} has too many branches and tags: their names take more than 2 MiB");
        return Err(BuildProblem::new(sentence));
    }
    if ended != Ended::Exit(0) {
        let why = git::reason(&kept.errors).filter(|_| ended != Ended::TimedOut).unwrap_or_else(|| ended.to_string());
        return Err(BuildProblem::new(format!("looking at {repository} failed: {why}")));
    }
    Ok(Remote::read(&kept.output))
}

// === impl Remote ===

impl Remote {
    /// Reads lines of `HASH<tab>REFERENCE`; what is none is passed over.
    fn read(output: &[u8]) -> Self {
        let mut remote = Self::default();
        for line in String::from_utf8_lossy(output).lines() {
            let Some((id, name)) = line.split_once('\t').filter(|(id, _)| is_hash(id)) else { continue };
            let (name, peeled) = name.strip_suffix("^{}").map_or((name, false), |name| (name, true));
            let named = |prefix| name.strip_prefix(prefix).filter(|name| check_reference(name).is_ok());
            if let Some(branch) = named("refs/heads/") {
                remote.branches.insert(branch.to_owned(), id.to_owned());
            } else if let Some(tag) = named("refs/tags/") {
                // What an annotated tag points at comes after the tag's own hash.
                if peeled || !remote.tags.contains_key(tag) {
                    remote.tags.insert(tag.to_owned(), id.to_owned());
                }
            }
        }
        remote
    }
}

fn is_hash(id: &str) -> bool {
    is_full(id) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h84_names_that_a_repository_makes_up_are_passed_over() {
        let (one, two) = ("1".repeat(40), "2".repeat(64));
        let lines = [
            format!("{one}\trefs/heads/main"),
            format!("{one}\trefs/heads/--upload-pack=x"),
            format!("{one}\trefs/heads/a\u{1b}[31m"),
            format!("{one}\trefs/heads/../../etc/passwd"),
            format!("{one}\trefs/pull/1/head"),
            format!("{one}\trefs/tags/v1"),
            format!("{two}\trefs/tags/v1^{{}}"),
            format!("{one}\trefs/tags/v2"),
            format!("{}\trefs/tags/v3", "g".repeat(40)),
            "123\trefs/tags/v4".to_owned(),
            "no tab at all".to_owned(),
        ];
        let remote = Remote::read(lines.join("\n").as_bytes());
        let names = |map: &BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!((names(&remote.branches), names(&remote.tags)), ("main".to_owned(), "v1 v2".to_owned()));
        assert_eq!((&remote.tags["v1"], &remote.tags["v2"]), (&two, &one), "what a tag points at counts");
        assert_eq!(Remote::read(b"\xff\xfe\t\xff\n\0"), Remote::default());
    }
}
