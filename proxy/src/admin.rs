//! What operators and machines may ask a proxy: metrics, life, readiness, and the keys by which it says who calls.
//!
//! Must not know: how counts are made. Main types: [`Observed`], all there is to see; [`serve`].

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::codec::page::{self, Page};
use crate::control::Control;
use crate::count::Ledger;
use crate::explain::Asking;
use crate::metrics::Metrics;
use crate::totals::Totals;

const TEXT: &str = "text/plain; charset=utf-8";

/// What can be seen of a running proxy.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) control: Arc<Control>,
    pub(crate) ledger: Mutex<Ledger>,
    /// By worker.
    pub(crate) totals: Vec<Arc<Totals>>,
    /// What workers decided lately.
    pub(crate) asking: Asking,
    /// Notified when a canary was stopped.
    pub(crate) tripped: Arc<Notify>,
    /// Lines that the access log lost, if there is one.
    pub(crate) log_dropped: Option<Arc<AtomicU64>>,
}

/// Serves `/metrics`, `/healthz`, `/readyz` and the keys of assertions until it is dropped.
pub(crate) async fn serve(listener: TcpListener, observed: Arc<Observed>) {
    let mut registry = Registry::with_prefix("pointsman_proxy");
    registry.register_collector(Box::new(Metrics(observed.clone())));
    page::serve(listener, move |path| answer(path, &registry, &observed)).await;
}

fn answer(path: &str, registry: &Registry, observed: &Observed) -> Page {
    match path {
        "/metrics" => {
            let mut text = String::new();
            match prometheus_client::encoding::text::encode(&mut text, registry) {
                Ok(()) => Page(200, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
                Err(std::fmt::Error) => Page(500, TEXT, "the metrics cannot be written\n".into()),
            }
        }
        "/healthz" => Page(200, TEXT, "alive\n".into()),
        // Alive until the last request has ended, but whoever spreads connections should have left by then.
        "/readyz" if observed.control.is_draining() => Page(503, TEXT, "draining\n".into()),
        "/readyz" => match observed.control.have() {
            Some((version, _)) => Page(200, TEXT, format!("serving {version}\n")),
            None => Page(503, TEXT, "no snapshot was ever applied\n".into()),
        },
        "/assertion/jwks.json" => match &observed.control.published().load().access.jwks {
            Some(jwks) => Page(200, "application/jwk-set+json", jwks.to_string()),
            None => Page(404, TEXT, "no key for assertions was ever sent\n".into()),
        },
        _ => Page(404, TEXT, "there are /metrics, /healthz, /readyz and /assertion/jwks.json\n".into()),
    }
}
