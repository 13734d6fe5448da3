//! Where stages are reached, and which repositories register their services.

use api::operator::{Repositories, Repository, ResolveStageRequest, ResolvedRelease, Service, StageResolved};
use api::{HostTarget, MemberName, ReleaseNumber, StageName, Verb};
use tonic::Status;

use crate::core::spec::{RepositorySpec, ServiceSpec, WebhookKind};
use crate::core::state::{self, State};
use crate::engine::Engine;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::sources::{RepositorySeen, Sources};
use crate::status;

impl Shared {
    /// Where a stage is reached, and by what.
    pub(super) async fn resolve_stage(
        &self,
        who: &Operator,
        request: ResolveStageRequest,
    ) -> Result<StageResolved, Status> {
        let name: StageName = parse(&request.stage)?;
        // Before anything is looked up: who may not see it is not told whether it is there.
        who.may(Verb::Read, Some(&name.service), Some(&name.environment))?;
        let asked = name.clone();
        let resolved = self.engine.read(move |engine| resolved(engine, &asked)).await.ok_or_else(stopping)?;
        resolved.ok_or_else(|| Status::not_found(format!("there is no stage {name}")))
    }

    /// Repositories that register their services, with what was found there last.
    pub(super) async fn list_repositories(&self, who: &Operator) -> Result<Repositories, Status> {
        who.may(Verb::Read, None, None)?;
        let sources = self.sources.clone();
        let list = move |engine: &Engine| {
            let all = engine.state.releases.repositories.iter();
            all.map(|(name, spec)| repository(engine, name, spec, sources.repository(name))).collect()
        };
        Ok(Repositories { repositories: self.engine.read(list).await.ok_or_else(stopping)? })
    }
}

/// Hosts of a stage, or of one release in it; none while its environment is unknown.
fn hosts(state: &State, stage: &StageName, release: Option<ReleaseNumber>) -> Vec<String> {
    let zone = state.environments.get(&stage.environment).map(|environment| &environment.zone);
    let host = zone.map(|zone| HostTarget { service: stage.service.clone(), release }.host(zone).to_string());
    host.into_iter().collect()
}

/// Where these hosts are asked. A controller knows the port that requests in clear are sent on to, and no other.
pub(super) fn urls(state: &State, stage: &StageName, release: Option<ReleaseNumber>) -> Vec<String> {
    let environment = state.environments.get(&stage.environment);
    let port = environment.and_then(|environment| environment.https.redirect_port).filter(|port| port.get() != 443);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    hosts(state, stage, release).into_iter().map(|host| format!("https://{host}{port}/")).collect()
}

fn resolved(engine: &Engine, name: &StageName) -> Option<StageResolved> {
    let known = &engine.state;
    let service = known.service(&name.service)?;
    let spec = service.spec.stages.get(&name.environment)?;
    let registered = service.registered.as_ref();
    let release = |number: ReleaseNumber, stage: &state::Stage| ResolvedRelease {
        release: number.number(),
        role: status::role(stage, number).to_owned(),
        share_ppm: stage.share(number).ppm(),
        host: hosts(known, name, Some(number)).pop().unwrap_or_default(),
        addresses: status::addresses(engine, name, number),
    };
    let running = service.stages.get(&name.environment).into_iter();
    let running = running.flat_map(|stage| stage.running().into_iter().rev().map(move |number| release(number, stage)));
    Some(StageResolved {
        stage: name.to_string(),
        public: spec.public,
        hosts: hosts(known, name, None),
        urls: urls(known, name, None),
        releases: running.collect(),
        registered_by: registered.map(|one| one.repository.to_string()).unwrap_or_default(),
        registered_commit: registered.map(|one| one.commit.clone()).unwrap_or_default(),
    })
}

fn repository(engine: &Engine, name: &MemberName, spec: &RepositorySpec, seen: RepositorySeen) -> Repository {
    let services =
        engine.state.services.iter().filter(|(_, service)| {
            service.registered.as_ref().is_some_and(|registered| &registered.repository == name)
        });
    let webhook = spec.webhook.as_ref().map(|webhook| match webhook.kind {
        WebhookKind::Github => "github",
        WebhookKind::Signed => "signed",
    });
    Repository {
        name: name.to_string(),
        url: spec.url.clone(),
        branch: spec.branch.clone(),
        services: services.map(|(service, _)| service.to_string()).collect(),
        webhook: webhook.unwrap_or_default().to_owned(),
        commit: seen.commit.unwrap_or_default(),
        looked_at_ms: seen.looked_ms.unwrap_or_default(),
        problems: seen.problems,
    }
}

/// A service with where its commits come from, what asks for builds, and what is wrong with that.
pub(super) fn told(shown: Service, known: &state::Service, sources: &Sources) -> Service {
    let registered = known.registered.as_ref();
    let problems = sources.service_problems(&known.spec.name, &shown.repository);
    Service {
        registered_by: registered.map(|one| one.repository.to_string()).unwrap_or_default(),
        registered_commit: registered.map(|one| one.commit.clone()).unwrap_or_default(),
        problem: problems.join("; "),
        trigger: trigger(&known.spec),
        ..shown
    }
}

/// What asks for builds by itself; empty: nothing does.
fn trigger(spec: &ServiceSpec) -> String {
    let (Some(source), trigger) = (&spec.source, &spec.trigger) else { return String::new() };
    let commits = trigger.commits.then(|| format!("each commit of {}", source.branch));
    let tags = trigger.tags.then(|| format!("tags {}", source.tags.as_deref().unwrap_or("[v]{semver}")));
    let schedule = trigger.schedule.as_ref().map(|schedule| format!("{} ({})", schedule.cron, schedule.time_zone));
    commits.into_iter().chain(tags).chain(schedule).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::core::evolve_test::World;
    use crate::core::spec::{ScheduleSpec, TriggerSpec};

    #[test]
    fn stages_are_reached_by_https_on_the_port_that_is_known() {
        let mut world = World::new(false);
        let stage: StageName = "hello/dev".parse().expect("a name");
        assert_eq!(urls(&world.state, &stage, None), ["https://hello.dev.example.com/"]);
        for (port, url) in
            [(8443, "https://r2--hello.dev.example.com:8443/"), (443, "https://r2--hello.dev.example.com/")]
        {
            let dev = world.state.environments.get_mut(&stage.environment).expect("there");
            dev.https.redirect_port = NonZeroU16::new(port);
            assert_eq!(urls(&world.state, &stage, ReleaseNumber::new(2)), [url]);
        }
        let unknown: StageName = "hello/nowhere".parse().expect("a name");
        assert!(urls(&world.state, &unknown, None).is_empty());
    }

    #[test]
    fn services_say_what_asks_for_builds() {
        let world = World::new(false);
        let mut spec = world.state.services.values().next().expect("one").spec.clone();
        assert_eq!(trigger(&spec), "");
        let schedule = ScheduleSpec { cron: "0 3 * * *".into(), time_zone: "Australia/Sydney".into() };
        spec.trigger = TriggerSpec { commits: true, tags: true, schedule: Some(schedule), ..TriggerSpec::default() };
        assert_eq!(trigger(&spec), "each commit of main, tags [v]{semver}, 0 3 * * * (Australia/Sydney)");
        spec.source = None;
        assert_eq!(trigger(&spec), "");
    }
}
