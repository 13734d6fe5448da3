//! Zones as they were meant: kept from change to change, so that what is large in one is read when it changes.
//!
//! Must not know: the stages behind them.
//!
//! Main type: [`ZoneMeant`].

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use api::fleet::{self, Rejection};
use certs::client::Clients;

use super::Https;
use super::check::{self, Problems};
use super::clients::ClientsBoard;
use super::resources::{Delta, Kind};

/// A zone as it was meant.
#[derive(Debug, Clone)]
pub(super) struct ZoneMeant {
    pub(super) domain: Arc<str>,
    pub(super) environment: String,
    pub(super) https: Https,
    pub(super) clients: Option<Arc<Clients>>,
}

/// All of them as they will be after a change; `None`: as before.
pub(super) fn prepare(
    before: &[ZoneMeant],
    delta: &Delta,
    board: &mut ClientsBoard,
    list: &mut Vec<Rejection>,
) -> Option<Vec<ZoneMeant>> {
    let changed = |name: &Arc<str>| delta.entries.contains_key(&(Kind::Zone, name.clone()));
    if !delta.entries.keys().any(|(kind, _)| *kind == Kind::Zone) {
        return None;
    }
    let mut zones: Vec<_> = before.iter().filter(|zone| !changed(&zone.domain)).cloned().collect();
    for ((kind, name), raw) in &delta.entries {
        let (Kind::Zone, Some(raw)) = (kind, raw) else { continue };
        // A domain is the resource's name, so two zones never share one; and since a service's name has no dot,
        // `<service>.<zone>` never means two things.
        let problems = &mut Problems { list, kind: Kind::Zone, name };
        let Some(zone) = check::zone(raw, problems) else { continue };
        let clients = board.of(zone.client_certificates.as_ref(), problems);
        let https = https(zone.https.as_ref());
        zones.push(ZoneMeant { domain: name.clone(), environment: zone.environment, https, clients });
    }
    Some(zones)
}

fn https(told: Option<&fleet::Https>) -> Https {
    let redirect_port = told.and_then(|told| NonZeroU16::new(u16::try_from(told.redirect_port).ok()?));
    Https { redirect_port, hsts_seconds: told.and_then(|told| NonZeroU32::new(told.hsts_seconds)) }
}
