//! What every part that stays needs: threads, diagnostics, and the signal to stop.

use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::exit::Failure;

/// This software's version, as the fleet and the log have it.
pub(super) const SOFTWARE: &str = env!("CARGO_PKG_VERSION");
/// Threads of a part beside the proxy's workers. Most of the time they wait.
const THREADS: usize = 2;

/// How much a part tells on stderr.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// How much is told on stderr: error, warn, info, debug or trace, or levels by target.
    ///
    /// One level for all, or a list of target=level with a level for the rest, such as info,pointsman_proxy=debug.
    #[arg(long, value_name = "LEVEL", env = "POINTSMAN_LOG", default_value = "info")]
    log: Filter,
}

/// Which diagnostics are told.
#[derive(Debug, Clone)]
struct Filter(Targets);

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            "accepted is a level (error, warn, info, debug, trace) or a list such as \"info,pointsman_proxy=debug\"";
        // The library reads a misspelt level as the name of a target; a target without a level is no use here.
        let is_level = |text: &str| {
            ["off", "error", "warn", "info", "debug", "trace"].iter().any(|level| level.eq_ignore_ascii_case(text))
        };
        let good = text.split(',').all(|part| match part.split_once('=') {
            Some((target, level)) => !target.is_empty() && is_level(level),
            None => is_level(part),
        });
        let targets: Option<Targets> = good.then(|| text.parse().ok()).flatten();
        // The HTTP/2 library warns of every client that it cuts off: a flood of them would be one of lines.
        let quiet =
            |targets: Targets| if text.contains("h2=") { targets } else { targets.with_target("h2", Level::ERROR) };
        targets.map(quiet).map(Self).ok_or_else(|| form.to_owned())
    }
}

impl LogArgs {
    /// Tells diagnostics on stderr from now on.
    pub(super) fn start(&self) {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        // An error means that somebody listens already.
        let _ = tracing_subscriber::registry().with(lines).with(self.log.0.clone()).try_init();
    }
}

/// The threads a part works on.
pub(super) fn threads() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("the system gave no threads or descriptors to work with: {error}")))
}

/// Notified at each SIGHUP.
///
/// # Errors
/// A system that gives no signals.
pub(super) fn hangups() -> Result<Arc<Notify>, Failure> {
    let mut hangup = signal(SignalKind::hangup())
        .map_err(|error| Failure::refused(format!("signals cannot be received: {error}")))?;
    let notify = Arc::<Notify>::default();
    let told = notify.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            told.notify_one();
        }
    });
    Ok(notify)
}

/// Resolves at the first SIGTERM or SIGINT. A second one ends the process at once.
///
/// # Errors
/// A system that gives no signals.
pub(super) fn stop() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::refused(format!("signals cannot be received: {error}")));
    let (mut term, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let (first, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tracing::info!("stopping; a second signal ends it at once");
        // Nobody waits any more: it has ended by itself.
        let _ = first.send(());
        next().await;
        std::process::exit(1);
    });
    Ok(async move {
        // A dropped sender cannot be: the task above ends only with the process.
        let _ = stopped.await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_levels_have_one_form() {
        for good in ["info", "WARN", "off", "info,pointsman_proxy=debug", "proxy=trace,error"] {
            assert!(good.parse::<Filter>().is_ok(), "{good}");
        }
        for bad in ["", "inf", "loud", "proxy", "proxy=", "=info", "info,", "proxy=loud"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}
