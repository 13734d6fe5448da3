//! Certificates as people see them: a list with who serves each, and what they should be warned of.
//!
//! Must not know: who asks.

use std::time::{Duration, SystemTime};

use api::operator::Certificate;
use api::{EnvironmentName, Span};
use certs::describe::Description;
use certs::development::Material;

use super::keeper::{Standing, ms};
use crate::core::spec::{CertificateSource, EnvironmentSpec};
use crate::engine::Engine;

/// Who signs development certificates.
const DEVELOPMENT_ISSUER: &str = "Pointsman development CA";
/// Development certificates are renewed so long before their end (see the development authority).
const DEVELOPMENT_RENEWS: Duration = Duration::from_secs(30 * 86_400);
/// People are warned when less than this is left, or a tenth of the lifetime if that is shorter.
const WARN: Duration = Duration::from_secs(7 * 86_400);

/// The certificates of an environment at `now`; with `chain` also what they are.
pub(crate) fn of_environment(
    engine: &Engine,
    name: &EnvironmentName,
    chain: bool,
    now: SystemTime,
) -> Vec<Certificate> {
    let Some(spec) = engine.state.environments.get(name) else { return Vec::new() };
    let certificates = engine.publisher.certificates();
    let source = spec.certificates.name();
    let own = certificates.own(&engine.state, name);
    let standing = certificates.standing(name, &spec.certificates);
    let served = certificates.served(&engine.state, name, now);
    let mut told: Vec<Certificate> = served
        .iter()
        .filter_map(|material| {
            let is_own = own.contains(material);
            let mut told = certificate(engine, name, material, chain)?;
            let is_development = told.issuer.contains(DEVELOPMENT_ISSUER);
            told.source = match (is_own, is_development) {
                (true, _) => source.to_owned(),
                (false, true) => "development".to_owned(),
                (false, false) => "the source before".to_owned(),
            };
            told.renews_ms = match (is_own, &spec.certificates) {
                (true, CertificateSource::Acme(_)) => standing.renews_ms,
                (true, _) => 0,
                (false, _) if !is_development => 0,
                (false, _) => {
                    told.expires_ms.saturating_sub(u64::try_from(DEVELOPMENT_RENEWS.as_millis()).unwrap_or(0))
                }
            };
            Some(told)
        })
        .collect();
    if own.is_empty() && spec.certificates != CertificateSource::Development {
        told.insert(0, missing(spec, &standing));
    }
    if let Some(first) = told.iter_mut().find(|one| one.source == source) {
        (first.problem, first.failed_ms) = (standing.problem.clone(), standing.failed_ms);
    }
    told
}

/// One that should be there and is not.
fn missing(spec: &EnvironmentSpec, standing: &Standing) -> Certificate {
    let (environment, source) = (spec.name.to_string(), spec.certificates.name().to_owned());
    let names = vec![format!("*.{}", spec.zone)];
    Certificate { environment, source, names, renews_ms: standing.renews_ms, ..Certificate::default() }
}

fn certificate(engine: &Engine, name: &EnvironmentName, material: &Material, chain: bool) -> Option<Certificate> {
    let leaf = Description::of(material.chain_der.first()?).ok()?;
    let resource = format!("{name}/{}", material.dns_names.first()?);
    let since = engine.publisher.since_of("certificate", &resource);
    let standings = since.map(|since| engine.fleet.standings(since)).unwrap_or_default();
    let (active, lagging): (Vec<_>, Vec<_>) = standings.into_iter().partition(|standing| standing.active_at.is_some());
    let pem = |der: &Vec<u8>| pem::encode(&pem::Pem::new("CERTIFICATE", der.clone()));
    Some(Certificate {
        environment: name.to_string(),
        names: material.dns_names.clone(),
        issuer: leaf.issuer,
        serial: leaf.serial,
        not_before_ms: ms(leaf.not_before),
        expires_ms: ms(leaf.not_after),
        active: active.into_iter().map(|standing| standing.name.to_string()).collect(),
        lagging: lagging.into_iter().map(|standing| standing.name.to_string()).collect(),
        sha256: leaf.sha256.hex(),
        key: leaf.key,
        chain_pem: if chain { material.chain_der.iter().map(pem).collect() } else { String::new() },
        ..Certificate::default()
    })
}

