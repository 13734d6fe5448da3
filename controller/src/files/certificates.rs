//! Certificates in an environment's file (`tls`), and which ones clients may show (`client_certificates`).

use std::path::Path;

use certs::endpoint::Authorities;

use crate::core::resources::client_certificates;
use crate::core::spec::{
    ACME_DIRECTORY, AcmeSpec, CertificateSource, ChallengeSpec, ClientCertificates, ExternalAccount, HOOK_TIMEOUT,
};

use super::tls::ca;
use super::walk::{Section, Walk, nearest, shown};

const SOURCES: [&str; 4] = ["development", "files", "acme", "imported"];
const CHALLENGES: [&str; 3] = ["dns-01", "http-01", "tls-alpn-01"];

/// Reads `tls = { source = ... }` of an environment.
pub(super) fn source(walk: &mut Walk<'_>, root: &Section<'_>) -> CertificateSource {
    let Some(section) = root.section(walk, "tls", "`tls`") else { return CertificateSource::default() };
    if !section.require(walk, "source") {
        return CertificateSource::default();
    }
    let Some((source, at)) = section.text(walk, "source") else { return CertificateSource::default() };
    match source.as_str() {
        "development" | "imported" => {
            section.check_keys(walk, &["source"], &[]);
            if source == "imported" { CertificateSource::Imported } else { CertificateSource::Development }
        }
        "files" => {
            section.check_keys(walk, &["source", "chain", "key"], &[]);
            let mut path = |key| if section.require(walk, key) { section.machine_path(walk, key) } else { None };
            let (chain, key) = (path("chain"), path("key"));
            chain.zip(key).map(|(chain, key)| CertificateSource::Files { chain, key }).unwrap_or_default()
        }
        "acme" => acme(walk, &section).map(CertificateSource::Acme).unwrap_or_default(),
        other => {
            let near = nearest(other, &SOURCES).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            let message = format!("\"{}\" is not a source of certificates{near}", shown(other));
            walk.wrong(at, format!("{message} (accepted: \"{}\")", SOURCES.join("\", \"")));
            CertificateSource::default()
        }
    }
}

fn acme(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<AcmeSpec> {
    let accepted =
        ["source", "directory", "contact", "ca", "challenge", "hook", "hook_timeout", "profile", "external_account"];
    section.check_keys(walk, &accepted, &[]);
    let directory = url(walk, section, "directory", "https://").unwrap_or_else(|| ACME_DIRECTORY.to_owned());
    let contact = section.list(walk, "contact").unwrap_or_default();
    for (one, at) in contact.iter().filter(|(one, _)| !one.starts_with("mailto:")) {
        walk.wrong(*at, format!("\"{}\" is nobody to write to: accepted is \"mailto:ops@example.com\"", shown(one)));
    }
    let contact = contact.into_iter().map(|(one, _)| one).collect();
    let ca = ca(walk, section);
    let profile = section.text(walk, "profile").map(|(profile, _)| profile);
    let external_account = external_account(walk, section);
    let challenge = challenge(walk, section)?;
    Some(AcmeSpec { directory, contact, ca, challenge, profile, external_account })
}

fn challenge(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<ChallengeSpec> {
    let written = section.text(walk, "challenge");
    let (word, at) = written.unwrap_or_else(|| ("dns-01".to_owned(), section.place("source")));
    let other = match word.as_str() {
        "dns-01" => return dns(walk, section),
        "http-01" => Some(ChallengeSpec::Http),
        "tls-alpn-01" => Some(ChallengeSpec::TlsAlpn),
        other => {
            let near =
                nearest(other, &CHALLENGES).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
            let message = format!("\"{}\" is not a challenge{near}", shown(other));
            walk.wrong(at, format!("{message} (accepted: \"{}\")", CHALLENGES.join("\", \"")));
            None
        }
    };
    for key in ["hook", "hook_timeout"].into_iter().filter(|key| section.has(key)) {
        walk.wrong(section.place(key), format!("`{key}` is for the challenge \"dns-01\" only"));
    }
    other
}

fn dns(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<ChallengeSpec> {
    if !section.has("hook") {
        walk.missing(
            section.at,
            "a certificate for the whole zone is proved by DNS: `tls` needs `hook = [\"/path/of/a/program\"]`, which sets and \
             removes a TXT record, or `challenge = \"http-01\"` for the hosts of public stages alone",
        );
        return None;
    }
    let timeout = section.parsed(walk, "hook_timeout").unwrap_or(HOOK_TIMEOUT);
    let hook = section.command(walk, "hook")?;
    if !hook.first().is_some_and(|program| Path::new(program).is_absolute()) {
        let message = "`hook` begins with the absolute path of a program on the controller's machine";
        walk.wrong(section.place("hook"), message);
    }
    Some(ChallengeSpec::Dns { hook, timeout })
}

fn external_account(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<ExternalAccount> {
    let section = section.section(walk, "external_account", "`external_account`")?;
    section.check_keys(walk, &["id", "key_file"], &[]);
    let (id, key) = (section.require(walk, "id"), section.require(walk, "key_file"));
    if !(id && key) {
        return None;
    }
    let id = section.text(walk, "id").map(|(id, _)| id);
    let key_file = section.machine_path(walk, "key_file");
    Some(ExternalAccount { id: id?, key_file: key_file? })
}

/// Reads `client_certificates = { ca = """PEM""", crl_file = "/path", required = true }`.
pub(super) fn clients(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<ClientCertificates> {
    let section = section.section(walk, "client_certificates", "`client_certificates`")?;
    section.check_keys(walk, &["ca", "crl_file", "required"], &[]);
    let given = section.require(walk, "ca").then(|| ca(walk, &section)).flatten();
    let crl_file = section.has("crl_file").then(|| section.machine_path(walk, "crl_file")).flatten();
    let required = section.boolean(walk, "required").unwrap_or(true);
    let ca = given.filter(|text| Authorities::parse(text).is_ok())?;
    let clients = ClientCertificates { ca, crl_file, required };
    if let Err(problem) = certs::client::check(&client_certificates(&clients)) {
        walk.wrong(section.place("ca"), format!("`ca` cannot be used: {problem}"));
    }
    Some(clients)
}

fn url(walk: &mut Walk<'_>, section: &Section<'_>, key: &str, scheme: &str) -> Option<String> {
    let (text, at) = section.text(walk, key)?;
    let parsed = text.parse::<http::Uri>().ok().filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
    if parsed.is_none() || !text.starts_with(scheme) {
        walk.wrong(at, format!("`{key}` is a URL that begins with {scheme}, not \"{}\"", shown(&text)));
        return None;
    }
    Some(text)
}
