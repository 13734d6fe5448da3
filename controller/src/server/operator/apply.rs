//! `apply`, and the lists of what was applied.

use api::operator::{
    ApplyReply, ApplyRequest, Environment, Environments, Mistake, Service, ServiceStage, Services, StageRollout,
};
use api::{HostTarget, Verb};
use tonic::Status;

use super::resolve::told;
use crate::certificates::take_lists;
use crate::core::spec::{
    AccessSpec, ClientCertificates, EnvironmentSpec, OnMachine, ReleasesSpec, RolloutSpec, ServiceSpec, Target,
};
use crate::core::{Command, Refusal, State};
use crate::engine::{Engine, NotDone, Priority, Submission};
use crate::files::{self, Attached, File};
use crate::server::Shared;
use crate::server::who::{Operator, status, stopping};

impl Shared {
    /// Reads all files, then applies all or none.
    pub(super) async fn apply(&self, who: &Operator, request: ApplyRequest) -> Result<ApplyReply, Status> {
        if request.files.iter().any(|file| !file.named_by.is_empty()) {
            // Reading policies is work, which nobody asks for who may not apply them.
            who.may(Verb::Apply, None, None)?;
        }
        let (reason, plan) = (request.reason.clone(), request.plan);
        let read = tokio::task::spawn_blocking(move || read_all(&request.files)).await.map_err(|_| stopping())?;
        let Read { environments, services, access, releases, mut mistakes } = read;
        let nothing = environments.is_empty() && services.is_empty() && access.is_none() && releases.is_none();
        if nothing && mistakes.is_empty() {
            return Err(Status::invalid_argument("no file was given: -f FILE"));
        }
        if access.is_some() {
            who.may(Verb::Apply, None, None)?;
        }
        if releases.is_some() {
            who.may(Verb::Admin, None, None)?;
        }
        for spec in &environments {
            who.may(Verb::Apply, None, Some(&spec.name))?;
        }
        for spec in &services {
            who.may(Verb::Apply, Some(&spec.name), None)?;
        }
        self.may_name(who, &environments, &services).await?;
        let lists = named_lists(&environments, &services);
        // Mistakes within files and between them are told together.
        let command = Command::Apply { environments, services, access, releases };
        let ask = |plan| Submission { plan, ..Submission::of(who.name.as_str(), reason.clone(), command.clone()) };
        let planned = self.engine.submit(ask(true), Priority::Normal).await;
        let plan = plan || !mistakes.is_empty() || planned.is_err();
        // What they name has to be there before they are.
        mistakes.extend(self.take_lists(lists, plan).await);
        let answer = match planned {
            Ok(_) if !plan && mistakes.is_empty() => self.engine.submit(ask(false), Priority::Normal).await,
            planned => planned,
        };
        match answer {
            Ok(accepted) if mistakes.is_empty() => Ok(ApplyReply { mistakes, changes: accepted.lines }),
            Ok(_) => Ok(ApplyReply { mistakes, changes: Vec::new() }),
            Err(NotDone::Refused(Refusal::Wrong(between))) => {
                mistakes.extend(between.into_iter().map(|message| Mistake { message, ..Mistake::default() }));
                Ok(ApplyReply { mistakes, changes: Vec::new() })
            }
            Err(other) => Err(status(other)),
        }
    }

    /// Only who may do everything may name further files, programs and servers of the controller's machine: they are read, run
    /// and asked by the controller's user.
    async fn may_name(
        &self,
        who: &Operator,
        environments: &[EnvironmentSpec],
        services: &[ServiceSpec],
    ) -> Result<(), Status> {
        let wanted: Vec<_> = environments.iter().map(|spec| (spec.name.clone(), spec.on_machine())).collect();
        let of_services: Vec<_> = services.iter().map(|spec| (spec.name.clone(), spec.on_machine())).collect();
        let look = move |engine: &Engine| {
            let state = &engine.state;
            let known = |name| state.environments.get(name).map(EnvironmentSpec::on_machine).unwrap_or_default();
            let of_known = |name| state.service(name).map(|service| service.spec.on_machine()).unwrap_or_default();
            let is_new = |named: &[OnMachine], known: &[OnMachine]| named.iter().any(|one| !known.contains(one));
            let news = wanted.iter().filter(|(name, named)| is_new(named, &known(name)));
            let of_news = of_services.iter().filter(|(name, named)| is_new(named, &of_known(name)));
            news.map(|(name, _)| name.to_string()).chain(of_news.map(|(name, _)| name.to_string())).next()
        };
        let Some(name) = self.engine.read(look).await.ok_or_else(stopping)? else { return Ok(()) };
        who.may(Verb::Admin, None, None).map_err(|_| {
            Status::permission_denied(format!(
                "token {} may not apply {name}: it names files, programs or servers of the controller's machine, which takes a \
                 token that may do everything",
                who.name
            ))
        })
    }

