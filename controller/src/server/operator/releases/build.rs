//! `release build`, `cancel` and `retry`.

use api::operator::build_release_request::Source as Asked;
use api::operator::{BuildReleaseRequest, ChangeReleaseRequest, Release};
use api::{ReleaseName, ReleaseNumber, ServiceName, Verb};
use tonic::Status;

use crate::build::{self, Commit, Fix, Revision};
use crate::core::spec::Source;
use crate::core::state::{CommitNamed, HotFix, State, Wanted};
use crate::core::{Command, queue};
use crate::engine::{Accepted, Engine, Priority};
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::sources::tags::TagForm;

/// Commits that one hot fix is made of.
const PICKS_MOST: usize = 50;

/// What somebody wants to have built, as far as words tell.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    /// A commit of the repository.
    Commit(Revision),
    /// Something on top of a release.
    HotFix(ReleaseNumber, Fix),
}

impl Shared {
    /// Finds or makes the commit, then queues its build.
    pub(in super::super) async fn build_release(
        &self,
        who: &Operator,
        request: BuildReleaseRequest,
    ) -> Result<Release, Status> {
        let service: ServiceName = parse(&request.service)?;
        who.may(Verb::Release, Some(&service), None)?;
        // Before the branch is looked up: it may have moved on since.
        if let Some(before) = self.done_before(who, &request.request_id).await? {
            return self.made(before).await;
        }
        let looked_up = service.clone();
        let source = self.engine.read(move |engine| source(&engine.state, &looked_up));
        let source = source.await.ok_or_else(stopping)??;
        let wanted = match wish(&request, &source)? {
            Wish::Commit(revision) => self.commit(&service, &source, &revision).await?,
            Wish::HotFix(of, fix) => self.hot_fix(&service, &source, of, &fix).await?,
        };
        let command =
            Command::Build { service: service.clone(), wanted: Box::new(wanted.clone()), again: request.again };
        let accepted = self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        if accepted.events.is_empty() {
            return self.built_already(service, wanted, accepted).await;
        }
        self.made(accepted).await
    }

    /// Ends a build, or takes it out of the queue.
    pub(in super::super) async fn cancel_build(
        &self,
        who: &Operator,
        request: ChangeReleaseRequest,
    ) -> Result<Release, Status> {
        let release: ReleaseName = parse(&request.release)?;
        who.may(Verb::Release, Some(&release.service), None)?;
        let command = Command::CancelBuild { release: release.clone() };
        self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        self.one(release).await
    }

    /// Builds the commit of a release once more, as a new one.
    pub(in super::super) async fn retry_release(
        &self,
        who: &Operator,
        request: ChangeReleaseRequest,
    ) -> Result<Release, Status> {
        let release: ReleaseName = parse(&request.release)?;
        who.may(Verb::Release, Some(&release.service), None)?;
        let command = Command::RetryRelease { release };
        let accepted = self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        self.made(accepted).await
    }

    async fn commit(&self, service: &ServiceName, source: &Source, revision: &Revision) -> Result<Wanted, Status> {
        let commit = Box::pin(build::resolve(&self.folders, service, source, revision)).await;
        let commit = commit.map_err(|problem| Status::failed_precondition(problem.sentence))?;
        let tag = if let Revision::Tag(tag) = revision { Some(tag.clone()) } else { None };
        Ok(Wanted { tag, ..of(commit) })
    }

    async fn hot_fix(
        &self,
        service: &ServiceName,
        source: &Source,
        number: ReleaseNumber,
        fix: &Fix,
    ) -> Result<Wanted, Status> {
        let release = ReleaseName::new(service.clone(), number);
        let base = self.engine.read(move |engine| base(&engine.state, &release)).await.ok_or_else(stopping)??;
        let fixed = Box::pin(build::fix(&self.folders, service, source, &base, fix)).await;
        let fixed = fixed.map_err(|problem| Status::failed_precondition(problem.sentence))?;
        let picks = fixed.picks.into_iter().map(|(id, subject)| CommitNamed { id, subject });
        let branch = if let Fix::Branch(branch) = fix { Some(branch.clone()) } else { None };
        Ok(Wanted { hot_fix: Some(HotFix { of: number, base, branch, picks: picks.collect() }), ..of(fixed.commit) })
    }

    /// The release that was made of the same already: nothing had to be done.
    async fn built_already(&self, service: ServiceName, wanted: Wanted, accepted: Accepted) -> Result<Release, Status> {
        let find = move |engine: &Engine| {
            let number = queue::made_of(engine.state.service(&service)?, &wanted)?;
            Some(ReleaseName::new(service.clone(), number))
        };
        match self.engine.read(find).await.ok_or_else(stopping)? {
            Some(name) => self.one(name).await,
            None => self.made(accepted).await,
        }
    }
}

fn of(commit: Commit) -> Wanted {
    Wanted {
        version: commit.tag.unwrap_or_default(),
        commit: commit.id,
        subject: commit.subject,
        author: commit.author,
        ..Wanted::default()
    }
}

/// Where a service's commits come from.
fn source(state: &State, name: &ServiceName) -> Result<Source, Status> {
    let service = state
        .service(name)
        .ok_or_else(|| Status::not_found(format!("there is no service {name}: apply its pointsman.toml first")))?;
    service.spec.source.clone().ok_or_else(|| {
        Status::failed_precondition(format!(
            "{name} has no `source` in its pointsman.toml: name its repository, or use `release add`"
        ))
    })
}

