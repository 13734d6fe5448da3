//! `demo`: all of Pointsman at work on this machine, through the same command that a user has.
//!
//! Must not know: the parts' crates. It starts this same binary for each part and each command, as a person would, and
//! sends requests as a client would.
//!
//! The rooms: `repository` (a real git repository from the embedded example), `parts` (processes and their end), `load`
//! (requests and what came back), `tour` (the story), `figures` (what is told at the end).

mod figures;
mod load;
mod parts;
mod repository;
mod tour;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::DemoArgs;
use crate::exit::{Ended, Exit, Failure};
use parts::Parts;
use tour::Tour;

/// Runs the demo; ends with [`Exit::Refused`] when a request failed that the bad release did not cause.
pub(crate) fn run(args: DemoArgs) -> Ended {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::refused(format!("the system gave no thread to work with: {error}")))?;
    runtime.block_on(demo(args))
}

async fn demo(args: DemoArgs) -> Ended {
    let mut folder = tempfile::Builder::new().prefix("pointsman-demo-").tempdir()?;
    folder.disable_cleanup(args.keep);
    let mut parts = Parts::new(folder.path())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let outcome = tokio::select! {
        outcome = story(&mut parts, &args) => outcome,
        _ = interrupt.recv() => Ok(Exit::Done),
        _ = terminate.recv() => Ok(Exit::Done),
    };
    parts.end().await;
    if args.keep {
        println!("kept: {}", folder.path().display());
    }
    outcome
}

async fn story(parts: &mut Parts, args: &DemoArgs) -> Ended {
    let mut tour = Tour::begin(parts).await?;
    let figures = tour.walk(parts).await?;
    let failed = figures.failed_elsewhere();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&figures).map_err(|error| Failure::refused(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|error| Failure::file(path, &error))?;
    }
    figures.tell();
    if failed > 0 {
        return Err(Failure::refused(format!("{failed} requests failed that the bad release did not cause")));
    }
    if args.tour {
        return Ok(Exit::Done);
    }
    tour.invite(parts);
    // Stays up, under its load, until a signal comes.
    std::future::pending().await
}