    /// Has the lists of revoked certificates taken over that files name; only looked at, with `plan`. Before what names
    /// them: without its lists nobody's certificate counts.
    async fn take_lists(&self, named: Vec<(String, ClientCertificates)>, plan: bool) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        for (place, clients) in named {
            let Some(path) = clients.crl_file.clone() else { continue };
            let taken = take_lists(&self.engine, path, vec![clients], plan).await;
            let mistake =
                |problem| Mistake { message: format!("{place}: `crl_file`: {problem}"), ..Mistake::default() };
            mistakes.extend(taken.err().map(mistake));
        }
        mistakes
    }

    pub(super) async fn list_environments(&self, who: Operator) -> Result<Environments, Status> {
        let list = move |engine: &Engine| {
            let seen = engine.state.environments.values().filter(|spec| who.sees(None, Some(&spec.name)));
            Environments { environments: seen.map(environment).collect() }
        };
        self.engine.read(list).await.ok_or_else(stopping)
    }

    pub(super) async fn list_services(&self, who: Operator) -> Result<Services, Status> {
        let sources = self.sources.clone();
        let list = move |engine: &Engine| {
            let seen = engine.state.services.values().filter(|service| who.sees(Some(&service.spec.name), None));
            let newest = |service: &crate::core::state::Service| {
                service.releases.last_key_value().map_or(0, |(number, _)| number.number())
            };
            let told = |entry: &crate::core::state::Service| {
                told(service(&engine.state, &entry.spec, newest(entry)), entry, &sources)
            };
            Services { services: seen.map(told).collect() }
        };
        self.engine.read(list).await.ok_or_else(stopping)
    }
}

/// What the files of a request say.
#[derive(Default)]
struct Read {
    environments: Vec<EnvironmentSpec>,
    services: Vec<ServiceSpec>,
    access: Option<AccessSpec>,
    releases: Option<Box<ReleasesSpec>>,
    mistakes: Vec<Mistake>,
}

fn read_all(given: &[api::operator::File]) -> Read {
    let mut read = Read::default();
    for file in given.iter().filter(|file| file.named_by.is_empty()) {
        let attached = |written: &str| {
            let found = given.iter().find(|other| other.named_by == file.name && other.written == written)?;
            Some(Attached { name: &found.name, text: &found.text })
        };
        match files::parse_with(&file.name, &file.text, &attached) {
            Ok(File::Environment(spec)) => read.environments.push(spec),
            Ok(File::Service(spec)) => read.services.push(spec),
            Ok(File::Access(spec)) => {
                if read.access.replace(spec).is_some() {
                    let message =
                        "who may pass is said by another of these files already: it is one file for the whole fleet";
                    read.mistakes.push(Mistake {
                        file: file.name.clone(),
                        message: message.into(),
                        ..Mistake::default()
                    });
                }
            }
            Ok(File::Releases(spec)) => {
                if read.releases.replace(spec).is_some() {
                    let message = "releases are described by another of these files already: it is one file for the whole controller";
                    let file = file.name.clone();
                    read.mistakes.push(Mistake { file, message: message.into(), ..Mistake::default() });
                }
            }
            Err(found) => read.mistakes.extend(found.into_iter().map(mistake)),
        }
    }
    read
}

/// Files of lists of revoked certificates, each with who names it.
fn named_lists(environments: &[EnvironmentSpec], services: &[ServiceSpec]) -> Vec<(String, ClientCertificates)> {
    let (mut named, mut add) = (Vec::new(), Vec::new());
    for spec in environments {
        add.push((spec.name.to_string(), spec.client_certificates.as_ref()));
    }
    for spec in services {
        for (environment, stage) in &spec.stages {
            add.push((format!("{}/{environment}", spec.name), stage.client_certificates.as_ref()));
        }
    }
    for (place, clients) in add {
        named.extend(clients.filter(|clients| clients.crl_file.is_some()).map(|clients| (place, clients.clone())));
    }
    named
}

fn mistake(mistake: files::Mistake) -> Mistake {
    let place = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Mistake { file: mistake.file, line: place(mistake.line), column: place(mistake.column), message: mistake.message }
}

fn environment(spec: &EnvironmentSpec) -> Environment {
    let (target, group) = match &spec.target {
        Target::Static => ("static", String::new()),
        Target::Agent { group } => ("agent", group.to_string()),
    };
    Environment {
        name: spec.name.to_string(),
        zone: spec.zone.to_string(),
        time_zone: spec.time_zone.clone(),
        target: target.to_owned(),
        group,
        keep_warm: spec.keep_warm.to_string(),
        https: spec.https.to_string(),
        certificates: spec.certificates.to_string(),
        client_certificates: spec.client_certificates.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn service(state: &State, spec: &ServiceSpec, newest_release: u32) -> Service {
    let stage = |(environment, stage): (&api::EnvironmentName, &crate::core::spec::StageSpec)| {
        let host = state.environments.get(environment).map(|environment| {
            HostTarget { service: spec.name.clone(), release: None }.host(&environment.zone).to_string()
        });
        ServiceStage {
            environment: environment.to_string(),
            from: stage.from.iter().map(ToString::to_string).collect(),
            hosts: host.into_iter().collect(),
            keep_warm_ms: state.keep_warm(&api::StageName::new(spec.name.clone(), environment.clone())).ms(),
            rollout: Some(rollout(&stage.rollout)),
        }
    };
    Service {
        name: spec.name.to_string(),
        repository: spec.source.as_ref().map(|source| source.repository.clone()).unwrap_or_default(),
        branch: spec.source.as_ref().map(|source| source.branch.clone()).unwrap_or_default(),
        stages: spec.stages.iter().map(stage).collect(),
        newest_release,
        ..Service::default()
    }
}

fn rollout(spec: &RolloutSpec) -> StageRollout {
    StageRollout {
        strategy: spec.strategy.to_string(),
        sticky: spec.sticky.to_string(),
        meanwhile: spec.meanwhile.to_string(),
        on_worse: spec.on_worse.to_string(),
        margin: spec.bounds.to_string(),
        failure_header: spec.failure_header.clone().unwrap_or_default(),
        objective: spec.objective.as_ref().map(ToString::to_string).unwrap_or_default(),
        checks: spec.checks.iter().map(ToString::to_string).collect(),
    }
}
