//! `status` and `history`, once or followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::operator::{HistoryEntry, HistoryRequest, StatusReply, StatusRequest};
use api::{EnvironmentName, ReleaseName, ServiceName, StageName, Verb};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::engine::{self, Engine, Handle};
use crate::selector::Selector;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::status;
use crate::store::Record;

/// Four times a second is as much as an eye can follow.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// Records read at once while history is told.
pub(super) const PAGE: usize = 500;

/// The state of things; with `watch`, again whenever it differs.
pub(super) async fn status(
    shared: Arc<Shared>,
    who: Operator,
    request: &StatusRequest,
) -> Result<Answers<StatusReply>, Status> {
    let selector = parse::<Selector>(&request.selector)?;
    let (wanted, asked, asker) = (selector.clone(), request.selector.clone(), who.clone());
    let look = move |engine: &Engine| {
        let sees = |service: &ServiceName, environment: &EnvironmentName| asker.sees(Some(service), Some(environment));
        (wanted.exists(&engine.state), wanted.has_one(&engine.state, sees))
    };
    let (known, seen) = shared.engine.read(look).await.ok_or_else(stopping)?;
    if !seen && let Some(service) = selector.service() {
        who.may(Verb::Read, Some(service), selector.environment())?;
    }
    if !known {
        return Err(Status::not_found(format!("there is no {asked}")));
    }
    let (sender, receiver) = mpsc::channel(1);
    let watch = request.watch;
    tokio::spawn(async move {
        let mut last = StatusReply::default();
        loop {
            let (selector, who) = (selector.clone(), who.clone());
            // Repositories are the business of whoever may see everything, as the fleet is.
            let of_sources = if who.sees(None, None) { shared.sources.warnings() } else { Vec::new() };
            let look = move |engine: &Engine| {
                let valid = engine.state.tokens.get(&who.name).is_some_and(|token| !token.revoked);
                let sees = |service: Option<&ServiceName>, environment: Option<&EnvironmentName>| {
                    who.sees(service, environment)
                };
                valid.then(|| status::all(engine, &selector, Instant::now(), sees))
            };
            let Some(found) = shared.engine.read(look).await else { return };
            let Some(mut reply) = found else {
                let _ = sender.send(Err(revoked())).await; // The watcher may have gone.
                return;
            };
            reply.warnings.extend(of_sources);
            let news = StatusReply { at_ms: last.at_ms, ..reply.clone() } != last;
            if news && sender.send(Ok(reply.clone())).await.is_err() || !watch {
                return;
            }
            last = reply;
            tokio::select! {
                () = tokio::time::sleep(AT_MOST_EVERY) => {}
                () = sender.closed() => return,
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// What happened; with `follow`, also what happens from now on.
pub(super) async fn history(
    shared: Arc<Shared>,
    who: Operator,
    request: HistoryRequest,
) -> Result<Answers<HistoryEntry>, Status> {
    let filter = Filter { selector: request.selector.clone(), who };
    // Subscribed before reading: nothing falls between. What comes twice is told once.
    let news = shared.happened.subscribe();
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        let (told, entries) = past(&shared, &filter, limit).await;
        for entry in entries {
            if sender.send(Ok(entry)).await.is_err() {
                return;
            }
        }
        if request.follow {
            Following { engine: shared.engine.clone(), filter, sender, told }.run(news).await;
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Somebody who is told what happens from now on.
struct Following {
    engine: Handle,
    filter: Filter,
    sender: mpsc::Sender<Result<HistoryEntry, Status>>,
    /// The last event that was told, or passed over.
    told: u64,
}

/// The follower has gone, or may not follow any more.
struct Over;

impl Following {
    async fn run(mut self, mut news: broadcast::Receiver<Arc<Record>>) {
        loop {
            let next = tokio::select! {
                next = news.recv() => next,
                () = self.sender.closed() => return,
            };
            let told = match next {
                Ok(record) => self.tell(&record).await,
                // It reads so slowly that events were dropped: they are on disk.
                Err(broadcast::error::RecvError::Lagged(_)) => self.catch_up().await,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if told.is_err() {
                return;
            }
        }
    }

    /// Tells one event, unless that was done before.
    async fn tell(&mut self, record: &Record) -> Result<(), Over> {
        if record.seq <= self.told {
            return Ok(());
        }
        self.told = record.seq;
        if record.kind == "token_revoked" && record.about == self.filter.who.name.as_str() {
            return self.end(revoked()).await;
        }
        match Some(record).filter(|record| self.filter.admits(record)).and_then(entry) {
            Some(entry) => self.sender.send(Ok(entry)).await.map_err(|_| Over),
            None => Ok(()),
        }
    }

    /// Tells what is on disk after the last one told.
    async fn catch_up(&mut self) -> Result<(), Over> {
        loop {
            let (from, name) = (self.told + 1, self.filter.who.name.clone());
            let look = move |engine: &Engine| {
                let valid = engine.state.tokens.get(&name).is_some_and(|token| !token.revoked);
                valid.then(|| engine.store.read(from, PAGE))
            };
            let page = match self.engine.read(look).await {
                Some(Some(Ok(page))) => page,
                Some(Some(Err(problem))) => return self.end(Status::internal(problem.to_string())).await,
                Some(None) => return self.end(revoked()).await,
                None => return self.end(stopping()).await,
            };
            if page.is_empty() {
                return Ok(());
            }
            for record in &page {
                self.tell(record).await?;
            }
        }
    }

    async fn end(&self, why: Status) -> Result<(), Over> {
        let _ = self.sender.send(Err(why)).await; // The follower may have gone.
        Err(Over)
    }
}

/// The end of a stream whose token was revoked in the middle.
fn revoked() -> Status {
    Status::unauthenticated("this token was revoked")
}

struct Filter {
    selector: String,
    who: Operator,
}

impl Filter {
    /// Whether a record is asked for, and may be seen.
    fn admits(&self, record: &Record) -> bool {
        let about = record.about.as_str();
        let (service, environment) = match (about.parse::<StageName>(), about.parse::<ReleaseName>()) {
            (Ok(stage), _) => (Some(stage.service), Some(stage.environment)),
            (_, Ok(release)) => (Some(release.service), None),
            _ if record.kind == "service_applied" => (about.parse().ok(), None),
            _ => (None, None),
        };
        let asked = self.selector.is_empty()
            || about == self.selector
            || service.as_ref().is_some_and(|service| service.as_str() == self.selector);
        asked && self.who.sees(service.as_ref(), environment.as_ref())
    }
}

/// A record as people are told of it; none: it is no event that is known.
pub(super) fn entry(record: &Record) -> Option<HistoryEntry> {
    let event = engine::event_of(record).ok()?;
    Some(HistoryEntry {
        event: record.seq,
        at_ms: record.at_ms,
        by: record.by.clone(),
        reason: record.reason.clone(),
        about: record.about.clone(),
        what: event.map_or_else(|| record.payload.to_string(), |event| event.sentence()),
        kind: record.kind.clone(),
    })
}

/// The last `limit` records that are asked for (0: all), oldest first. Read in pages from the end, so that the engine is
/// never held up for long. With them the last event that was looked at.
async fn past(shared: &Shared, filter: &Filter, limit: usize) -> (u64, Vec<HistoryEntry>) {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let Some(last) = shared.engine.read(|engine| engine.store.last()).await else { return (0, Vec::new()) };
    let (mut entries, mut end) = (Vec::new(), last);
    while end > 0 && entries.len() < limit {
        let first = end.saturating_sub(PAGE as u64) + 1;
        let count = usize::try_from(end + 1 - first).unwrap_or(PAGE);
        let Some(Ok(page)) = shared.engine.read(move |engine| engine.store.read(first, count)).await else {
            return (last, Vec::new());
        };
        let admitted = page.iter().rev().filter(|record| filter.admits(record)).filter_map(entry);
        entries.extend(admitted.take(limit - entries.len()));
        end = first - 1;
    }
    entries.reverse();
    (last, entries)
}

#[cfg(test)]
mod tests {
    use api::Scope;

    use super::*;
    use crate::engine::tests::{World, token};

    /// Follows what happens in a world, from a channel that holds so few events that all others are dropped.
    async fn follows(world: &World, name: &str) -> mpsc::Receiver<Result<HistoryEntry, Status>> {
        let who = Operator::new(name.parse().expect("name"), Scope::admin());
        let (sender, receiver) = mpsc::channel(1);
        let filter = Filter { selector: String::new(), who };
        let following = Following { engine: world.engine.clone(), filter, sender, told: 1 };
        tokio::spawn(following.run(world.happened.subscribe()));
        receiver
    }

    #[tokio::test]
    async fn a_slow_follower_misses_nothing() {
        let world = World::new().await;
        let mut told = follows(&world, "t1").await;
        for number in 1..=700 {
            world.carries_out(token(&format!("t{number}"))).await;
        }
        for expected in 2..=701 {
            assert_eq!(told.recv().await.expect("open").expect("an entry").event, expected);
        }
    }

    #[tokio::test]
    async fn a_slow_follower_whose_token_was_revoked_is_told_so() {
        let world = World::new().await;
        world.carries_out(token("slow")).await;
        let mut told = follows(&world, "slow").await;
        for number in 1..=300 {
            world.carries_out(token(&format!("t{number}"))).await;
        }
        world.revokes("slow").await;
        for number in 301..=600 {
            world.carries_out(token(&format!("t{number}"))).await;
        }
        let mut last = None;
        while let Some(entry) = told.recv().await {
            last = Some(entry);
        }
        assert!(matches!(last, Some(Err(status)) if status.message().contains("revoked")));
    }
}
