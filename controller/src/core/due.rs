//! What time and observations ask for: the commands that the controller gives itself, and the builds to run.
//!
//! Asking again gives the same answer until it was acted upon, so a crash at any point is answered by asking again.

use api::{MemberName, ReleaseName, ReleaseNumber, StageName};

use super::command::Command;
use super::desired;
use super::observe::{InstanceSeen, Observations, RolloutSeen};
use super::state::{Entering, Leaving, Stage, State};
use super::{queue, rollout};

/// Something to do now.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "few at a time, and each is taken apart at once")]
pub enum Due {
    /// A command, decided and recorded like anybody's.
    Command(Command),
    /// Run the build of a release, which is on record as begun.
    Build(ReleaseName),
    /// End the build of a release, which somebody has asked for.
    Cancel(ReleaseName),
}

/// Everything that is due at `now_ms`.
pub fn due(state: &State, seen: &Observations, now_ms: u64) -> Vec<Due> {
    let mut all = queue::next(state, seen, now_ms);
    all.extend(keys(state, now_ms).map(Due::Command));
    for name in state.stage_names() {
        let Some(stage) = state.stage(&name) else { continue };
        all.extend(placements(state, seen, &name, stage).into_iter().map(Due::Command));
        if let Some(entering) = &stage.entering {
            all.extend(starting(state, seen, &name, entering, now_ms).map(Due::Command));
        }
        all.extend(rolling(state, seen, &name, stage, now_ms).map(Due::Command));
        let leaving = stage.leaving.iter().filter_map(|(release, why)| leave(seen, &name, *release, *why, now_ms));
        all.extend(leaving.map(Due::Command));
        let end = |release| Due::Command(Command::EndWarmth { stage: name.clone(), release });
        all.extend(stage.too_many_warm().into_iter().map(end));
    }
    all
}

/// Applications with keys whose time was over a day ago.
fn keys(state: &State, now_ms: u64) -> impl Iterator<Item = Command> {
    let over = state.applications.iter().filter(move |(_, one)| one.keys.iter().any(|key| key.is_long_over(now_ms)));
    over.map(|(name, _)| Command::EndKeys { name: name.clone() })
}

/// Routed instances whose address is not on record yet.
fn placements(state: &State, seen: &Observations, name: &StageName, stage: &Stage) -> Vec<Command> {
    let Some(group) = state.environments.get(&name.environment).and_then(|environment| environment.group()) else {
        return Vec::new();
    };
    let mut commands = Vec::new();
    for release in stage.running() {
        let routed = desired::of_release(state, name, release).into_iter().find(|instance| instance.has_port);
        let Some(routed) = routed else { continue };
        for agent in state.agents(group) {
            let Some(instance) = seen.agents.get(agent).and_then(|instances| instances.get(&routed.id)) else {
                continue;
            };
            let known = stage.placed.get(&release).and_then(|agents| agents.get(agent));
            // Only once healthy: an address on record is one that proxies send requests to.
            if let Some(address) = instance.address.filter(|address| instance.healthy && known != Some(address)) {
                commands.push(Command::Place { stage: name.clone(), release, agent: agent.clone(), address });
            }
        }
    }
    commands
}

/// What becomes of a release that is being started.
fn starting(state: &State, seen: &Observations, name: &StageName, entering: &Entering, now_ms: u64) -> Option<Command> {
    let until_ms = entering.starting_until_ms?;
    let (stage, release) = (name.clone(), entering.release);
    match start_problem(state, seen, name, release) {
        None => Some(Command::Enter { stage, release }),
        Some(problem) if until_ms <= now_ms => Some(Command::FailPromotion { stage, release, problem }),
        Some(_) => None,
    }
}

/// What a rollout asks for by itself, and the release that waits for its end. One thing at a time.
fn rolling(state: &State, seen: &Observations, name: &StageName, stage: &Stage, now_ms: u64) -> Option<Command> {
    if let Some(queued) = stage.queued.as_ref().filter(|_| stage.busy().is_none()) {
        return Some(Command::EnterQueued { stage: name.clone(), release: queued.release });
    }
    let (number, step) = rollout::seen_as(stage)?;
    let seen = match seen.rollouts.get(name) {
        Some(seen) if seen.rollout == number => seen.clone(),
        _ => RolloutSeen::nothing(number, step),
    };
    rollout::next(state, name, &seen, now_ms)?;
    Some(Command::MoveRollout { stage: name.clone(), seen: Box::new(seen) })
}

/// What keeps a starting release from serving: a sentence; `None` when nothing does.
///
/// It serves once every instance on every connected agent of the group is healthy and the routed ones are placed.
pub fn start_problem(state: &State, seen: &Observations, name: &StageName, release: ReleaseNumber) -> Option<String> {
    let group = state.environments.get(&name.environment).and_then(|environment| environment.group())?;
    let agents: Vec<&MemberName> = state.agents(group).filter(|agent| seen.agents.contains_key(*agent)).collect();
    if agents.is_empty() {
        return Some(format!("no agent of group {group} is connected"));
    }
    let wanted = desired::of_release(state, name, release);
    if !wanted.iter().any(|instance| instance.has_port) {
        return Some(format!("{release} has nothing that an agent could run and proxies could reach"));
    }
    let placed = state.stage(name).and_then(|stage| stage.placed.get(&release));
    let (mut healthy, mut problem) = (0, None);
    for agent in &agents {
        for instance in &wanted {
            let status = seen.agents.get(*agent).and_then(|instances| instances.get(&instance.id));
            let recorded = !instance.has_port || placed.is_some_and(|placed| placed.contains_key(*agent));
            match status {
                Some(InstanceSeen { healthy: true, .. }) if recorded => healthy += 1,
                Some(status) if !status.problem.is_empty() => {
                    problem = Some(format!("{} on {agent}: {}", instance.component, status.problem))
                }
                _ => {}
            }
        }
    }
    let all = agents.len() * wanted.len();
    if healthy == all {
        return None;
    }
    let counted = format!("{healthy} of {all} instances of {release} are healthy");
    Some(problem.map_or(counted.clone(), |problem| format!("{counted}; {problem}")))
}

/// What becomes of a release that has no weight any more.
fn leave(seen: &Observations, name: &StageName, release: ReleaseNumber, why: Leaving, now_ms: u64) -> Option<Command> {
    let stage = name.clone();
    match why {
        Leaving::Warm { until_ms } => (until_ms <= now_ms).then_some(Command::EndWarmth { stage, release }),
        Leaving::Draining { until_ms } => {
            let drained = seen.drained.contains(&(stage.clone(), release));
            (drained || until_ms <= now_ms).then_some(Command::Retire { stage, release })
        }
    }
}
