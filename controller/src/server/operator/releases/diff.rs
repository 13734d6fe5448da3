//! `release diff`: what changed between two releases of a service.

use std::collections::{BTreeMap, BTreeSet};

use api::operator::{ArtifactDiffers, Commit, DiffReleasesRequest, ReleasesDiffer, SettingDiffers};
use api::{ReleaseName, Verb};
use tonic::Status;

use crate::build::{self, Between};
use crate::core::spec::Source;
use crate::core::state::Release;
use crate::engine::Engine;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::status;

/// Both releases, and where their commits come from.
struct Pair {
    from: Release,
    to: Release,
    source: Option<Source>,
}

/// Commits that one has and the other has not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Only {
    commits: Vec<Commit>,
    more: u32,
}

impl Shared {
    /// What changed between two releases: commits, configuration, artifacts.
    pub(in super::super) async fn diff_releases(
        &self,
        who: &Operator,
        request: DiffReleasesRequest,
    ) -> Result<ReleasesDiffer, Status> {
        let (from, to): (ReleaseName, ReleaseName) = (parse(&request.from)?, parse(&request.to)?);
        if from.service != to.service {
            let sentence = format!("{from} and {to} belong to two services: only releases of one can be compared");
            return Err(Status::invalid_argument(sentence));
        }
        who.may(Verb::Read, Some(&from.service), None)?;
        let names = (from.clone(), to.clone());
        let find = move |engine: &Engine| {
            let of = |name: &ReleaseName| {
                let missing = || Status::not_found(format!("there is no release {name}"));
                let shown = status::release(engine, name).ok_or_else(missing)?;
                Ok::<_, Status>((engine.state.release(name).cloned().ok_or_else(missing)?, shown))
            };
            let source = engine.state.service(&names.0.service).and_then(|service| service.spec.source.clone());
            Ok::<_, Status>((of(&names.0)?, of(&names.1)?, source))
        };
        let ((from_state, from_shown), (to_state, to_shown), source) =
            self.engine.read(find).await.ok_or_else(stopping)??;
        let pair = Pair { from: from_state, to: to_state, source };
        let mut differ = ReleasesDiffer {
            from: Some(from_shown),
            to: Some(to_shown),
            configuration: configuration(&pair.from, &pair.to),
            artifacts: artifacts(&pair.from, &pair.to),
            ..ReleasesDiffer::default()
        };
        match self.commits(&from, &to, &pair).await {
            Ok((added, removed)) => {
                (differ.added, differ.added_more) = (added.commits, added.more);
                (differ.removed, differ.removed_more) = (removed.commits, removed.more);
            }
            Err(why) => differ.commits_unknown = why,
        }
        Ok(differ)
    }

    /// Commits that came, and those that are gone; or why nobody can tell.
    async fn commits(&self, from: &ReleaseName, to: &ReleaseName, pair: &Pair) -> Result<(Only, Only), String> {
        let (old, new) = (&pair.from.wanted, &pair.to.wanted);
        if old.commit == new.commit && !old.commit.is_empty() {
            return Ok(Default::default());
        }
        for (name, wanted) in [(from, old), (to, new)] {
            // What was added by hand may name anything.
            if wanted.commit.len() < 40 {
                return Err(format!("{name} was added without its whole commit"));
            }
        }
        let service = &from.service;
        let source = pair.source.as_ref().ok_or_else(|| format!("{service} has no `source` any more"))?;
        let between = async |earlier: &str, later: &str| {
            let found = Box::pin(build::commits_between(&self.folders, service, source, earlier, later)).await;
            found.map_err(|problem| problem.sentence)
        };
        let came = between(&old.commit, &new.commit).await?;
        let gone = between(&new.commit, &old.commit).await?;
        let commit = |id: &str, subject: &str| Commit { id: id.to_owned(), subject: subject.to_owned() };
        let (old, new) = (commit(&old.commit, &old.subject), commit(&new.commit, &new.subject));
        // Whichever led to the other brings nothing of its own.
        let (is_new, is_old) = (gone.rewritten, came.rewritten);
        Ok((only(came, new, is_new), only(gone, old, is_old)))
    }
}

