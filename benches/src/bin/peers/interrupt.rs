//! Ctrl-C and SIGTERM: the run ends as an error does, so that everything it started ends with it.

use std::sync::atomic::{AtomicBool, Ordering};

use pointsman_benches::Problem;
use tokio::signal::unix::{SignalKind, signal};

/// Written by the watching thread, read wherever something is waited for.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Takes note of both signals from now on.
pub(crate) fn watch() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Whether to go on.
pub(crate) fn check() -> Result<(), Problem> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
}
