//! What the stories are told with: a [`House`] of processes, [`Upstream`]s, [`Client`]s and [`Load`].
//!
//! Must not know: what is expected. It starts, asks, counts and waits.

mod client;
mod clock;
mod command;
mod dice;
mod docker;
mod flip;
mod git_server;
mod house;
mod issuer;
mod load;
mod operator;
mod part;
mod port;
#[allow(dead_code, reason = "used by the tests of releases as they come")]
mod registry;
mod repository;
mod script;
mod shape;
mod upstream;
mod webhook;

pub(crate) use client::{Answer, Client, Speech, burst};
pub(crate) use clock::Clock;
pub(crate) use command::{PROGRAM, Said};
pub(crate) use dice::{Dice, now_ms};
pub(crate) use docker::Docker;
pub(crate) use flip::flip_a_byte;
pub(crate) use git_server::{GitServer, Hosting};
pub(crate) use house::{HOST, House, Proxy, SERVICE, STAGE, running_in};
pub(crate) use issuer::{Issuer, Mood, STAFF};
pub(crate) use load::Load;
pub(crate) use operator::{Changed, Operator, is_broken, request_id};
pub(crate) use part::Part;
pub(crate) use port::free_port;
pub(crate) use registry::{Registry, USER};
pub(crate) use repository::Repository;
pub(crate) use script::{Server, script};
pub(crate) use shape::{Happened, Serving};
pub(crate) use upstream::{Temper, Upstream};
pub(crate) use webhook::Webhook;

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};

/// Longer than anything takes on a machine that is merely slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// Held by tests that need the machine's whole strength, so that only one of them runs at a time.
pub(crate) async fn alone() -> MutexGuard<'static, ()> {
    static HEAVY: Mutex<()> = Mutex::const_new(());
    HEAVY.lock().await
}

/// Waits until `so` gives something; panics after [`PATIENCE`] with what was waited for.
pub(crate) async fn until<T>(what: &str, mut so: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = so().await {
                return found;
            }
            sleep(LOOK).await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("never came true: {what}"))
}
