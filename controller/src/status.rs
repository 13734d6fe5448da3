//! Answers to "what is": state, observations and counters put together for people and programs.
//!
//! Must not know: who asks or how it is shown. It changes nothing.

mod configuration;
mod release;
mod rollout;

use std::time::{Duration, Instant, SystemTime};

use api::operator::{FleetMember, ServiceStatus, StageEndpoint, StageRelease, StageStatus, StatusReply};
use api::{EnvironmentName, Host, HostTarget, MemberName, ReleaseName, ReleaseNumber, ServiceName, Share, StageName};
use certs::fleet::Role;

use crate::certificates::told;
use crate::core::due::start_problem;
use crate::core::observe::instance_id;
use crate::core::state::{Entering, Leaving, Member, MemberProgress, Phase, Rollout, Stage, State};
use crate::engine::Engine;
use crate::fleet::Proxy;
use crate::measure::{Measure, Totals, WINDOW};
use crate::selector::Selector;

pub(crate) use configuration::configuration;
pub(crate) use release::{release, transfer};
pub(crate) use rollout::{back_of, counts, rollout_of, tests_of, watched_of};

/// A proxy that does not have the newest version for so long lags.
const SWITCHING: Duration = Duration::from_secs(1);

/// How many of a service's newest releases its status shows, besides those under way.
const RELEASES_SHOWN: usize = 5;

/// Milliseconds since the Unix epoch by this machine's clock.
pub(crate) fn clock_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Everything that a selector names and `sees` permits.
pub(crate) fn all(
    engine: &Engine,
    selector: &Selector,
    now: Instant,
    sees: impl Fn(Option<&ServiceName>, Option<&EnvironmentName>) -> bool,
) -> StatusReply {
    let services = engine.state.services.keys().filter(|name| selector.includes(name, None));
    let services = services.filter_map(|name| service(engine, name, selector, now, &sees));
    let mut reply = StatusReply {
        at_ms: clock_ms(),
        version: Some(engine.publisher.version().into()),
        services: services.collect(),
        ..StatusReply::default()
    };
    // The fleet serves everything, and so is the business of whoever may see everything.
    if sees(None, None) {
        reply.fleet = fleet(engine, now);
        reply.warnings = warnings(engine, &engine.fleet.proxies(), now);
    }
    reply
}

/// A service with the stages that may be seen; `None` for who may see none.
fn service(
    engine: &Engine,
    name: &ServiceName,
    selector: &Selector,
    now: Instant,
    sees: impl Fn(Option<&ServiceName>, Option<&EnvironmentName>) -> bool,
) -> Option<ServiceStatus> {
    let service = engine.state.service(name)?;
    let stages = service
        .spec
        .stages
        .keys()
        .filter(|environment| selector.includes(name, Some(environment)) && sees(Some(name), Some(environment)));
    let stages = order(&engine.state, name, stages.cloned().collect());
    if stages.is_empty() && !sees(Some(name), None) {
        return None;
    }
    let elsewhere = |place: &String| {
        let environment = place.split(' ').next().and_then(|word| word.parse().ok());
        environment.is_some_and(|environment| !sees(Some(name), Some(&environment)))
    };
    // What is under way is shown, however much came after it.
    let newest = service.releases.iter().rev().enumerate();
    let newest = newest.filter(|(place, (_, release))| *place < RELEASES_SHOWN || !release.progress.is_terminal());
    let newest = newest.filter_map(|(_, (number, _))| {
        let mut release = release(engine, &ReleaseName::new(name.clone(), *number))?;
        release.places.retain(|place| !elsewhere(place));
        Some(release)
    });
    Some(ServiceStatus {
        service: name.to_string(),
        releases: newest.collect(),
        stages: stages
            .into_iter()
            .map(|environment| stage(engine, &StageName::new(name.clone(), environment), now))
            .collect(),
    })
}