/// What an operator should know now, a sentence each.
pub(crate) fn warnings(engine: &Engine, now: SystemTime) -> Vec<String> {
    let certificates = engine.publisher.certificates();
    let mut warnings: Vec<String> = certificates
        .list_problems()
        .map(|(path, problem)| format!("the lists of revoked certificates in {path} stay as they are: {problem}"))
        .collect();
    // Looked at often: nothing is read, and only what is near its end is parsed.
    let others = engine.state.environments.values().filter(|spec| spec.certificates != CertificateSource::Development);
    for spec in others {
        let standing = certificates.standing(&spec.name, &spec.certificates);
        let own = certificates.own(&engine.state, &spec.name);
        let near = |material: &&Material| material.expires_s <= ms(now + WARN) / 1_000;
        let first = own.first().filter(|_| !standing.problem.is_empty());
        let mut worth: Vec<&Material> = own.iter().filter(near).chain(first).collect();
        worth.dedup();
        let told = worth.into_iter().filter_map(|material| certificate(engine, &spec.name, material, false));
        let told = told.chain(own.is_empty().then(|| missing(spec, &standing)));
        warnings.extend(told.enumerate().filter_map(|(place, mut one)| {
            if place == 0 {
                one.problem.clone_from(&standing.problem);
            }
            warning(&one, ms(now))
        }));
    }
    warnings
}

/// What there is to say of one certificate.
fn warning(one: &Certificate, now_ms: u64) -> Option<String> {
    let what = format!("the certificate of {} ({})", one.environment, one.names.first().map_or("", String::as_str));
    let left_ms = one.expires_ms.saturating_sub(now_ms);
    let left = Span::from_ms(left_ms.max(1_000) / 1_000 * 1_000).map(|left| left.to_string()).unwrap_or_default();
    let ends = match one.expires_ms {
        0 => "; until there is one, the development authority's is served".to_owned(),
        expires if expires <= now_ms => "; the one that is served HAS EXPIRED".to_owned(),
        _ => format!("; the one that is served is valid for {left}"),
    };
    if !one.problem.is_empty() {
        let verb = if one.expires_ms == 0 { "had" } else { "renewed" };
        return Some(format!("{what} could not be {verb}: {}{ends}", one.problem));
    }
    let lifetime_ms = one.expires_ms.saturating_sub(one.not_before_ms);
    let soon = u64::try_from(WARN.as_millis()).unwrap_or(u64::MAX).min(lifetime_ms / 10);
    match one.expires_ms {
        0 => Some(format!("{what} is not there yet{ends}")),
        expires if expires <= now_ms => Some(format!("{what} HAS EXPIRED")),
        _ if left_ms < soon => Some(format!("{what} expires in {left}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_warned_of_what_fails_what_expires_and_what_is_missing() {
        const DAY: u64 = 86_400_000;
        let now = 1_000 * DAY;
        let one = |expires_ms: u64, lifetime: u64, problem: &str| Certificate {
            environment: "prod".into(),
            names: vec!["*.example.com".into()],
            not_before_ms: expires_ms.saturating_sub(lifetime),
            expires_ms,
            problem: problem.into(),
            ..Certificate::default()
        };
        for (certificate, expected) in [
            (one(now + 30 * DAY, 90 * DAY, ""), None),
            (one(now + 6 * DAY, 90 * DAY, ""), Some("expires in 6d")),
            // A tenth of its lifetime.
            (one(now + DAY, 6 * DAY, ""), None),
            (one(now + DAY / 2, 6 * DAY, ""), Some("expires in 12h")),
            (one(now - 1, 6 * DAY, ""), Some("HAS EXPIRED")),
            (one(0, 0, ""), Some("is not there yet; until there is one, the development")),
            (
                one(now + 2 * DAY, 6 * DAY, "no"),
                Some("could not be renewed: no; the one that is served is valid for 2d"),
            ),
            (one(now - 1, 6 * DAY, "no"), Some("could not be renewed: no; the one that is served HAS EXPIRED")),
            (one(0, 0, "no"), Some("could not be had: no; until there is one")),
        ] {
            let told = warning(&certificate, now);
            match (&told, expected) {
                (Some(told), Some(expected)) => assert!(told.contains(expected), "{told}, not {expected}"),
                (told, expected) => assert_eq!(told.is_some(), expected.is_some(), "{told:?}, not {expected:?}"),
            }
        }
    }
}
