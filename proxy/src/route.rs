//! Host to stage: `<service>.<zone>` is the stage, `r<N>--<service>.<zone>` one release in it.
//!
//! Must not know: headers, paths, connections, or who asks. An unknown host has no stage, and nothing else tells it
//! apart: no backend is touched.
//!
//! Main type: [`Routed`].

use std::sync::Arc;

use certs::client::Clients;

use crate::snapshot::{Backend, Https, Snapshot, Stage};

/// Where a host leads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Routed<'a> {
    pub(crate) stage: &'a Stage,
    /// The host named one release; `None`: whatever the weights say.
    pub(crate) release: Option<&'a Backend>,
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

/// The stage of a host in normal form (lower case, no port, no dot at the end); `None` when it is unknown.
pub(crate) fn route<'a>(snapshot: &'a Snapshot, host: &str) -> Option<Routed<'a>> {
    let (label, zone) = split(host)?;
    // No service's name holds `--`, so what does cannot be one.
    let (release, service) = match label.as_bytes().windows(2).position(|two| two == b"--") {
        Some(at) => (Some(release_number(&label[..at])?), &label[at + 2..]),
        None => (None, label),
    };
    let stage = snapshot.stage(zone, service)?;
    match release {
        None => Some(Routed { stage, release: None }),
        Some(number) => stage.backend(number).map(|backend| Routed { stage, release: Some(backend) }),
    }
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
            route(&snapshot, host).map(|routed| (routed.stage.text.to_string(), routed.release.map(|b| b.release)))
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
