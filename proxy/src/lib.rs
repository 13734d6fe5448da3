//! The data plane: a thread-per-core reverse proxy that sends each request to the release whose turn it is.
//!
//! Must not know: why weights are what they are, how releases are built or run. It does what the newest snapshot says,
//! keeps it on disk, and goes on serving when nobody tells it anything.
//!
//! Main types: [`Settings`], [`run`]; [`Engine`], the same without a controller; [`local`], the break-glass socket.
//!
//! A request's life is in `exchange`. What changes is in `control`. Workers share one pointer to a snapshot and nothing
//! else: no lock and no shared counter is on a request's way.

mod access_log;
mod admin;
mod answer;
mod assertions;
mod balance;
mod callers;
mod codec;
mod control;
mod cors;
mod count;
#[cfg(test)]
mod counted;
mod deadline;
mod decide;
mod denied;
mod drain;
mod engine;
mod exchange;
mod explain;
mod fleet;
mod forward_headers;
mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod grpc_timeout;
mod guard;
mod handshake;
mod head_check;
mod health;
mod issuers;
mod journal;
mod keyring;
mod lasting;
mod listen;
pub mod local;
mod metrics;
mod overrides;
mod proxy_protocol;
mod recent;
mod record;
mod request_id;
mod route;
mod settings;
mod snapshot;
mod split;
mod sticky;
mod totals;
mod worker;

pub use engine::{Engine, Rejected};
pub use overrides::Override;
pub use settings::{Bound, Limits, LogTarget, ProxyError, Settings};

/// Runs a proxy until `stop` completes, then drains it. Returns the number of requests that were cut.
///
/// Starts its worker threads itself; everything else runs on the calling runtime, which must be a tokio runtime with
/// I/O and time enabled. The bound addresses are written to `<data>/listening.json` and sent to `settings.ready`.
///
/// # Errors
/// An address cannot be listened on, the folder cannot be used, or another proxy uses it. Nothing runs then.
pub async fn run(
    settings: Settings,
    identity: certs::fleet::Identity,
    stop: impl Future<Output = ()>,
) -> Result<u64, ProxyError> {
    let channel = identity.channel().map_err(ProxyError::Identity)?;
    let engine = Engine::start(settings).await?;
    tokio::select! {
        () = engine.follow(channel, || identity.was_refused()) => {}
        () = identity.keep_renewed() => {}
        () = stop => {}
    }
    Ok(engine.drain().await)
}