/// Stages in the order a release takes: upstream first.
fn order(state: &State, service: &ServiceName, mut rest: Vec<EnvironmentName>) -> Vec<EnvironmentName> {
    let Some(service) = state.service(service) else { return rest };
    let mut ordered: Vec<EnvironmentName> = Vec::new();
    while !rest.is_empty() {
        let from = |name: &EnvironmentName| {
            service.spec.stages.get(name).map(|stage| stage.from.as_slice()).unwrap_or_default()
        };
        // Upstream stages that are not shown do not hold back those that are.
        let next = rest.iter().position(|name| !from(name).iter().any(|upstream| rest.contains(upstream))).unwrap_or(0);
        ordered.push(rest.remove(next));
    }
    ordered
}

fn stage(engine: &Engine, name: &StageName, now: Instant) -> StageStatus {
    let zone = engine.state.environments.get(&name.environment).map(|environment| environment.zone.clone());
    let host = |zone: Host| HostTarget { service: name.service.clone(), release: None }.host(&zone).to_string();
    let mut status =
        StageStatus { stage: name.to_string(), hosts: zone.map(host).into_iter().collect(), ..StageStatus::default() };
    let Some(found) = engine.state.stage(name) else { return status };
    status.activity = activity(engine, name, found);
    let running: Vec<ReleaseNumber> = found.running().into_iter().rev().collect();
    let changed = changed(engine, name);
    let measured = |measure: &Measure| -> Vec<Measured> {
        running.iter().map(|number| Measured::of(measure, name, *number, changed, now)).collect()
    };
    let measured = engine.fleet.with_measure(measured);
    let all: u128 = measured.iter().map(|measured| u128::from(measured.split)).sum();
    let line =
        |(number, measured): (&ReleaseNumber, &Measured)| stage_release(engine, name, found, *number, measured, all);
    status.releases = running.iter().zip(&measured).map(line).collect();
    status.rate = status.releases.iter().map(|release| release.rate).sum();
    let rate = |number| engine.fleet.with_measure(|measure| measure.rate_since(name, number, changed, now));
    let now_ms = clock_ms();
    let look = rollout::Look { engine, name, stage: found, now_ms };
    (status.rollout, status.queued, status.watched) = (look.under_way(rate), look.queued(), look.watched());
    status.back = back_of(&engine.state, name);
    let overridden = engine.state.members.iter().filter_map(|(proxy, member)| {
        let found = member.overrides.get(name).filter(|found| found.until_ms > now_ms)?;
        Some(format!("{proxy} sends everything to {}", found.release))
    });
    status.overrides = overridden.collect();
    status
}

fn activity(engine: &Engine, name: &StageName, stage: &Stage) -> String {
    let Some(entering) = &stage.entering else { return String::new() };
    if entering.starting_until_ms.is_none() {
        let step = entering.rollout.as_ref().filter(|rollout| rollout.step().is_some()).map(Rollout::place);
        let step = step.map(|step| format!(", {step}")).unwrap_or_default();
        return format!("rollout of {} {}{step}", entering.release, reach(entering));
    }
    let problem = start_problem(&engine.state, &engine.seen, name, entering.release);
    format!("waits for {} to start: {}", entering.release, problem.unwrap_or_else(|| "all is healthy".into()))
}

/// Who is served by a release that enters: a share of all, or the few that it is for before it has one.
fn reach(entering: &Entering) -> String {
    let rollout = entering.rollout.as_ref().filter(|_| entering.share == Share::NONE);
    match rollout.map(|rollout| (rollout.phase, rollout)) {
        Some((Phase::BeforeFlip, rollout)) => rollout.place(),
        Some((Phase::Step(at), rollout)) if rollout.share_of(at) == Share::NONE => "for insiders only".to_owned(),
        _ => format!("at {}", entering.share),
    }
}

/// When what the proxies do with a stage was changed last, since the controller started.
fn changed(engine: &Engine, name: &StageName) -> Option<Instant> {
    engine.changed.get(name).map(|(_, since)| *since)
}

