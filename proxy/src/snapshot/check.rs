//! What a resource must be on its own: decoded, named properly, within bounds.
//!
//! Must not know: other resources; those are compared where a stage is compiled.

use std::collections::HashSet;
use std::net::SocketAddr;

use api::fleet::{self, Rejection};
use api::{EnvironmentName, Host, ReleaseNumber, StageName, Weight};
use certs::endpoint::{Authorities, server_name, spiffe_id};
use certs::resolver::Certified;
use certs::secret::{key_id, ticket_id};
use certs::tickets::{NAME_BYTES, TicketKeys};
use prost::Message;

use super::guard;
use super::placing;
use super::resources::{Kind, Raw};
use crate::keyring::Keyring;
use crate::split::Split;

/// Most backends of a stage. Releases stay warm beside those with weight for as long as people ask for: a release every
/// ten minutes, kept for four weeks. More is a mistake, and each costs memory in every worker.
const MOST_BACKENDS: usize = 4_096;

/// Most names of a certificate; authorities stop at 100.
const MOST_NAMES: usize = 1_000;
/// Most keys of tickets beside the current one: the one before, the next one, and some more.
const MOST_ACCEPTED: usize = 8;
/// Most certificates of a chain: what clients accept at the most.
const MOST_CHAIN: usize = 10;

/// Collects what is wrong, each with its place.
pub(super) struct Problems<'a> {
    pub(super) list: &'a mut Vec<Rejection>,
    pub(super) kind: Kind,
    pub(super) name: &'a str,
}

impl Problems<'_> {
    pub(super) fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        let resource = format!("{} {}", self.kind.as_str(), self.name);
        self.list.push(Rejection { resource, field: field.into(), reason: reason.into() });
    }

    fn decode<M: Message + Default>(&mut self, raw: &Raw) -> Option<M> {
        M::decode(raw.body.clone()).map_err(|error| self.add("body", format!("cannot be decoded: {error}"))).ok()
    }
}

/// A body that is read for the first time.
pub(super) fn decode<M: Message + Default>(raw: &Raw, problems: &mut Problems<'_>) -> Option<M> {
    problems.decode(raw)
}

/// A body that was found good before.
pub(super) fn read<M: Message + Default>(raw: &Raw) -> Option<M> {
    M::decode(raw.body.clone()).ok()
}

pub(super) fn zone(raw: &Raw, problems: &mut Problems<'_>) -> Option<fleet::Zone> {
    let zone: fleet::Zone = problems.decode(raw)?;
    if let Err(wrong) = zone.environment.parse::<EnvironmentName>() {
        problems.add("environment", wrong.to_string());
    }
    if let Err(wrong) = zone.domain.parse::<Host>() {
        problems.add("domain", wrong.to_string());
    }
    if zone.domain != problems.name {
        problems.add("domain", format!("is {:?}, not the resource's name", zone.domain));
    }
    let port = zone.https.as_ref().map_or(0, |https| https.redirect_port);
    if u16::try_from(port).is_err() {
        problems.add("https.redirect_port", format!("{port} is no port"));
    }
    Some(zone)
}

pub(super) fn stage(raw: &Raw, problems: &mut Problems<'_>) -> Option<fleet::Stage> {
    let stage: fleet::Stage = problems.decode(raw)?;
    match problems.name.parse::<StageName>() {
        Err(wrong) => problems.add("name", wrong.to_string()),
        Ok(name) => {
            if name.service.as_str() != stage.service || name.environment.as_str() != stage.environment {
                problems.add("service", format!("{}/{} is not the resource's name", stage.service, stage.environment));
            }
        }
    }
    for (place, origin) in stage.cors_origins.iter().enumerate() {
        // It goes into answers as it is.
        if !origin.bytes().all(|b| (0x21..=0x7e).contains(&b)) || origin.is_empty() {
            problems.add(format!("cors_origins[{place}]"), format!("{origin:?} is not an origin"));
        }
    }
    let count = stage.backends.len();
    if count > MOST_BACKENDS {
        problems.add("backends", format!("there are {count}, at most {MOST_BACKENDS} are accepted"));
    }
    let mut releases = HashSet::with_capacity(count.min(MOST_BACKENDS));
    for (place, backend) in stage.backends.iter().enumerate().take(MOST_BACKENDS) {
        let field = |name: &str| format!("backends[{place}].{name}");
        if backend.release == 0 || !releases.insert(backend.release) {
            problems.add(field("release"), format!("{} is 0 or stands twice", backend.release));
        }
        match backend.protocol() {
            fleet::Protocol::H1 | fleet::Protocol::H2c if backend.tls.is_some() => {
                problems.add(field("tls"), "is there, but the protocol is one in clear");
            }
            fleet::Protocol::H1 | fleet::Protocol::H2c => {}
            fleet::Protocol::H1Tls | fleet::Protocol::H2Tls => tls(backend.tls.as_ref(), &field("tls"), problems),
            fleet::Protocol::Unspecified => {
                let known = "is none of H1 (1), H2C (2), H1_TLS (3) and H2_TLS (4)";
                problems.add(field("protocol"), format!("{} {known}", backend.protocol));
            }
        }
        health(backend.health.as_ref(), &field("health"), problems);
    }
    Some(stage)
}

