//! `release logs`: of a build or of one of its checks, as it is or as it comes.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::operator::{LogPiece, ReleaseLogsRequest, Transfer};
use api::{ComponentName, ReleaseName, Verb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::core::state::Release;
use crate::engine::Engine;
use crate::server::Shared;
use crate::server::operator::Answers;
use crate::server::who::{Operator, parse, stopping};
use crate::status;

/// How often a log that is followed is looked at.
const FOLLOW: Duration = Duration::from_millis(200);
const PIECE_BYTES: u64 = 64 * 1024;

/// The log of a build or of a check; with `follow`, until the build has ended, and with what goes to the registry meanwhile.
pub(in super::super) async fn logs(
    shared: Arc<Shared>,
    who: &Operator,
    request: ReleaseLogsRequest,
) -> Result<Answers<LogPiece>, Status> {
    let name: ReleaseName = parse(&request.release)?;
    who.may(Verb::Read, Some(&name.service), None)?;
    let check = (!request.check.is_empty()).then(|| parse::<ComponentName>(&request.check)).transpose()?;
    let (asked, of) = (name.clone(), check.clone());
    let find = move |engine: &Engine| is_kept(engine.state.release(&asked), &asked, of.as_ref());
    shared.engine.read(find).await.ok_or_else(stopping)??;
    let path = path(&shared.folders.log(&name), check.as_ref());
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(Following { shared, name, path, follow: request.follow, sender }.run());
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Whether there can be such a log.
fn is_kept(release: Option<&Release>, name: &ReleaseName, check: Option<&ComponentName>) -> Result<(), Status> {
    let release = release.ok_or_else(|| Status::not_found(format!("there is no release {name}")))?;
    if release.trimmed.log_ms.is_some() {
        let sentence = format!("the log of {name} was removed, as `[keep]` of releases.toml says");
        return Err(Status::failed_precondition(sentence));
    }
    let Some(check) = check.filter(|_| release.progress.is_terminal()) else { return Ok(()) };
    if release.checks.iter().any(|done| done.name == check.as_str()) {
        return Ok(());
    }
    let all: Vec<&str> = release.checks.iter().map(|done| done.name.as_str()).collect();
    let all = if all.is_empty() { "none were run".to_owned() } else { format!("run were {}", all.join(", ")) };
    Err(Status::not_found(format!("{name} has no check {check}: {all}")))
}

/// A check's log lies beside that of its build.
fn path(build: &Path, check: Option<&ComponentName>) -> PathBuf {
    check.map_or_else(|| build.to_owned(), |check| build.with_extension(format!("check-{check}.log")))
}

/// Somebody who reads a log.
struct Following {
    shared: Arc<Shared>,
    name: ReleaseName,
    path: PathBuf,
    follow: bool,
    sender: mpsc::Sender<Result<LogPiece, Status>>,
}

/// The reader has gone, or cannot be told any more.
struct Over;

impl Following {
    async fn run(self) {
        let (mut offset, mut told) = (0, None);
        loop {
            // Asked before reading: what was written until the end is then read below.
            let (ended, transfer) = self.look().await;
            if self.tell_log(&mut offset).await.is_err() {
                return;
            }
            if self.follow && transfer != told {
                // Without bytes on their way the last ones have arrived: the end of the log says so.
                if let Some(transfer) = transfer.clone()
                    && self.tell(LogPiece { data: Vec::new(), transfer: Some(transfer) }).await.is_err()
                {
                    return;
                }
                told = transfer;
            }
            if ended || !self.follow {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW) => {}
                () = self.sender.closed() => return,
            }
        }
    }

    /// Whether the build has ended, and what is on its way.
    async fn look(&self) -> (bool, Option<Transfer>) {
        let name = self.name.clone();
        let look = move |engine: &Engine| {
            let ended = engine.state.release(&name).is_none_or(|release| release.progress.is_terminal());
            (ended, engine.seen.transfers.get(&name).map(status::transfer))
        };
        self.shared.engine.read(look).await.unwrap_or((true, None))
    }

    /// All that is there from `offset` on.
    async fn tell_log(&self, offset: &mut u64) -> Result<(), Over> {
        loop {
            let Ok(data) = read_piece(&self.path, *offset) else {
                let _ = self.sender.send(Err(Status::internal("the log cannot be read"))).await; // The reader may have gone.
                return Err(Over);
            };
            if data.is_empty() {
                return Ok(());
            }
            *offset += data.len() as u64;
            self.tell(LogPiece { data, transfer: None }).await?;
        }
    }

    async fn tell(&self, piece: LogPiece) -> Result<(), Over> {
        self.sender.send(Ok(piece)).await.map_err(|_| Over)
    }
}

/// A log that does not exist yet is an empty one.
fn read_piece(path: &Path, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    match std::fs::File::open(path) {
        Ok(mut file) => {
            file.seek(SeekFrom::Start(offset))?;
            file.take(PIECE_BYTES).read_to_end(&mut data)?;
        }
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => {}
        Err(problem) => return Err(problem),
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::evolve_test::World;
    use crate::core::state::{CheckDone, CheckVerdict};

    #[test]
    fn releases_say_which_logs_they_have() {
        let world = World::with_built_releases(1);
        let name: ReleaseName = "hello@r1".parse().expect("a name");
        let mut release = world.state.release(&name).expect("there").clone();
        let check = |text: &str| Some(text.parse::<ComponentName>().expect("a name"));
        let told = |release: Option<&Release>, check: Option<ComponentName>| {
            is_kept(release, &name, check.as_ref()).map_err(|status| status.message().to_owned())
        };
        assert_eq!(told(Some(&release), None), Ok(()));
        assert!(told(None, None).expect_err("unknown").contains("there is no release hello@r1"));
        assert!(told(Some(&release), check("fits")).expect_err("none").ends_with("none were run"));
        release.checks.push(CheckDone { name: "fits".into(), verdict: CheckVerdict::Well, took_ms: 1 });
        assert_eq!(told(Some(&release), check("fits")), Ok(()));
        assert!(told(Some(&release), check("other")).expect_err("another").ends_with("run were fits"));
        release.trimmed.log_ms = Some(1);
        assert!(told(Some(&release), None).expect_err("gone").contains("[keep]"));
    }

    #[test]
    fn hostile_h83_the_log_of_a_check_lies_beside_that_of_the_build() {
        let build = PathBuf::from("/logs/hello/r42.log");
        let check: ComponentName = "fits".parse().expect("a name");
        assert_eq!(path(&build, Some(&check)), Path::new("/logs/hello/r42.check-fits.log"));
        assert_eq!(path(&build, None), Path::new("/logs/hello/r42.log"));
        for wrong in ["../r1", "a/b", "..", "\0", "FITS"] {
            assert!(parse::<ComponentName>(wrong).is_err(), "{wrong}");
        }
    }
}