/// What the proxies counted for one release of a stage.
struct Measured {
    /// Requests of the last seconds, without those from before the last change: what the share is measured by.
    split: u64,
    recent: Totals,
    total: Totals,
    outstanding: u64,
}

impl Measured {
    fn of(
        measure: &Measure,
        stage: &StageName,
        release: ReleaseNumber,
        changed: Option<Instant>,
        now: Instant,
    ) -> Self {
        Self {
            split: measure.recent_since(stage, release, changed, now).requests,
            recent: measure.recent(stage, release, now),
            total: measure.total(stage, release),
            outstanding: measure.outstanding(stage, release, now),
        }
    }
}

fn stage_release(
    engine: &Engine,
    name: &StageName,
    stage: &Stage,
    number: ReleaseNumber,
    measured: &Measured,
    all: u128,
) -> StageRelease {
    let release = engine.state.release(&ReleaseName::new(name.service.clone(), number));
    let Measured { split, recent, total, outstanding } = measured;
    let asked = recent.requests > 0;
    let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
    StageRelease {
        release: number.number(),
        role: role(stage, number).to_owned(),
        version: release.map(|release| release.wanted.version.clone()).unwrap_or_default(),
        commit: release.map(|release| release.wanted.commit.clone()).unwrap_or_default(),
        weight_ppm: stage.share(number).ppm(),
        measured_ppm: (u128::from(*split) * u128::from(Share::ALL.ppm()))
            .checked_div(all)
            .and_then(|ppm| u32::try_from(ppm).ok()),
        requests: total.requests,
        failed: total.failed,
        rate: recent.requests as f64 / WINDOW.as_secs_f64(),
        error_share: asked.then(|| ratio(recent.failed, recent.requests)),
        p50_us: recent.latency.quantile_us(500_000),
        p99_us: recent.latency.quantile_us(990_000),
        endpoints: endpoints(engine, name, number),
        warm_until_ms: match stage.leaving.get(&number) {
            Some(Leaving::Warm { until_ms }) => *until_ms,
            _ => 0,
        },
        bad: stage.bad.contains(&number),
        outstanding: *outstanding,
        p95_us: recent.latency.quantile_us(950_000),
        not_reversible: release
            .and_then(|release| release.not_reversible.as_ref())
            .map(|mark| mark.reason.clone())
            .unwrap_or_default(),
    }
}

/// What a running release is in its stage, a word.
pub(crate) fn role(stage: &Stage, number: ReleaseNumber) -> &'static str {
    match (&stage.entering, stage.leaving.get(&number)) {
        (Some(entering), _) if entering.release == number && entering.starting_until_ms.is_some() => "starting",
        (Some(entering), _) if entering.release == number => "canary",
        (_, Some(Leaving::Warm { .. })) => "warm",
        (_, Some(Leaving::Draining { .. })) => "draining",
        _ => "stable",
    }
}

/// Where proxies reach a release of a stage, as far as it is known.
pub(crate) fn addresses(engine: &Engine, name: &StageName, number: ReleaseNumber) -> Vec<String> {
    let known = endpoints(engine, name, number).into_iter().map(|endpoint| endpoint.address);
    known.filter(|address| !address.is_empty()).collect()
}

