//! The stages of a service and the graph that their `from` makes.

use std::collections::BTreeMap;

use api::{EnvironmentName, Host};
use toml::de::DeValue;

use crate::core::spec::StageSpec;

use super::walk::{Section, Walk, nearest, shown};
use super::{access, certificates, rollout};

const KEYS: [&str; 7] = ["from", "keep_warm", "cors", "public", "client_certificates", "denial", "credentials"];
const LATER: [&str; 4] = ["enter", "approvals", "windows", "at_close"];

/// Most origins of a stage.
const CORS_MOST: usize = 32;
/// Most stages of a cycle that are named.
const MOST_TOLD: usize = 20;

/// A stage and the places of what it comes from.
type Sources = BTreeMap<EnvironmentName, Vec<(EnvironmentName, usize)>>;

/// Reads all `[stage.NAME]` and checks their graph.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> BTreeMap<EnvironmentName, StageSpec> {
    let (mut stages, mut sources) = (BTreeMap::new(), Sources::new());
    for (name, section) in root.named::<EnvironmentName>(walk, "stage") {
        section.check_keys(walk, &[&KEYS[..], &rollout::KEYS].concat(), &LATER);
        let keep_warm = section.parsed(walk, "keep_warm");
        let cors = cors(walk, &section);
        let from = from(walk, &section);
        let public = section.boolean(walk, "public").unwrap_or(false);
        let client_certificates = certificates::clients(walk, &section);
        if section.has("client_certificates") && !public {
            let message = "`client_certificates` of a single stage show that it exists, to whoever begins a handshake: \
                           accepted beside `public = true`; those of an environment are for all its hosts alike";
            walk.wrong(section.place("client_certificates"), message);
        }
        let (denial, credentials) = (access::denial(walk, &section), access::credentials(walk, &section));
        for key in ["denial", "credentials"].into_iter().filter(|key| public && section.has(key)) {
            let message = format!("`{key}` is for those who need to be let in: beside `public = true` nobody does");
            walk.wrong(section.place(key), message);
        }
        let names = from.iter().map(|(from, _)| from.clone()).collect();
        let rollout = rollout::read(walk, &section);
        let stage =
            StageSpec { from: names, keep_warm, cors, public, client_certificates, denial, credentials, rollout };
        stages.insert(name.clone(), stage);
        sources.insert(name, from);
    }
    check_known(walk, &sources);
    for cycle in cycles(&sources) {
        let mut names: Vec<&str> = cycle.path.iter().map(|name| name.as_str()).collect();
        if names.len() > MOST_TOLD {
            names.splice(MOST_TOLD - 1..names.len() - 1, ["…"]);
        }
        let message = format!("the stages form a cycle: {}, so that no release could ever enter", names.join(" -> "));
        walk.wrong(cycle.at, message);
    }
    stages
}

/// Origins as browsers write them (RFC 6454 §6.2): compared byte by byte, so only that form is accepted.
fn cors(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let origins = section.list(walk, "cors").unwrap_or_default();
    if origins.len() > CORS_MOST {
        walk.wrong(section.place("cors"), format!("`cors` has {} origins: accepted are {CORS_MOST}", origins.len()));
    }
    for (origin, at) in &origins {
        if !is_origin(origin) {
            let message =
                "is not an origin: accepted is a scheme, a host in lower case and a port unless it is the usual";
            walk.wrong(*at, format!("\"{}\" {message}, such as \"https://app.example.com\"", shown(origin)));
        }
    }
    origins.into_iter().map(|(origin, _)| origin).collect()
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let usual = if scheme == "https" { 443 } else { 80 };
    let port =
        port.is_none_or(|port| port.parse::<u16>().is_ok_and(|number| number != usual && number.to_string() == port));
    let host = host.parse::<Host>().is_ok_and(|parsed| parsed.as_str() == host);
    matches!(scheme, "https" | "http") && host && port
}

/// One name or a list of names; a repeated one is a mistake.
fn from(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<(EnvironmentName, usize)> {
    let texts = match section.value("from").map(|value| value.get_ref()) {
        None => return Vec::new(),
        Some(DeValue::String(_)) => section.text(walk, "from").into_iter().collect(),
        Some(_) => section.list(walk, "from").unwrap_or_default(),
    };
    let mut names: Vec<(EnvironmentName, usize)> = Vec::new();
    for (text, at) in texts {
        match text.parse::<EnvironmentName>() {
            Ok(name) if names.iter().any(|(other, _)| *other == name) => {
                walk.wrong(at, format!("`from` names \"{name}\" twice"));
            }
            Ok(name) => names.push((name, at)),
            Err(error) => walk.wrong(at, format!("`from`: {error}")),
        }
    }
    names
}

fn check_known(walk: &mut Walk<'_>, sources: &Sources) {
    // The list of a thousand stages helps nobody.
    let known: Vec<&str> = sources.keys().take(20).map(EnvironmentName::as_str).collect();
    for (name, from) in sources.values().flatten().filter(|(name, _)| !sources.contains_key(name)) {
        let near = nearest(name.as_str(), &known).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
        let list = known.join(", ");
        let message =
            format!("`from` names the stage \"{}\", which this file does not have{near}", shown(name.as_str()));
        walk.missing(*from, format!("{message} (it has: {list})"));
    }
}

/// A way through the graph that ends where it began.
struct Cycle<'s> {
    path: Vec<&'s EnvironmentName>,
    /// Where the `from` stands that closes it.
    at: usize,
}

/// One cycle for each edge that closes one, found depth first and without recursion: the file may have many stages.
fn cycles(sources: &Sources) -> Vec<Cycle<'_>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        OnPath(usize),
        Done,
    }
    let (mut seen, mut cycles) = (BTreeMap::new(), Vec::new());
    for start in sources.keys() {
        if seen.contains_key(start) {
            continue;
        }
        let mut path = vec![(start, 0)];
        seen.insert(start, Seen::OnPath(0));
        while let Some((stage, next)) = path.last_mut() {
            let stage = *stage;
            let Some((from, at)) = sources.get(stage).and_then(|from| from.get(*next)) else {
                seen.insert(stage, Seen::Done);
                path.pop();
                continue;
            };
            *next += 1;
            match seen.get(from) {
                Some(Seen::Done) => {}
                Some(Seen::OnPath(depth)) => {
                    // `from` points against the way of a release: told the other way round.
                    let mut names: Vec<_> = path[*depth..].iter().map(|(name, _)| *name).rev().collect();
                    names.push(names[0]);
                    cycles.push(Cycle { path: names, at: *at });
                }
                None => {
                    seen.insert(from, Seen::OnPath(path.len()));
                    path.push((from, 0));
                }
            }
        }
    }
    cycles
}
