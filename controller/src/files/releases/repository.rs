//! Repositories whose services register themselves: `[repository.NAME]`.

use std::collections::BTreeMap;

use api::MemberName;

use crate::core::spec::{GitCredentials, REPOSITORY_FILES_MOST, RepositorySpec, WebhookKind, WebhookSpec};
use crate::files::source::{branch, check_repository};
use crate::files::value::stays_within;
use crate::files::walk::{Section, Walk, shown};

use super::secret::{basic, reference};

const KEYS: [&str; 6] = ["url", "branch", "files", "credentials", "webhook", "services"];
const KINDS: [(&str, WebhookKind); 2] = [("github", WebhookKind::Github), ("signed", WebhookKind::Signed)];

/// What describes a service when nobody says otherwise.
const FILE: &str = "pointsman.toml";
/// Longest path.
const PATH_BYTES: usize = 256;
/// Each is looked at every minute or so.
const REPOSITORIES_MOST: usize = 256;

/// Reads all of them.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> BTreeMap<MemberName, RepositorySpec> {
    let sections = root.named::<MemberName>(walk, "repository");
    if sections.len() > REPOSITORIES_MOST {
        let message = format!("there are {} repositories: accepted are at most {REPOSITORIES_MOST}", sections.len());
        walk.wrong(root.place("repository"), message);
        return BTreeMap::new();
    }
    let (mut repositories, mut by_url) = (BTreeMap::new(), BTreeMap::<String, MemberName>::new());
    for (name, section) in sections {
        let Some(repository) = repository(walk, &section) else { continue };
        if let Some(other) = by_url.insert(repository.url.clone(), name.clone()) {
            let message = format!("[repository.{other}] is {} already: list its files there", shown(&repository.url));
            walk.wrong(section.place("url"), message);
        }
        repositories.insert(name, repository);
    }
    repositories
}

fn repository(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<RepositorySpec> {
    section.check_keys(walk, &KEYS, &[]);
    let url = url(walk, section);
    let branch = branch(walk, section);
    let files = files(walk, section);
    let credentials = credentials(walk, section, url.as_deref());
    let webhook = webhook(walk, section);
    let services = super::services(walk, section);
    Some(RepositorySpec { url: url?, branch, files, credentials, webhook, services })
}

fn url(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    if !section.require(walk, "url") {
        return None;
    }
    let (url, at) = section.text(walk, "url")?;
    if let Err(why) = check_repository(&url) {
        walk.wrong(at, format!("`url`: {why}"));
        return None;
    }
    Some(url)
}

fn files(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(given) = section.list(walk, "files") else { return vec![FILE.to_owned()] };
    if given.is_empty() || given.len() > REPOSITORY_FILES_MOST {
        let message = format!("`files` names {} files: accepted are 1 to {REPOSITORY_FILES_MOST}", given.len());
        walk.wrong(section.place("files"), message);
        return Vec::new();
    }
    let mut files: Vec<String> = Vec::new();
    for (file, at) in given {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        let plain = |part: &str| !part.is_empty() && part != ".";
        let is_path = stays_within(&file) && file.bytes().all(good) && file.split('/').all(plain);
        if !is_path || file.len() > PATH_BYTES {
            let message = "is not a file of the repository: accepted is a relative path of letters, digits, \".\", \"_\", \"-\" \
                           and \"/\" without \"..\", such as \"ui/pointsman.toml\"";
            walk.wrong(at, format!("\"{}\" {message}", shown(&file)));
        } else if files.contains(&file) {
            walk.wrong(at, format!("`files` names \"{}\" twice", shown(&file)));
        }
        files.push(file);
    }
    files
}

/// `credentials = { user = "bot", password = { file = "/path" } }`.
fn credentials(walk: &mut Walk<'_>, section: &Section<'_>, url: Option<&str>) -> Option<GitCredentials> {
    let given = section.section(walk, "credentials", "`credentials`")?;
    given.check_keys(walk, &["user", "password"], &[]);
    if given.entries().next().is_none() {
        let message = "`credentials` say nothing: accepted is { user = \"bot\", password = { file = \"/path\" } }";
        walk.missing(given.at, message);
    }
    if url.is_some_and(|url| !is_safe(url)) {
        let message = "`credentials` are for https, and for http on this machine: over ssh the key of the controller's user \
                       counts, and in clear everybody on the way would have them";
        walk.wrong(section.place("credentials"), message);
    }
    let (user, password) = basic(walk, &given)?;
    Some(GitCredentials { user, password })
}

/// Whether a password can go there: through TLS, or to this machine.
fn is_safe(url: &str) -> bool {
    let uri = url.parse::<http::Uri>().ok();
    let host = uri.as_ref().and_then(http::Uri::host).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.starts_with("https://") || (url.starts_with("http://") && is_here)
}

/// `webhook = { kind = "github", secret = { file = "/path" } }`.
fn webhook(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<WebhookSpec> {
    let section = section.section(walk, "webhook", "`webhook`")?;
    section.check_keys(walk, &["kind", "secret"], &[]);
    let there = (section.require(walk, "kind"), section.require(walk, "secret"));
    let kind = section.word(walk, "kind", "a kind of webhook", &KINDS);
    let secret = reference(walk, &section, "secret");
    if there == (true, true) { Some(WebhookSpec { kind: kind?, secret: secret? }) } else { None }
}