fn endpoints(engine: &Engine, name: &StageName, number: ReleaseNumber) -> Vec<StageEndpoint> {
    let Some(release) = engine.state.release(&ReleaseName::new(name.service.clone(), number)) else {
        return Vec::new();
    };
    let (Some(environment), Some((component, _))) =
        (engine.state.environments.get(&name.environment), release.routed())
    else {
        return Vec::new();
    };
    let Some(group) = environment.group() else {
        let given = release.static_addresses(&name.environment).into_iter();
        return given
            .map(|address| StageEndpoint {
                address: address.to_string(),
                state: "given".into(),
                ..StageEndpoint::default()
            })
            .collect();
    };
    let id = instance_id(name, number, component);
    let on_agent = |agent: &MemberName| {
        let seen = engine.seen.agents.get(agent).map(|instances| instances.get(&id));
        let placed =
            engine.state.stage(name).and_then(|stage| stage.placed.get(&number)).and_then(|agents| agents.get(agent));
        let address = seen.flatten().and_then(|seen| seen.address).or(placed.copied());
        let state = match seen {
            None => "agent away",
            Some(None) => "not started",
            Some(Some(seen)) => seen.state,
        };
        StageEndpoint {
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            agent: agent.to_string(),
            state: state.to_owned(),
            problem: seen.flatten().map(|seen| seen.problem.clone()).unwrap_or_default(),
            restarts: seen.flatten().map_or(0, |seen| seen.restarts),
        }
    };
    engine.state.agents(group).map(on_agent).collect()
}

/// All members of the fleet.
pub(crate) fn fleet(engine: &Engine, now: Instant) -> Vec<FleetMember> {
    let proxies = engine.fleet.proxies();
    let member = |(name, member): (&MemberName, &Member)| {
        let mut shown = FleetMember {
            name: name.to_string(),
            role: member.role.to_string(),
            group: member.group.clone(),
            ..FleetMember::default()
        };
        match (&member.progress, member.role) {
            (MemberProgress::Invited { .. }, _) => "invited".clone_into(&mut shown.state),
            (MemberProgress::Revoked, _) => "revoked".clone_into(&mut shown.state),
            (MemberProgress::Joined { .. }, Role::Agent) => show_agent(&mut shown, engine, name),
            (MemberProgress::Joined { .. }, Role::Proxy) => show_proxy(&mut shown, engine, proxies.get(name), now),
        }
        shown
    };
    engine.state.members.iter().map(member).collect()
}

fn show_agent(shown: &mut FleetMember, engine: &Engine, name: &MemberName) {
    shown.connected = engine.agents.is_connected(name);
    shown.state = if shown.connected { "connected" } else { "away" }.to_owned();
    if let Some(heard) = engine.agents.heard(name) {
        (shown.last_heard_ms, shown.software) = (heard.at_ms, heard.software.clone());
    }
}

fn show_proxy(shown: &mut FleetMember, engine: &Engine, proxy: Option<&Proxy>, now: Instant) {
    let Some(proxy) = proxy else {
        "away".clone_into(&mut shown.state);
        return;
    };
    let has = proxy.active.map(|(version, _)| version);
    // A switch takes milliseconds: whoever looks in between need not be told of a laggard.
    let switching = now.duration_since(engine.publisher.since()) < SWITCHING;
    shown.state = match has {
        _ if !proxy.is_leased(now) => "away",
        Some(has) if switching || has >= engine.publisher.version() => "active",
        _ => "lagging",
    }
    .to_owned();
    shown.connected = proxy.is_connected();
    shown.version = has.map(Into::into);
    (shown.last_heard_ms, shown.software) = (proxy.heard_ms, proxy.software.clone());
    (shown.problem, shown.workers) = (proxy.problem.clone(), proxy.workers);
}

fn warnings(engine: &Engine, proxies: &std::collections::BTreeMap<MemberName, Proxy>, now: Instant) -> Vec<String> {
    let mut warnings = engine.warnings.clone();
    warnings.extend(told::warnings(engine, SystemTime::now()));
    let belongs = |name: &MemberName| {
        let member = engine.state.members.get(name);
        member.is_some_and(|member| matches!(member.progress, MemberProgress::Joined { .. }))
    };
    warnings.extend(engine.fleet.clocks.warnings(now, belongs));
    for (name, proxy) in proxies {
        if !proxy.problem.is_empty() {
            warnings.push(format!("proxy {name} {}", proxy.problem));
        } else if !proxy.is_leased(now) {
            warnings.push(format!("proxy {name} is away; it serves what it had last"));
        }
    }
    warnings
}
