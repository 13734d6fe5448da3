//! `demo`: all of Pointsman at work on this machine, through the same command that a user has.
//!
//! Must not know: the parts' crates. It starts this same binary for each part and each command, as a person would, and
//! sends requests as a client would.
//!
//! The rooms: `repository` (a real git repository from the embedded example), `parts` (processes and their end), `load`
//! (requests and what came back), `issuer` (who people are), `tour` (the story), `figures` (what is told at the end).

/// Prints a line of the story. Nobody who reads it is an error as any other: the parts are ended in order then.
macro_rules! tell {
    ($($text:tt)*) => {
        crate::output::print_line(format_args!($($text)*))
    };
}

mod figures;
mod issuer;
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
    let folder = tempfile::Builder::new().prefix("pointsman-demo-").tempdir();
    let mut folder = folder.map_err(|error| Failure::system("there is no folder for the demo", &error))?;
    folder.disable_cleanup(args.keep);
    let mut parts = Parts::new(folder.path())?;
    let listen = |kind| signal(kind).map_err(|error| Failure::system("signals cannot be received", &error));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    // A terminal that is closed, or a connection that is lost.
    let mut hangup = listen(SignalKind::hangup())?;
    let outcome = tokio::select! {
        outcome = story(&mut parts, &args) => outcome,
        _ = interrupt.recv() => stopped(&args),
        _ = terminate.recv() => stopped(&args),
        _ = hangup.recv() => stopped(&args),
    };
    // Whoever stops reading stops the demo.
    let outcome = match outcome {
        Err(failure) if failure.exit == Exit::Done => stopped(&args),
        outcome => outcome,
    };
    parts.end().await;
    if args.keep {
        let _ = tell!("kept: {}", folder.path().display()); // Nobody may read it any more.
    }
    outcome
}

/// A tour that did not come to its end has not shown that nothing fails.
fn stopped(args: &DemoArgs) -> Ended {
    if args.tour { Err(Failure::refused("the tour was stopped before its end")) } else { Ok(Exit::Done) }
}

async fn story(parts: &mut Parts, args: &DemoArgs) -> Ended {
    let mut tour = Tour::begin(parts).await?;
    let figures = tour.walk(parts).await?;
    let failed = figures.failed_elsewhere();
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&figures).map_err(|error| Failure::refused(error.to_string()))?;
        std::fs::write(path, text + "\n").map_err(|error| Failure::file(path, &error))?;
    }
    figures.tell()?;
    if failed > 0 {
        return Err(Failure::refused(format!("{failed} requests failed that the bad release did not cause")));
    }
    if args.tour {
        return Ok(Exit::Done);
    }
    tour.invite(parts)?;
    // Stays up, under its load, until a signal comes.
    std::future::pending().await
}