/// The commit on which a hot fix of a release stands.
fn base(state: &State, name: &ReleaseName) -> Result<String, Status> {
    let release = state.release(name).ok_or_else(|| Status::not_found(format!("there is no release {name}")))?;
    if !release.is_ready() {
        return Err(Status::failed_precondition(format!(
            "{name} was not built: a hot fix stands on a release that is ready"
        )));
    }
    if release.wanted.commit.len() < 40 {
        return Err(Status::failed_precondition(format!(
            "{name} was added without its whole commit: nothing can be built on top of it"
        )));
    }
    Ok(release.wanted.commit.clone())
}

fn wish(request: &BuildReleaseRequest, source: &Source) -> Result<Wish, Status> {
    let refused = |sentence: &str| Err(Status::invalid_argument(sentence));
    let Some(of) = ReleaseNumber::new(request.from_release) else {
        if !request.picks.is_empty() {
            return refused("commits are picked onto a release: name it with --from, such as --from r41");
        }
        return Ok(Wish::Commit(match request.source.clone() {
            Some(Asked::Commit(commit)) => Revision::Commit(commit),
            Some(Asked::Tag(tag)) => Revision::Tag(of_form(tag, source)?),
            Some(Asked::Branch(branch)) => Revision::Branch(branch),
            None => Revision::Branch(source.branch.clone()),
        }));
    };
    match (request.source.clone(), request.picks.as_slice()) {
        (Some(Asked::Branch(branch)), []) => Ok(Wish::HotFix(of, Fix::Branch(branch))),
        (None, picks) if picks.len() > PICKS_MOST => {
            refused(&format!("a hot fix is made of at most {PICKS_MOST} picked commits: make a branch of so many"))
        }
        (None, picks @ [_, ..]) => Ok(Wish::HotFix(of, Fix::Picks(picks.to_vec()))),
        _ => {
            refused("--from takes either --branch, a branch off the released commit, or --pick, commits to put on top")
        }
    }
}

/// A tag that is released: of the service's own form, or semver.
fn of_form(tag: String, source: &Source) -> Result<String, Status> {
    let form = TagForm::read(source.tags.as_deref()).map_err(Status::failed_precondition)?;
    if form.value(&tag).is_some() {
        return Ok(tag);
    }
    Err(Status::failed_precondition(format!(
        "the tag {tag:?} is not of the form {form}: tags of another form are not released; `source.tags` in \
         pointsman.toml says which are, and --commit takes any commit"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evolve_test::World;

    fn asked(from: u32, source: Option<Asked>, picks: &[&str]) -> Result<Wish, String> {
        let picks = picks.iter().map(|pick| (*pick).to_owned()).collect();
        let request = BuildReleaseRequest { from_release: from, source, picks, ..BuildReleaseRequest::default() };
        let source =
            Source { repository: "/srv/hello.git".into(), branch: "main".into(), tags: Some("v{semver}".into()) };
        wish(&request, &source).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn releases_are_asked_for_in_words_that_fit_together() {
        let (branch, tag) = (|| Some(Asked::Branch("fix/x".into())), |tag: &str| Some(Asked::Tag(tag.into())));
        assert_eq!(asked(0, None, &[]), Ok(Wish::Commit(Revision::Branch("main".into()))));
        assert_eq!(asked(0, branch(), &[]), Ok(Wish::Commit(Revision::Branch("fix/x".into()))));
        assert_eq!(asked(0, tag("v1.2.0"), &[]), Ok(Wish::Commit(Revision::Tag("v1.2.0".into()))));
        let of = ReleaseNumber::new(41).expect("a number");
        assert_eq!(asked(41, branch(), &[]), Ok(Wish::HotFix(of, Fix::Branch("fix/x".into()))));
        let picks = vec!["1a2b3c4".to_owned(), "5d6e7f8".to_owned()];
        assert_eq!(asked(41, None, &["1a2b3c4", "5d6e7f8"]), Ok(Wish::HotFix(of, Fix::Picks(picks))));
        let many = vec!["1a2b3c4"; PICKS_MOST + 1];
        for (wrong, names) in [
            (asked(0, None, &["1a2b3c4"]), "--from r41"),
            (asked(41, None, &[]), "--branch"),
            (asked(41, tag("v1.2.0"), &[]), "--pick"),
            (asked(41, branch(), &["1a2b3c4"]), "either"),
            (asked(41, None, &many), "at most 50"),
            (asked(0, tag("nightly"), &[]), "v{semver}"),
        ] {
            let sentence = wrong.expect_err(names);
            assert!(sentence.contains(names), "{sentence}");
        }
    }

    #[test]
    fn releases_that_a_hot_fix_stands_on_are_built_from_a_commit() {
        let world = World::with_built_releases(1);
        let name = |text: &str| text.parse::<ReleaseName>().expect("a name");
        assert_eq!(base(&world.state, &name("hello@r1")).expect("built"), "1".repeat(40));
        let refused = |state: &State, release: &str| {
            base(state, &name(release)).map_err(|status| status.message().to_owned()).expect_err(release)
        };
        assert!(refused(&world.state, "hello@r2").contains("there is no release hello@r2"));
        let added = World::with_static_releases(1);
        assert!(refused(&added.state, "hello@r1").contains("without its whole commit"));
        let mut queued = World::new(true);
        let wanted = crate::core::evolve_test::wanted(&"1".repeat(40));
        let command = Command::Build { service: "hello".parse().expect("a name"), wanted, again: false };
        queued.command(command, "").expect("queued");
        assert!(refused(&queued.state, "hello@r1").contains("was not built"));
    }
}
