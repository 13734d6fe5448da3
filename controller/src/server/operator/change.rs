//! `promote`, `rollout`, `rollback`, `unhold`: decided at once, then followed until the whole fleet has it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::operator::change_request::Verb as Wanted;
use api::operator::change_update::Kind;
use api::operator::move_rollout::Move;
use api::operator::{ChangeRequest, ChangeUpdate, Decided, Lagging, MoveRollout, Outcome, Switched};
use api::{EnvironmentName, ReleaseName, ReleaseNumber, Share, StageName, Verb, Version};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, marks};
use crate::core::event::Event;
use crate::core::state::{Leaving, Stage};
use crate::core::{Command, due};
use crate::engine::{self, Accepted, Engine, Priority, Submission};
use crate::fleet::{LEASE, Standing};
use crate::server::Shared;
use crate::server::who::{Operator, parse, status};

/// How often somebody who waits for a start hears what it waits for.
const LOOK: Duration = Duration::from_millis(200);

type Updates = mpsc::Sender<Result<ChangeUpdate, Status>>;

/// Carries out a change; the answers end when the fleet has it, or at once without waiting.
pub(super) async fn change(
    shared: Arc<Shared>,
    who: &Operator,
    arrived: Instant,
    request: ChangeRequest,
) -> Result<Answers<ChangeUpdate>, Status> {
    let wanted = request.verb.ok_or_else(|| Status::invalid_argument("no verb was given"))?;
    let promoted = match &wanted {
        Wanted::Promote(promote) => Some(parse::<ReleaseName>(&promote.release)?.number),
        _ => None,
    };
    let (verb, stage, command) = read(wanted)?;
    who.may(verb, Some(&stage.service), Some(&stage.environment))?;
    let past = marks::past(request.past, &command)?;
    let submission = Submission {
        past,
        request: request.request_id,
        plan: request.plan,
        arrived,
        ..Submission::of(who.name.as_str(), request.reason, command)
    };
    let accepted = shared.engine.submit(submission, Priority::Traffic).await.map_err(status)?;
    let (sender, receiver) = mpsc::channel(64);
    let decided = Decided { event: accepted.event, lines: accepted.lines.clone() };
    let _ = sender.try_send(Ok(update(Kind::Decided(decided)))); // An empty queue takes one message.
    if !request.plan {
        let follow = Follow { shared, stage, promoted, accepted, updates: sender };
        tokio::spawn(follow.run(request.no_wait));
    }
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

fn read(wanted: Wanted) -> Result<(Verb, StageName, Command), Status> {
    let share = |ppm: u32| {
        Share::from_ppm(ppm).ok_or_else(|| {
            Status::invalid_argument(format!("a share is at most 1,000,000 parts per million, not {ppm}"))
        })
    };
    let number = |number: u32| {
        ReleaseNumber::new(number).ok_or_else(|| Status::invalid_argument("a release number begins at 1"))
    };
    Ok(match wanted {
        Wanted::Promote(promote) => {
            let (release, environment): (ReleaseName, EnvironmentName) =
                (parse(&promote.release)?, parse(&promote.environment)?);
            let stage = StageName::new(release.service.clone(), environment.clone());
            let share = promote.share_ppm.map(share).transpose()?;
            (Verb::Promote, stage, Command::Promote { release, environment, share, bypass: promote.bypass })
        }
        Wanted::Weight(weight) => {
            let stage: StageName = parse(&weight.stage)?;
            (Verb::Promote, stage.clone(), Command::Weigh { stage, share: share(weight.share_ppm)? })
        }
        Wanted::Rollback(rollback) => {
            let stage: StageName = parse(&rollback.stage)?;
            (Verb::Rollback, stage.clone(), Command::Rollback { stage, to: rollback.to.map(number).transpose()? })
        }
        Wanted::Unhold(unhold) => {
            let stage: StageName = parse(&unhold.stage)?;
            (Verb::Rollback, stage.clone(), Command::Unhold { stage, release: number(unhold.release)? })
        }
        Wanted::MoveRollout(wanted) => moved(&wanted)?,
    })
}

/// Whoever may let a release in may move its rollout; taking it out is a rollback.
fn moved(wanted: &MoveRollout) -> Result<(Verb, StageName, Command), Status> {
    let stage: StageName = parse(&wanted.stage)?;
    let bad = wanted.bad;
    let unknown = || Status::invalid_argument("a rollout is moved by one of pause, resume, skip and abort");
    if bad && wanted.r#move() != Move::Abort {
        return Err(Status::invalid_argument("only abort marks a release bad"));
    }
    let (verb, command) = match wanted.r#move() {
        Move::Unspecified => return Err(unknown()),
        Move::Pause => (Verb::Promote, Command::PauseRollout { stage: stage.clone() }),
        Move::Resume => (Verb::Promote, Command::ResumeRollout { stage: stage.clone() }),
        Move::Skip => (Verb::Promote, Command::SkipStep { stage: stage.clone() }),
        Move::Abort => (Verb::Rollback, Command::AbortRollout { stage: stage.clone(), bad }),
    };
    Ok((verb, stage, command))
}

