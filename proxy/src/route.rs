//! Host to stage: `<service>.<zone>` is the stage, `r<N>--<service>.<zone>` one release in it.
//!
//! Must not know: headers, connections, or who asks. An unknown host has no stage, and nothing else tells it apart: the same
//! is looked up, and no backend is touched.
//!
//! Main type: [`Routed`].

use std::sync::Arc;

use certs::client::Clients;
use policies::verdict::Named;

use crate::snapshot::{Asking, Backend, Guarded, Https, Place, Snapshot, Stage};

/// Where a host leads, be it nowhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed<'a, 'h> {
    /// `None`: no stage has the host.
    pub(crate) stage: Option<&'a Stage>,
    /// The stage, or what stands in its place: the same is read of either.
    pub(crate) shape: &'a Stage,
    /// What is asked there of anybody.
    pub(crate) guarded: &'a Guarded,
    pub(crate) asking: &'a Asking,
    /// The service's name, or what stands in its place.
    pub(crate) service: &'h str,
    pub(crate) release: Release<'a>,
}

/// Which release a host names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Release<'a> {
    /// None: whatever the weights say.
    Any,
    One(&'a Backend),
    /// One that the stage does not have, or there is no stage.
    Missing(u32),
}

impl Routed<'_, '_> {
    /// Whether the host names a release, and one that there is.
    pub(crate) fn named(&self) -> Named {
        match self.release {
            Release::Any => Named::Nothing,
            Release::One(_) => Named::Known,
            Release::Missing(_) => Named::Unknown,
        }
    }

    /// The number that the host names.
    pub(crate) fn number(&self) -> Option<u32> {
        match self.release {
            Release::Any => None,
            Release::One(backend) => Some(backend.release),
            Release::Missing(number) => Some(number),
        }
    }

    /// Whether some backend is asked for its health at this path, or gRPC's way.
    pub(crate) fn is_checked_at(&self, path: &str, is_rpc: bool) -> bool {
        is_rpc || self.shape.health_paths.iter().any(|known| **known == *path)
    }
}

/// How a host in normal form is asked for, whether or not it leads anywhere.
pub(crate) fn https(snapshot: &Snapshot, host: &str) -> Https {
    split(host).and_then(|(_, zone)| snapshot.https(zone)).unwrap_or_default()
}

/// Which certificates clients may show to a host in normal form, whether or not it leads anywhere; `None`: none is asked
/// for. A stage's own way counts for all names that would be its hosts.
pub(crate) fn clients<'a>(snapshot: &'a Snapshot, host: &str) -> Option<&'a Arc<Clients>> {
    // Most proxies ask for none: nothing is looked up then.
    let (label, zone) = split(host).filter(|_| snapshot.asks_clients)?;
    let service = match label.split_once("--") {
        Some((release, service)) => release_number(release).map(|_| service),
        None => Some(label),
    };
    let of_stage = service.and_then(|service| snapshot.stage(zone, service)?.clients.as_ref());
    of_stage.or_else(|| snapshot.clients(zone))
}

/// Where a host in normal form leads (lower case, no port, no dot at the end).
pub(crate) fn route<'a, 'h>(snapshot: &'a Snapshot, host: &'h str) -> Routed<'a, 'h> {
    // Without a dot it is in no zone.
    let (label, zone) = split(host).unwrap_or((host, ""));
    // No service's name holds `--`, so what does and names no release cannot be one.
    let named = label.split_once("--").and_then(|(release, service)| Some((release_number(release)?, service)));
    let (number, service) = named.map_or((None, label), |(number, service)| (Some(number), service));
    let Place { stage, shape, guarded, asking } = snapshot.place(zone, service);
    let release = match number {
        None => Release::Any,
        Some(number) => match shape.backend(number) {
            Some(backend) if stage.is_some() => Release::One(backend),
            _ => Release::Missing(number),
        },
    };
    Routed { stage, shape, guarded, asking, service, release }
}

/// The first label and the rest.
fn split(host: &str) -> Option<(&str, &str)> {
    let at = memchr::memchr(b'.', host.as_bytes())?;
    Some((&host[..at], &host[at + 1..]))
}

/// `r42` without allocating: the same grammar as `api::ReleaseNumber`.
fn release_number(label: &str) -> Option<u32> {
    let digits = label.strip_prefix('r').filter(|digits| !digits.starts_with(['0', '+']))?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::fixture;

    #[test]
    fn hosts_lead_to_stages_and_releases_and_nowhere_else() {
        let snapshot = fixture::snapshot(&[
            fixture::zone("staging", "staging.example.com"),
            fixture::zone("staging", "s.example.org"),
            fixture::stage("hello/staging", &[41, 42]),
            fixture::split("hello/staging", &[(41, 1), (42, 1)]),
            fixture::stage("other/production", &[1]),
        ]);
        let found = |host: &str| {
            let routed = route(&snapshot, host);
            let stage = routed.stage.filter(|_| !matches!(routed.release, Release::Missing(_)))?;
            Some((stage.text.to_string(), routed.number()))
        };
        let stage = Some(("hello/staging".to_owned(), None));
        for (host, expected) in [
            ("hello.staging.example.com", stage.clone()),
            ("hello.s.example.org", stage),
            ("r42--hello.staging.example.com", Some(("hello/staging".to_owned(), Some(42)))),
            ("r43--hello.staging.example.com", None),
            ("r042--hello.staging.example.com", None),
            ("r+42--hello.staging.example.com", None),
            ("r0--hello.staging.example.com", None),
            ("42--hello.staging.example.com", None),
            ("r42--r42--hello.staging.example.com", None),
            ("--hello.staging.example.com", None),
            ("hello", None),
            ("hello.", None),
            (".staging.example.com", None),
            ("staging.example.com", None),
            ("a.hello.staging.example.com", None),
            ("hello.example.com", None),
            // The environment of `other` has no zone.
            ("other.staging.example.com", None),
            ("", None),
        ] {
            assert_eq!(found(host), expected, "{host}");
        }
    }
}