fn tls(tls: Option<&fleet::EndpointTls>, field: &str, problems: &mut Problems<'_>) {
    let Some(tls) = tls else {
        problems.add(field, "is missing, and the protocol is one through TLS");
        return;
    };
    if let Err(wrong) = server_name(&tls.server_name) {
        problems.add(format!("{field}.server_name"), wrong.to_string());
    }
    if !tls.spiffe_id.is_empty()
        && let Err(wrong) = spiffe_id(&tls.spiffe_id)
    {
        problems.add(format!("{field}.spiffe_id"), wrong.to_string());
    }
    if !tls.ca_pem.is_empty()
        && let Err(wrong) = Authorities::parse(&tls.ca_pem)
    {
        problems.add(format!("{field}.ca_pem"), wrong.to_string());
    }
}

fn health(check: Option<&fleet::HealthCheck>, field: &str, problems: &mut Problems<'_>) {
    let Some(check) = check else { return };
    let path = &check.http_path;
    let is_path = path.starts_with('/') && path.bytes().all(|b| (0x21..=0x7e).contains(&b));
    if !path.is_empty() && !is_path {
        problems.add(format!("{field}.http_path"), format!("{path:?} is not a path that begins with /"));
    }
}

pub(super) fn split(raw: &Raw, problems: &mut Problems<'_>) -> Option<fleet::Split> {
    let split: fleet::Split = problems.decode(raw)?;
    if let Err(wrong) = problems.name.parse::<StageName>() {
        problems.add("name", wrong.to_string());
    }
    let mut releases = HashSet::new();
    for (place, entry) in split.weights.iter().enumerate().take(MOST_BACKENDS) {
        if Weight::new(entry.weight).is_none() {
            problems.add(format!("weights[{place}].weight"), format!("{} is more than 1000000", entry.weight));
        }
        if !releases.insert(entry.release) {
            problems.add(format!("weights[{place}].release"), format!("r{} stands twice", entry.release));
        }
    }
    if split.weights.len() > MOST_BACKENDS {
        let count = split.weights.len();
        problems.add("weights", format!("there are {count}, at most {MOST_BACKENDS} are accepted"));
    }
    match split.weights.iter().filter(|entry| entry.weight > 0).count() {
        0 if !split.weights.is_empty() => problems.add("weights", "all are 0"),
        weighted if weighted > Split::MOST => {
            problems.add("weights", format!("{weighted} are above 0, at most {} may be", Split::MOST));
        }
        _ => {}
    }
    guard::check(split.guard.as_ref(), problems);
    placing::check(&split, problems);
    Some(split)
}

