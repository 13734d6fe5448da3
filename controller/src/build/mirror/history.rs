//! What a mirror says of commits: who wrote them, how they follow from each other.

use crate::build::BuildProblem;
use crate::files::check_reference;

use super::{Mirror, is_full};

/// Longest subject and author that are kept.
const TEXT_LENGTH: usize = 200;

/// Most commits that are named of those between two.
pub(crate) const BETWEEN_MOST: usize = 100;

/// What lies between two commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Between {
    /// Hash and subject, newest first; at most [`BETWEEN_MOST`]. Without the later one itself.
    pub(crate) commits: Vec<(String, String)>,
    /// So many more.
    pub(crate) more: u32,
    /// The earlier one is no ancestor of the later one: the history was rewritten.
    pub(crate) rewritten: bool,
}

impl Mirror<'_> {
    /// The full hash of the commit that a spelling names.
    pub(crate) async fn commit_id(&mut self, spelling: &str) -> Result<Option<String>, BuildProblem> {
        let commit = format!("{spelling}^{{commit}}");
        let found = self.quiet(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await?;
        Ok(found.map(|output| String::from_utf8_lossy(&output).trim().to_owned()).filter(|id| is_full(id)))
    }

    /// Author and subject.
    pub(crate) async fn describe(&mut self, id: &str) -> Result<(String, String), BuildProblem> {
        let output = self.git(&["log", "-1", "--encoding=UTF-8", "--format=%an%x00%s", "--end-of-options", id]).await?;
        let text = String::from_utf8_lossy(&output);
        let (author, subject) = text.split_once('\0').unwrap_or_default();
        Ok((plain(author), plain(subject)))
    }

    /// The newest tag that points at a commit.
    pub(crate) async fn tag_at(&mut self, id: &str) -> Result<Option<String>, BuildProblem> {
        let points_at = format!("--points-at={id}");
        let verb = ["for-each-ref", "--count=1", "--sort=-creatordate", "--format=%(refname:strip=2)", &points_at];
        let output = self.git(&[&verb[..], &["refs/tags"]].concat()).await?;
        let tag = String::from_utf8_lossy(&output).trim().to_owned();
        Ok(Some(tag).filter(|tag| check_reference(tag).is_ok()))
    }

    /// What lies between an earlier commit and a later one, which is there. An earlier one that is gone counts as rewritten, and
    /// then nothing can be named.
    pub(crate) async fn between(&mut self, earlier: &str, later: &str) -> Result<Between, BuildProblem> {
        if self.commit_id(earlier).await?.is_none() {
            return Ok(Between { rewritten: true, ..Between::default() });
        }
        let rewritten = !self.is_ancestor(earlier, later).await?;
        let (most, range) = (format!("--max-count={}", BETWEEN_MOST + 1), format!("{earlier}..{later}"));
        let counted = self.git(&["rev-list", "--count", "--end-of-options", &range]).await?;
        let counted: usize = String::from_utf8_lossy(&counted).trim().parse().unwrap_or(0);
        let verb = ["log", "--encoding=UTF-8", "--format=%H%x00%s", &most, "--end-of-options", &range];
        let listed = self.git(&verb).await?;
        let listed = String::from_utf8_lossy(&listed);
        let commits = listed.lines().filter_map(|line| line.split_once('\0')).filter(|(id, _)| *id != later);
        let commits: Vec<_> = commits.take(BETWEEN_MOST).map(|(id, subject)| (id.to_owned(), plain(subject))).collect();
        let more = u32::try_from(counted.saturating_sub(1 + commits.len())).unwrap_or(u32::MAX);
        Ok(Between { commits, more, rewritten })
    }

    /// Whether a commit is another one or among those that led to it.
    pub(crate) async fn is_ancestor(&mut self, earlier: &str, later: &str) -> Result<bool, BuildProblem> {
        let answer = self.quiet(&["merge-base", "--is-ancestor", "--end-of-options", earlier, later]).await?;
        Ok(answer.is_some())
    }

    /// The commit at which the ways to two others part.
    pub(crate) async fn merge_base(&mut self, one: &str, other: &str) -> Result<Option<String>, BuildProblem> {
        let found = self.quiet(&["merge-base", "--end-of-options", one, other]).await?;
        Ok(found.map(|output| String::from_utf8_lossy(&output).trim().to_owned()).filter(|id| is_full(id)))
    }

    /// How many commits it follows from directly: a merge has more than one.
    pub(crate) async fn parents(&mut self, id: &str) -> Result<usize, BuildProblem> {
        let output = self.git(&["rev-list", "--parents", "--max-count=1", "--end-of-options", id]).await?;
        Ok(String::from_utf8_lossy(&output).split_whitespace().count().saturating_sub(1))
    }
}

/// A text for people, on one line.
pub(crate) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_LENGTH).collect()
}