fn update(kind: Kind) -> ChangeUpdate {
    ChangeUpdate { kind: Some(kind) }
}

/// A change on its way to the fleet.
struct Follow {
    shared: Arc<Shared>,
    stage: StageName,
    /// What was to be let in; none: nothing.
    promoted: Option<ReleaseNumber>,
    accepted: Accepted,
    updates: Updates,
}

/// How a start stands.
enum Start {
    Waits(String),
    /// It serves from this version on, decided then.
    Done(Version, Instant),
    Failed(String),
}

impl Follow {
    async fn run(self, no_wait: bool) {
        let mut outcome = self.outcome();
        if no_wait {
            return self.say(Kind::Outcome(self.as_it_is(outcome).await)).await;
        }
        let mut version = self.accepted.version;
        let mut since = self.accepted.arrived;
        if let Some(release) = self.starting() {
            match self.wait_for_start(release).await {
                Ok(serving) => (version, since) = serving,
                Err(failed) => {
                    outcome.failed = failed;
                    return self.say(Kind::Outcome(outcome)).await;
                }
            }
        }
        if self.accepted.published || self.starting().is_some() {
            (outcome.switched, outcome.lagging) = self.wait_for_fleet(version, Some(since)).await;
        } else if self.accepted.events.is_empty() {
            // It was so already, as far as the record goes; who asked wants to know whether it is so everywhere.
            (_, outcome.lagging) = self.wait_for_fleet(version, None).await;
        }
        self.say(Kind::Outcome(self.as_it_is(outcome).await)).await;
    }

    /// Whoever asked may have gone; the change goes on.
    async fn say(&self, kind: Kind) {
        let _ = self.updates.send(Ok(update(kind))).await;
    }

    /// The release that has to start first.
    fn starting(&self) -> Option<ReleaseNumber> {
        self.accepted.events.iter().find_map(|event| match event {
            Event::Promoted { release, starting_until_ms: Some(_), .. } => Some(*release),
            _ => None,
        })
    }

