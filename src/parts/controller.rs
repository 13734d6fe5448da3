//! `controller`: runs one, backs one up, restores one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use api::Span;
use api::operator::ListRequest;
use clap::{Args, Subcommand};
use tokio::sync::oneshot;
use tonic::Request;

use super::init::println_out;
use super::stay::{self, LogArgs, SOFTWARE};
use crate::contexts;
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Client, Session};
use crate::values::HostPort;

/// Run a controller; back one up, restore one.
///
/// Keeps everything in its data folder and writes operator.toml there, with which the first operator logs in. Stops on
/// SIGTERM or Ctrl-C; proxies and releases go on without it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_long_help = "Examples:
  pointsman controller --data ./controller
  pointsman controller --data /var/lib/pointsman --listen 0.0.0.0:7400 --advertise controller.example.com:7400
  pointsman controller backup monday.db --data ./controller")]
pub(crate) struct ControllerArgs {
    #[command(subcommand)]
    verb: Option<ControllerVerb>,
    /// Its folder; made when there is none.
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,
    /// Where proxies and agents reach it, when that is not where it listens.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<HostPort>,
    /// Where webhooks are taken without TLS, behind a proxy; they are taken at --listen, too.
    #[arg(long, value_name = "ADDRESS")]
    hooks: Option<SocketAddr>,
    /// For tests: how long certificates of proxies and agents are good.
    #[arg(long, value_name = "TIME", hide = true)]
    member_lifetime: Option<Span>,
    /// For crash tests: end at once at this point.
    #[arg(long, value_name = "POINT", hide = true)]
    fault: Option<String>,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Subcommand)]
