//! `status` and `history`, once or followed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::operator::{HistoryEntry, HistoryRequest, StatusReply, StatusRequest};
use api::{EnvironmentName, ReleaseName, ServiceName, StageName, Verb};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Answers;
use crate::engine::{self, Engine};
use crate::selector::Selector;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::status;
use crate::store::Record;

/// Four times a second is as much as an eye can follow.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// Records read at once while history is told.
const PAGE: usize = 500;

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
            let look = move |engine: &Engine| {
                let valid = engine.state.tokens.get(&who.name).is_some_and(|token| !token.revoked);
                let sees = |service: Option<&ServiceName>, environment: Option<&EnvironmentName>| {
                    who.sees(service, environment)
                };
                valid.then(|| status::all(engine, &selector, Instant::now(), sees))
            };
            let Some(found) = shared.engine.read(look).await else { return };
            let Some(reply) = found else {
                let _ = sender.send(Err(revoked())).await; // The watcher may have gone.
                return;
            };
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
    let mut news = shared.happened.subscribe();
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut told = 0;
        let limit = usize::try_from(request.limit).unwrap_or(usize::MAX);
        for entry in past(&shared, &filter, limit).await {
            told = told.max(entry.event);
            if sender.send(Ok(entry)).await.is_err() {
                return;
            }
        }
        if !request.follow {
            return;
        }
        loop {
            let next = tokio::select! {
                next = news.recv() => next,
                () = sender.closed() => return,
            };
            let record = match next {
                Ok(record) => record,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if record.kind == "token_revoked" && record.about == filter.who.name.as_str() {
                let _ = sender.send(Err(revoked())).await; // The watcher may have gone.
                return;
            }
            let wanted = Some(&record).filter(|record| record.seq > told && filter.admits(record));
            if let Some(entry) = wanted.and_then(|record| entry(record))
                && sender.send(Ok(entry)).await.is_err()
            {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
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

fn entry(record: &Record) -> Option<HistoryEntry> {
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
/// never held up for long.
async fn past(shared: &Shared, filter: &Filter, limit: usize) -> Vec<HistoryEntry> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let Some(last) = shared.engine.read(|engine| engine.store.last()).await else { return Vec::new() };
    let (mut entries, mut end) = (Vec::new(), last);
    while end > 0 && entries.len() < limit {
        let first = end.saturating_sub(PAGE as u64) + 1;
        let count = usize::try_from(end + 1 - first).unwrap_or(PAGE);
        let Some(Ok(page)) = shared.engine.read(move |engine| engine.store.read(first, count)).await else {
            return Vec::new();
        };
        let admitted = page.iter().rev().filter(|record| filter.admits(record)).filter_map(entry);
        entries.extend(admitted.take(limit - entries.len()));
        end = first - 1;
    }
    entries.reverse();
    entries
}
