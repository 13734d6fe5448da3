//! `release`: one room for each of its verbs; here those that only look.

mod add;
mod build;
mod diff;
mod happened;
mod logs;
mod registries;
mod verify;

use api::operator::{ListReleasesRequest, Release, Releases, Setting};
use api::{ReleaseName, ServiceName, StageName, Verb};
use tonic::Status;

use super::resolve::urls;
use crate::core::event::Event;
use crate::core::state::ReleaseProgress;
use crate::engine::{Accepted, Engine};
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::status;

pub(super) use logs::logs;

/// Releases that are listed when nobody says how many.
const LISTED: usize = 50;

impl Shared {
    /// The newest releases of a service, newest first.
    pub(super) async fn list_releases(&self, who: &Operator, request: ListReleasesRequest) -> Result<Releases, Status> {
        let service: ServiceName = parse(&request.service)?;
        who.may(Verb::Read, Some(&service), None)?;
        let most = if request.limit == 0 { LISTED } else { usize::try_from(request.limit).unwrap_or(usize::MAX) };
        let list = move |engine: &Engine| {
            let entry = engine
                .state
                .service(&service)
                .ok_or_else(|| Status::not_found(format!("there is no service {service}")))?;
            let shown = |progress: &ReleaseProgress| {
                request.all
                    || !matches!(progress, ReleaseProgress::Cancelled { .. } | ReleaseProgress::Overtaken { .. })
            };
            let numbers = entry.releases.iter().rev().filter(|(_, release)| shown(&release.progress));
            let names = numbers.take(most).map(|(number, _)| ReleaseName::new(service.clone(), *number));
            Ok(Releases { releases: names.filter_map(|name| status::release(engine, &name)).collect() })
        };
        self.engine.read(list).await.ok_or_else(stopping)?
    }

    /// A release with all that is known of it.
    pub(super) async fn show_release(&self, who: &Operator, name: &str) -> Result<Release, Status> {
        let name: ReleaseName = parse(name)?;
        who.may(Verb::Read, Some(&name.service), None)?;
        let (asked, asker) = (name.clone(), who.clone());
        let show = move |engine: &Engine| {
            let mut shown = status::release(engine, &asked)?;
            let release = engine.state.release(&asked)?;
            shown.configuration =
                status::configuration(release).into_iter().map(|(key, value)| Setting { key, value }).collect();
            let service = engine.state.service(&asked.service)?;
            let stages = service.stages.iter().filter(|(environment, stage)| {
                stage.running().contains(&asked.number) && asker.sees(Some(&asked.service), Some(environment))
            });
            shown.urls = stages
                .flat_map(|(environment, _)| {
                    let stage = StageName::new(asked.service.clone(), environment.clone());
                    urls(&engine.state, &stage, Some(asked.number))
                })
                .collect();
            Some(shown)
        };
        let unknown = Status::not_found(format!("there is no release {name}"));
        let mut shown = self.engine.read(show).await.ok_or_else(stopping)?.ok_or(unknown)?;
        shown.happened = self.happened_to(who, &name).await?;
        Ok(shown)
    }

    /// The release that a command made.
    async fn made(&self, accepted: Accepted) -> Result<Release, Status> {
        let name = accepted.events.iter().find_map(|event| match event {
            Event::ReleaseRequested { release, .. } | Event::ReleaseAdded { release, .. } => Some(release.clone()),
            _ => None,
        });
        let name = name.ok_or_else(|| Status::already_exists(accepted.lines.join("; ")))?;
        self.one(name).await
    }

    /// A release that is there.
    async fn one(&self, name: ReleaseName) -> Result<Release, Status> {
        let release = self.engine.read(move |engine| status::release(engine, &name)).await;
        release.ok_or_else(stopping)?.ok_or_else(|| Status::internal("the release is not there"))
    }
}