    async fn wait_for_start(&self, release: ReleaseNumber) -> Result<(Version, Instant), String> {
        let mut said = String::new();
        loop {
            let (stage, after) = (self.stage.clone(), self.accepted.event);
            match self.shared.engine.read(move |engine| start_of(engine, &stage, release, after)).await {
                None => return Err("the controller is stopping; the release goes on starting when it is back".into()),
                Some(Start::Failed(problem)) => return Err(problem),
                Some(Start::Done(version, since)) => return Ok((version, since)),
                Some(Start::Waits(what)) if what != said => {
                    said = what;
                    self.say(Kind::Waiting(said.clone())).await;
                }
                Some(Start::Waits(_)) => {}
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until every proxy that holds a lease has the version; with `since`, tells each as it comes.
    async fn wait_for_fleet(&self, version: Version, since: Option<Instant>) -> (Vec<Switched>, Vec<Lagging>) {
        let mut moved = self.shared.fleet.watch();
        let deadline = tokio::time::Instant::now() + LEASE;
        let mut switched: Vec<Switched> = Vec::new();
        loop {
            moved.mark_unchanged();
            let standings = self.shared.fleet.standings(version);
            for standing in &standings {
                let Some((at, since)) = standing.active_at.zip(since) else { continue };
                if switched.iter().all(|known| known.proxy != standing.name.as_str()) {
                    let us = u64::try_from(at.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX);
                    let news = Switched { proxy: standing.name.to_string(), us };
                    self.say(Kind::Switched(news.clone())).await;
                    switched.push(news);
                }
            }
            let behind: Vec<_> = standings.into_iter().filter(|standing| standing.active_at.is_none()).collect();
            let awaited = behind.iter().any(|standing| standing.leased);
            if !awaited || tokio::time::timeout_at(deadline, moved.changed()).await.is_err() {
                return (switched, behind.into_iter().map(lagging).collect());
            }
        }
    }

    /// What the change was, for people.
    fn outcome(&self) -> Outcome {
        let mut outcome = Outcome::default();
        for event in &self.accepted.events {
            match event {
                Event::RolledBack { from, to, bad, .. } => {
                    (outcome.from_release, outcome.to_release) = (from.number(), to.number());
                    outcome.undo = self.undo_of_rollback(*from, *bad);
                }
                Event::Promoted { release, .. }
                | Event::ShareSet { release, .. }
                | Event::StepTaken { release, .. }
                | Event::Flipped { release, .. }
                | Event::Completed { release, .. } => {
                    outcome.to_release = release.number();
                    outcome.undo = format!("pointsman rollback {}", self.stage);
                }
                Event::RolloutPaused { .. } => outcome.undo = format!("pointsman rollout resume {}", self.stage),
                Event::Unheld { .. } => outcome.undo.clear(),
                _ => {}
            }
        }
        outcome
    }

    /// The command that lets a release in again after everything went back from it.
    fn undo_of_rollback(&self, from: ReleaseNumber, bad: bool) -> String {
        let StageName { service, environment } = &self.stage;
        let promote = format!("pointsman promote {service}@{from} --to {environment}");
        if bad { format!("pointsman unhold {} {from} && {promote}", self.stage) } else { promote }
    }

    /// Whether it is a rollback that has to start its release first.
    fn is_fetch_back(&self) -> bool {
        self.accepted.events.iter().any(|event| matches!(event, Event::Promoted { rollback: true, .. }))
    }

    /// Whether the release to be let in waits for another's rollout, and for whose.
    fn waits(&self, stage: &Stage) -> String {
        let Some(promoted) = self.promoted else { return String::new() };
        let has_queued = |event: &Event| matches!(event, Event::Queued { release, .. } if *release == promoted);
        let waits = stage.queued.as_ref().is_some_and(|queued| queued.release == promoted);
        match stage.busy().filter(|busy| *busy != promoted) {
            Some(busy) if waits => format!("the rollout of {busy} to end"),
            _ if waits || self.accepted.events.iter().any(has_queued) => "its turn".to_owned(),
            _ => String::new(),
        }
    }

    /// With what is so in the stage now: what a promotion waits for; and when it has another stable release, which one left,
    /// until when it is kept warm, and what it still answers.
    async fn as_it_is(&self, mut outcome: Outcome) -> Outcome {
        let name = self.stage.clone();
        let (from, to) = (ReleaseNumber::new(outcome.from_release), ReleaseNumber::new(outcome.to_release));
        let find = move |engine: &Engine| {
            let found = engine.state.stage(&name)?;
            let left = match from {
                Some(from) => Some(from),
                None if found.stable == to => found.past.iter().rev().copied().find(|past| Some(*past) != to),
                // A canary beside the stable release: nobody has left.
                None => None,
            };
            let until_ms = match left.and_then(|left| found.leaving.get(&left)) {
                Some(Leaving::Warm { until_ms }) => *until_ms,
                _ => 0,
            };
            let answers = |left| engine.fleet.with_measure(|measure| measure.outstanding(&name, left, Instant::now()));
            let in_flight = left.filter(|left| found.share(*left) == Share::NONE).map_or(0, answers);
            Some((found.clone(), left, until_ms, in_flight))
        };
        let Some((stage, left, until_ms, in_flight)) = self.shared.engine.read(find).await.flatten() else {
            outcome.undo.clear();
            return outcome;
        };
        outcome.waits = self.waits(&stage);
        if left.is_none() && stage.stable == to {
            // The first release of a stage: there is nothing to go back to.
            outcome.undo.clear();
            return outcome;
        }
        (outcome.from_release, outcome.warm_until_ms) = (left.map_or(0, ReleaseNumber::number), until_ms);
        outcome.in_flight = in_flight;
        match (left, stage.stable) {
            _ if !self.is_fetch_back() => {}
            // What it was fetched back instead of is marked bad.
            (Some(left), _) => outcome.undo = self.undo_of_rollback(left, true),
            (None, Some(stable)) => outcome.undo = format!("pointsman rollback {} --to {stable}", self.stage),
            (None, None) => {}
        }
        outcome
    }
}

fn start_of(engine: &Engine, stage: &StageName, release: ReleaseNumber, after: u64) -> Start {
    let found = engine.state.stage(stage);
    let entering = found.and_then(|stage| stage.entering.as_ref()).filter(|entering| entering.release == release);
    if entering.is_some_and(|entering| entering.starting_until_ms.is_some()) {
        let problem = due::start_problem(&engine.state, &engine.seen, stage, release);
        return Start::Waits(problem.unwrap_or_else(|| format!("all instances of {release} are healthy")));
    }
    if entering.is_some() || found.is_some_and(|stage| stage.stable == Some(release)) {
        let (version, since) =
            engine.changed.get(stage).copied().unwrap_or_else(|| (engine.publisher.version(), Instant::now()));
        return Start::Done(version, since);
    }
    // It has ended since: what came first tells how.
    let serves_since = |engine: &Engine| Start::Done(engine.publisher.version(), Instant::now());
    let later = engine.store.read(after + 1, 1_000).unwrap_or_default();
    let ended = later.iter().filter(|record| record.about == stage.to_string()).find_map(|record| {
        match engine::event_of(record).ok().flatten()? {
            Event::Entered { release: of, .. } | Event::Completed { release: of, .. } if of == release => {
                Some(serves_since(engine))
            }
            Event::PromotionFailed { release: of, problem, .. } if of == release => Some(Start::Failed(problem)),
            Event::RolledBack { from, .. } if from == release => Some(Start::Failed("it was rolled back".to_owned())),
            Event::RolledBack { to, .. } if to == release => Some(serves_since(engine)),
            Event::Replaced { release: of, by, .. } if of == release => {
                Some(Start::Failed(format!("it left for {by}")))
            }
            _ => None,
        }
    });
    ended.unwrap_or_else(|| Start::Failed(format!("{release} did not get into {stage}")))
}

fn lagging(standing: Standing) -> Lagging {
    let why = match (standing.leased, standing.problem.is_empty()) {
        (_, false) => standing.problem,
        (true, true) => "has not answered yet".to_owned(),
        (false, true) => "is away".to_owned(),
    };
    Lagging { proxy: standing.name.to_string(), last: standing.last.map(Into::into), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(word: i32, bad: bool) -> Wanted {
        Wanted::MoveRollout(MoveRollout { stage: "hello/production".into(), r#move: word, bad })
    }

    #[test]
    fn rollout_moves_take_what_promote_takes_and_abort_what_rollback_takes() {
        for (word, verb) in [
            (Move::Pause, Verb::Promote),
            (Move::Resume, Verb::Promote),
            (Move::Skip, Verb::Promote),
            (Move::Abort, Verb::Rollback),
        ] {
            let (found, stage, command) = read(wanted(word.into(), false)).expect("a move");
            assert_eq!((found, stage.to_string().as_str()), (verb, "hello/production"), "{word:?}");
            let is_its = match word {
                Move::Pause => matches!(command, Command::PauseRollout { .. }),
                Move::Resume => matches!(command, Command::ResumeRollout { .. }),
                Move::Skip => matches!(command, Command::SkipStep { .. }),
                Move::Abort => matches!(command, Command::AbortRollout { bad: false, .. }),
                Move::Unspecified => false,
            };
            assert!(is_its, "{word:?}: {command:?}");
        }
        let (_, _, marked) = read(wanted(Move::Abort.into(), true)).expect("a move");
        assert!(matches!(marked, Command::AbortRollout { bad: true, .. }), "{marked:?}");
    }

    #[test]
    fn hostile_h83_a_move_that_nobody_knows_is_refused() {
        for (word, bad) in [(0, false), (99, false), (-1, false), (Move::Skip.into(), true)] {
            let refused = read(wanted(word, bad)).expect_err("no move");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{word}");
        }
    }
}