/// What is between, with the later commit itself unless the earlier one has it.
fn only(between: Between, later: Commit, is_new: bool) -> Only {
    let between_them = between.commits.into_iter().map(|(id, subject)| Commit { id, subject });
    Only { commits: is_new.then_some(later).into_iter().chain(between_them).collect(), more: between.more }
}

fn configuration(from: &Release, to: &Release) -> Vec<SettingDiffers> {
    let (mut old, new) = (status::configuration(from), status::configuration(to));
    let mut differ: Vec<_> = new
        .into_iter()
        .map(|(key, to)| SettingDiffers { from: old.remove(&key), key, to: Some(to) })
        .filter(|setting| setting.from != setting.to)
        .collect();
    differ.extend(old.into_iter().map(|(key, from)| SettingDiffers { key, from: Some(from), to: None }));
    differ.sort_by(|one, other| one.key.cmp(&other.key));
    differ
}

fn artifacts(from: &Release, to: &Release) -> Vec<ArtifactDiffers> {
    let all = |release: &Release| -> BTreeMap<(String, String), String> {
        let named = release.all_artifacts().map(|(environment, component, artifact)| {
            let environment = environment.map(ToString::to_string).unwrap_or_default();
            ((component.to_string(), environment), artifact.digest.to_string())
        });
        named.collect()
    };
    let (old, new) = (all(from), all(to));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of =
        |all: &BTreeMap<(String, String), String>, key: &(String, String)| all.get(key).cloned().unwrap_or_default();
    let differ = keys.into_iter().map(|key| ArtifactDiffers {
        component: key.0.clone(),
        environment: key.1.clone(),
        from: of(&old, key),
        to: of(&new, key),
    });
    differ.filter(|artifact| artifact.from != artifact.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evolve_test::{World, artifact};

    fn two() -> (Release, Release) {
        let world = World::with_built_releases(2);
        let of = |name: &str| world.state.release(&name.parse().expect("a name")).expect("there").clone();
        (of("hello@r1"), of("hello@r2"))
    }

    #[test]
    fn releases_differ_by_what_is_frozen_into_them() {
        let (from, mut to) = two();
        assert_eq!(configuration(&from, &to), []);
        let web = to.components.values_mut().next().expect("one");
        web.run.push("--fast".into());
        web.environment.insert("MODE".into(), "x".into());
        web.health.http = None;
        let found: Vec<_> = configuration(&from, &to).into_iter().map(|one| (one.key, one.from, one.to)).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("component.web.environment.MODE".to_owned(), None, text("x")),
                ("component.web.health.http".to_owned(), text("/healthz"), None),
                ("component.web.run".to_owned(), text("./hello --port {port}"), text("./hello --port {port} --fast")),
            ]
        );
    }

    #[test]
    fn releases_differ_by_their_artifacts() {
        let (from, mut to) = two();
        let web: api::ComponentName = "web".parse().expect("a name");
        let differ = artifacts(&from, &to);
        assert_eq!((differ.len(), differ[0].component.as_str()), (1, "web"));
        assert_eq!(differ[0].from, from.artifacts[&web].digest.to_string());
        assert_eq!(differ[0].to, to.artifacts[&web].digest.to_string());
        to.artifacts = from.artifacts.clone();
        assert_eq!(artifacts(&from, &to), []);
        to.for_environments.entry("qa".parse().expect("a name")).or_default().insert(web, artifact(b"own"));
        let differ = artifacts(&from, &to);
        assert_eq!((differ.len(), differ[0].environment.as_str(), differ[0].from.as_str()), (1, "qa", ""));
        assert_eq!(artifacts(&to, &from)[0].to, "");
    }

    #[test]
    fn releases_that_follow_each_other_add_commits_and_take_none() {
        let commit = |id: &str| Commit { id: id.to_owned(), subject: format!("s{id}") };
        let pair = |id: &str| (id.to_owned(), format!("s{id}"));
        let between =
            |ids: &[&str], rewritten| Between { commits: ids.iter().map(|id| pair(id)).collect(), more: 2, rewritten };
        // 1 <- 2 <- 3: seen from 3, 1 is rewritten history.
        let came = only(between(&["2"], false), commit("3"), true);
        assert_eq!((came.commits, came.more), (vec![commit("3"), commit("2")], 2));
        let gone = only(Between { rewritten: true, ..Between::default() }, commit("1"), false);
        assert_eq!(gone, Only::default());
    }
}