enum ControllerVerb {
    /// Copy the event store of a running controller into a file.
    ///
    /// From the controller of the context, or of a data folder on this machine. The copy is whole or not there at all.
    #[command(after_long_help = "Examples:
  pointsman controller backup monday.db
  pointsman controller backup monday.db --data ./controller")]
    Backup {
        /// The file to write; never written over.
        file: PathBuf,
        /// The controller's data folder on this machine, instead of a context.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Make a data folder from a backup.
    ///
    /// All of the backup is verified first. A folder that has a store already is left as it is. A backup holds the
    /// events and no keys. Put the old folder's fleet-ca.json and development-ca.json beside the store, or every proxy and
    /// agent has to join again; assertion-keys.json, or endpoints refuse callers until they fetch the new keys (`access
    /// jwks`); and explain-keys.json, or the ids of 404s from before cannot be opened.
    #[command(after_long_help = "Example:\n  pointsman controller restore monday.db --data ./restored")]
    Restore {
        /// The backup.
        file: PathBuf,
        /// The folder to make.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
    },
    /// Go on with a store from which the newest events are missing.
    ///
    /// For a store that refuses to start because its end was cut and there is no backup. The files are copied first, and
    /// the loss itself becomes an event, with the reason. Events that are gone stay gone: proxies and agents may be
    /// ahead of what this controller then knows, and are brought back to it.
    #[command(
        after_long_help = "Example:\n  pointsman controller accept-loss --data ./controller --reason \"disk replaced, no backup\""
    )]
    AcceptLoss {
        /// The data folder of the controller, which must not run.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Why; goes on record.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

pub(crate) fn run(args: ControllerArgs, session: &Session) -> Ended {
    match args.verb {
        Some(ControllerVerb::Backup { file, data }) => stay::threads()?.block_on(backup(&file, data, session)),
        Some(ControllerVerb::Restore { file, data }) => {
            let last =
                ::controller::store::restore(&file, &data).map_err(|error| Failure::refused(error.to_string()))?;
            println_out(&format!("{} is restored up to event {last}", data.display()))?;
            Ok(Exit::Done)
        }
        Some(ControllerVerb::AcceptLoss { data, reason }) => {
            let at_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
            let by = std::env::var("USER").unwrap_or_else(|_| "operator".into());
            let record = ::controller::store::accept_loss(&data, at_ms, &by, &reason);
            let record = record.map_err(|error| Failure::refused(error.to_string()))?;
            println_out(&format!("{}: the loss is on record as event {}", data.display(), record.seq))?;
            Ok(Exit::Done)
        }
        None => {
            args.log.start();
            stay::threads()?.block_on(serve(args))
        }
    }
}

async fn serve(args: ControllerArgs) -> Ended {
    let (sender, ready) = oneshot::channel::<::controller::Ready>();
    let settings = ::controller::Settings {
        data: args.data.expect("required without a subcommand"),
        listen: args.listen,
        advertise: args.advertise.map(|advertise| advertise.0),
        hooks: args.hooks,
        software: SOFTWARE.into(),
        member_lifetime: args.member_lifetime.map(|span| std::time::Duration::from_millis(span.ms())),
        fault: args.fault,
    };
    tokio::spawn(async move {
        if let Ok(ready) = ready.await {
            let login = format!("pointsman login --from {}", ready.operator_file.display());
            // Whoever started it may not read what it says.
            let _ = println_out(&format!("controller: {}, log in with `{login}`", ready.address));
            if let Some(address) = ready.hooks {
                let _ = println_out(&format!("webhooks: http://{address}/v1/hooks/REPOSITORY"));
            }
        }
    });
    let stop = stay::stop()?;
    ::controller::run(settings, stop, Some(sender)).await.map_err(|error| Failure::refused(error.to_string()))?;
    Ok(Exit::Done)
}

/// Receives the copy piece by piece, then gives it its name.
async fn backup(file: &Path, data: Option<PathBuf>, session: &Session) -> Ended {
    if file.exists() {
        return Err(Failure::refused(format!("{}: it exists already", file.display())));
    }
    let mut client = match data {
        Some(folder) => {
            let operator = folder.join("operator.toml");
            Client::new(&operator.display().to_string(), &contexts::operator_file(&operator)?)?
        }
        None => session.client()?,
    };
    let reply = client.calls.backup(Request::new(ListRequest {})).await;
    let mut pieces = reply.map_err(|status| client.failure(&status))?.into_inner();
    let mut copy = Copy::begin(file)?;
    while let Some(piece) = pieces.message().await.map_err(|status| client.failure(&status))? {
        copy.add(&piece.data)?;
    }
    let bytes = copy.finish()?;
    println_out(&format!("{}: {bytes} bytes", file.display()))?;
    Ok(Exit::Done)
}

/// A file that is whole or not there: written beside, as `<name>.new`, which is removed when it is dropped.
struct Copy {
    path: PathBuf,
    beside: PathBuf,
    file: File,
    bytes: u64,
}

impl Copy {
    fn begin(path: &Path) -> Result<Self, Failure> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let file = file.map_err(|error| Failure::file(&beside, &error))?;
        Ok(Self { path: path.to_owned(), beside, file, bytes: 0 })
    }

    fn add(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).map_err(|error| Failure::file(&self.beside, &error))
    }

    /// Gives it its name, unless something has that since; its size.
    fn finish(self) -> Result<u64, Failure> {
        let named = self.file.sync_all().and_then(|()| std::fs::hard_link(&self.beside, &self.path));
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let safe = named.and_then(|()| File::open(folder)?.sync_all());
        safe.map_err(|error| Failure::file(&self.path, &error))?;
        Ok(self.bytes)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.beside); // The first error is the one to tell.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_whole_or_not_there_and_never_written_over() {
        let folder = tempfile::tempdir().expect("folder");
        let (path, names) = (folder.path().join("x.db"), || std::fs::read_dir(folder.path()).expect("folder").count());
        let mut cut = Copy::begin(&path).expect("begun");
        cut.add(b"half").expect("written");
        assert!(Copy::begin(&path).is_err(), "one at a time");
        drop(cut);
        assert_eq!(names(), 0, "a connection broke");
        let mut copy = Copy::begin(&path).expect("begun");
        ["one", "two"].iter().for_each(|piece| copy.add(piece.as_bytes()).expect("written"));
        assert!(!path.exists() && names() == 1, "on the disk piece by piece, without its name");
        assert_eq!(copy.finish(), Ok(6));
        let second = Copy::begin(&path).and_then(Copy::finish).expect_err("there is one").message;
        assert!(second.ends_with("it exists already"), "{second}");
        assert_eq!((std::fs::read(&path).expect("read"), names()), (b"onetwo".to_vec(), 1));
    }
}
