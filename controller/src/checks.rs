//! Checks of rollouts: what else says whether all is well, asked again and again while a step lasts.
//!
//! Must not know: how a rollout moves, or what follows from an answer. It follows the engine's state, and tells `fleet` what
//! each check said; a step that is over is not told of.
//!
//! Main function: [`run`]. `wanted` says what is to be asked now (pure), `rounds` asks one check again and again, `tally` counts
//! its answers (pure), `ask` asks once, when its turn has come (`turns`): `http`, `command` and `prometheus`. `seals` knows what a
//! proxy of ours said itself.
//!
//! A command is run as the controller's own user, in a fresh folder that is removed afterwards, and sees PATH, LANG, HOME,
//! POINTSMAN_STAGE, POINTSMAN_RELEASE, POINTSMAN_HOST, and the mark by which all that it leaves behind is found. A program with a
//! slash is looked for in `checks/programs` of the controller's data folder.
//!
//! A check fails by what it has asked. Whatever keeps it from asking (no descriptor, no name server, a door that is closed to it, a
//! metrics server that is away) says nothing of a release: then it waits, and says why.

mod ask;
mod command;
mod http;
mod line;
mod prometheus;
mod rounds;
mod seals;
mod tally;
#[cfg(test)]
mod tests;
mod turns;
mod wanted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::StageName;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

use crate::build::Cancel;
use crate::build::process::cancelled;
use crate::engine::Handle;
use crate::fleet::Fleet;
use crate::store::Record;
use ask::Asker;
pub(crate) use command::CheckFolders;
use rounds::{Ears, Rounds};
use seals::Seals;
#[cfg(test)]
pub(crate) use turns::{AT_ONCE, AT_ONCE_OF_STAGE};
use wanted::Wanted;

/// How often state is looked at when nothing happens; whatever begins or ends a step is an event.
const LOOK: Duration = Duration::from_secs(2);

/// What runs has so long to end with the controller: a command's own grace and to be cleared away after it.
const END: Duration = Duration::from_secs(5);

/// Runs until it is told to stop or the engine is gone; then all that runs is ended in order, which takes no longer than
/// [`END`]. Dropped, it ends all that runs at once, and leaves the folders of commands behind.
pub(crate) async fn run(
    engine: Handle,
    fleet: Arc<Fleet>,
    folders: CheckFolders,
    mut happened: broadcast::Receiver<Arc<Record>>,
    mut stop: Cancel,
) {
    let Some(authority) = engine.read(|engine| engine.publisher.certificates().authority_pem()).await else { return };
    folders.clear().await;
    let asker = Arc::new(Asker::new(folders, &authority, Seals::of(engine.clone())));
    let mut driver = Driver { ears: Ears { engine: engine.clone(), fleet }, asker, running: BTreeMap::new() };
    while let Some(wanted) = engine.read(|engine| wanted::now(&engine.state)).await {
        driver.follow(wanted);
        tokio::select! {
            () = cancelled(&mut stop) => break,
            () = tokio::time::sleep(LOOK) => {}
            news = happened.recv() => match news {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    // One look is enough for all that has happened until now.
                    happened = happened.resubscribe();
                }
                Err(RecvError::Closed) => break,
            }
        }
    }
    driver.end().await;
}

/// What runs.
struct Driver {
    ears: Ears,
    asker: Arc<Asker>,
    /// By stage and name: one check is one thing, whichever step it belongs to, and is never run twice at once.
    running: BTreeMap<(StageName, String), Rounds>,
}

impl Driver {
    /// Begins what is to be run and does not, ends what runs and is not to, and leaves the rest alone.
    fn follow(&mut self, wanted: Vec<Wanted>) {
        let mut wanted: BTreeMap<_, _> = wanted.into_iter().map(|one| (one.key(), one)).collect();
        self.running.retain(|key, rounds| match wanted.get(key) {
            Some(one) => {
                if rounds.is_of(one) {
                    wanted.remove(key);
                }
                true
            }
            // It stays until it has ended: the next one of its name begins after it.
            None => rounds.is_ending(),
        });
        for (key, one) in wanted {
            let before = self.running.remove(&key);
            self.running.insert(key, Rounds::begin(one, self.asker.clone(), self.ears.clone(), before));
        }
    }

    /// Ends all that runs, and waits for it.
    async fn end(self) {
        let mut running: Vec<_> = self.running.into_values().filter(Rounds::is_ending).collect();
        let all = async {
            for rounds in &mut running {
                rounds.ended().await;
            }
        };
        if tokio::time::timeout(END, all).await.is_err() {
            warn!("checks did not end in time: what is left of them is cleared away at the next start");
        }
    }
}