pub(super) fn endpoints(raw: &Raw, problems: &mut Problems<'_>) -> Option<Vec<SocketAddr>> {
    let endpoints: fleet::Endpoints = problems.decode(raw)?;
    if stage_of_endpoints(problems.name).is_none() {
        problems.add("name", format!("{:?} is not SERVICE/ENVIRONMENT/rNUMBER", problems.name));
    }
    let mut addresses = Vec::with_capacity(endpoints.endpoints.len());
    for (place, endpoint) in endpoints.endpoints.iter().enumerate() {
        match endpoint.address.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => addresses.push(address),
            _ => problems.add(
                format!("endpoints[{place}].address"),
                format!("{:?} is not an IP address and port such as \"10.0.0.7:8080\"", endpoint.address),
            ),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    Some(addresses)
}

/// "hello/staging/r42" to "hello/staging" and 42.
pub(super) fn stage_of_endpoints(name: &str) -> Option<(&str, u32)> {
    let (stage, release) = name.rsplit_once('/')?;
    stage.parse::<StageName>().ok()?;
    Some((stage, release.parse::<ReleaseNumber>().ok()?.number()))
}

/// The keys of tickets, with `missing` as for certificates.
pub(super) fn tickets(
    raw: &Raw,
    keyring: &Keyring,
    problems: &mut Problems<'_>,
    missing: &mut Problems<'_>,
) -> Option<Keyed<TicketKeys>> {
    let tickets: fleet::Tickets = problems.decode(raw)?;
    let before = problems.list.len();
    if problems.name != "tickets" {
        problems.add("name", "is not \"tickets\": there is one of these");
    }
    let accepted = tickets.accepted.len();
    if accepted > MOST_ACCEPTED {
        problems.add("accepted", format!("there are {accepted}, at most {MOST_ACCEPTED} are accepted"));
    }
    let (mut keys, mut secrets) = (Vec::new(), Vec::new());
    let all = tickets.accepted.iter().take(MOST_ACCEPTED).enumerate();
    let all = all.map(|(place, name)| (format!("accepted[{place}]"), name));
    for (field, name) in std::iter::once(("current".to_owned(), &tickets.current)).chain(all) {
        if name.len() != NAME_BYTES {
            problems.add(field, format!("has {} bytes, not {NAME_BYTES}", name.len()));
            continue;
        }
        let id = ticket_id(name);
        match keyring.get(&id) {
            Some(key) => keys.push((name.as_slice(), key)),
            None => missing.add(field, "its key did not come, or is not sealed for this proxy"),
        }
        secrets.push(id);
    }
    if problems.list.len() > before {
        return None;
    }
    // All or none: with the current one missing, tickets would be made with a key that others may not know yet.
    let made = if keys.len() == secrets.len() { TicketKeys::new(keys).ok() } else { None };
    Some(Keyed { made, secrets })
}

/// What a resource became, and the secrets that it names. Without what it became: one of them did not come.
#[derive(Debug, Clone)]
pub(super) struct Keyed<T> {
    pub(super) made: Option<T>,
    pub(super) secrets: Vec<String>,
}

/// A certificate with its key. That the key did not come is told to `missing`, all else to `problems`.
pub(super) fn certificate(
    raw: &Raw,
    keyring: &Keyring,
    problems: &mut Problems<'_>,
    missing: &mut Problems<'_>,
) -> Option<Keyed<Certified>> {
    let certificate: fleet::Certificate = problems.decode(raw)?;
    let before = problems.list.len();
    // Several environments may have certificates for one name: theirs are told apart by what stands before it.
    let own = problems.name.rsplit_once('/').map_or(problems.name, |(_, own)| own);
    if certificate.dns_names.first().map(String::as_str) != Some(own) {
        problems.add("dns_names", "the first is not the resource's name");
    }
    let (names, chain) = (certificate.dns_names.len(), certificate.chain_der.len());
    if names > MOST_NAMES {
        problems.add("dns_names", format!("there are {names}, at most {MOST_NAMES} are accepted"));
    }
    if chain > MOST_CHAIN {
        problems.add("chain_der", format!("there are {chain}, at most {MOST_CHAIN} are accepted"));
    }
    for (place, name) in certificate.dns_names.iter().enumerate().take(MOST_NAMES) {
        if let Err(wrong) = name.strip_prefix("*.").unwrap_or(name).parse::<Host>() {
            problems.add(format!("dns_names[{place}]"), wrong.to_string());
        }
    }
    if !certificate.zone.is_empty()
        && let Err(wrong) = certificate.zone.parse::<Host>()
    {
        problems.add("zone", wrong.to_string());
    }
    let (key_der, secrets) = if certificate.key_der.is_empty() {
        let leaf = certificate.chain_der.first().map(Vec::as_slice).unwrap_or_default();
        let id = key_id(leaf).map_err(|wrong| problems.add("chain_der[0]", wrong.to_string())).ok()?;
        let Some(key) = keyring.get(&id) else {
            missing.add("key_der", "is empty, and its key did not come, or is not sealed for this proxy");
            return Some(Keyed { made: None, secrets: vec![id] });
        };
        (key, vec![id])
    } else {
        (&*certificate.key_der, Vec::new())
    };
    let made = Certified::parse(&certificate.dns_names, &certificate.chain_der, key_der)
        .map_err(|wrong| problems.add("key_der", wrong.to_string()))
        .ok()?;
    let is_good = problems.list.len() == before;
    is_good.then(|| Keyed { made: Some(made.for_zone(&certificate.zone)), secrets })
}
