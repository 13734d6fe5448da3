//! Who issues users' tokens: `[issuer.NAME]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use api::{MemberName, NotAccepted, Span};
use policies::credential::Issuers;

use crate::core::resources;
use crate::core::spec::{
    AttributeRule, AttributeType, GroupMeaning, GroupRule, IssuerSpec, LEEWAY, LEEWAY_MOST, REFRESH, REFRESH_LEAST,
    REFRESH_MOST,
};
use crate::files::tls::not_a_ca;
use crate::files::value::not_one_of;
use crate::files::walk::{Section, Walk, shown};

use super::Files;

const KEYS: [&str; 9] =
    ["issuer", "audience", "algorithms", "jwks", "ca_file", "leeway", "refresh", "groups", "attributes"];
const ALGORITHMS: [&str; 9] = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
const TYPES: [&str; 4] = ["string", "long", "bool", "strings"];

/// Longest URL, name of a claim, audience or group.
const TEXT_BYTES: usize = 1_024;
/// Most rules of one issuer, and most of its audiences.
const RULES_MOST: usize = 256;
/// What users have anyway, and words of Cedar's own.
const RESERVED: [&str; 12] =
    ["issuer", "subject", "client", "true", "false", "if", "then", "else", "in", "is", "like", "has"];

/// Name of an attribute: an identifier of Cedar.
struct AttributeName(String);

impl FromStr for AttributeName {
    type Err = NotAccepted;

    fn from_str(text: &str) -> Result<Self, NotAccepted> {
        let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
        let good = text.bytes().next().is_some_and(letter) && text.bytes().all(|b| letter(b) || b.is_ascii_digit());
        if good && text.len() <= 64 && !RESERVED.contains(&text) && !text.starts_with("__") {
            return Ok(Self(text.to_owned()));
        }
        let accepted = "letters, digits and underscores, none of issuer, subject and client, which every user has, nor a \
                        word of Cedar, such as \"department\"";
        Err(NotAccepted { what: "the name of an attribute", written: shown(text), accepted })
    }
}

/// Reads all of them; false when one of their attributes could not be read.
pub(super) fn read(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    files: &Files<'_, '_>,
) -> (BTreeMap<MemberName, IssuerSpec>, bool) {
    let mut issuers = BTreeMap::new();
    let mut known = BTreeMap::new();
    let mut by_url: BTreeMap<String, MemberName> = BTreeMap::new();
    let mut are_read = true;
    let sections = root.named::<MemberName>(walk, "issuer");
    if sections.len() > api::ISSUERS_MOST {
        let message = format!("there are {} issuers: accepted are at most {}", sections.len(), api::ISSUERS_MOST);
        walk.wrong(root.place("issuer"), message);
        return (issuers, false);
    }
    for (name, section) in sections {
        let before = walk.count();
        section.check_keys(walk, &KEYS, &[]);
        are_read &= check_attributes(walk, &section, &name, &mut known);
        let Some(issuer) = issuer(walk, &section, files) else { continue };
        if let Some(other) = by_url.insert(issuer.issuer.clone(), name.clone()) {
            let message = format!("[issuer.{other}] is {} already: tokens have one issuer", issuer.issuer);
            walk.wrong(section.place("issuer"), message);
        }
        if walk.count() == before {
            // What proxies would refuse.
            let message = resources::access::issuer(&issuer);
            let problems = Issuers::new([(name.as_str(), &message)].into_iter()).err().unwrap_or_default();
            problems
                .iter()
                .for_each(|problem| walk.wrong(section.at, format!("{}: {}", problem.place, problem.message)));
        }
        issuers.insert(name, issuer);
    }
    (issuers, are_read)
}

fn issuer(walk: &mut Walk<'_>, section: &Section<'_>, files: &Files<'_, '_>) -> Option<IssuerSpec> {
    let there = (section.require(walk, "issuer"), section.require(walk, "audience"));
    let issuer = url(walk, section, "issuer");
    let jwks = url(walk, section, "jwks");
    let audiences = audiences(walk, section);
    let algorithms = algorithms(walk, section);
    let ca = ca(walk, section, files);
    let leeway = section.within(walk, "leeway", Span::from_ms(1)?, LEEWAY_MOST).unwrap_or(LEEWAY);
    let refresh = section.within(walk, "refresh", REFRESH_LEAST, REFRESH_MOST).unwrap_or(REFRESH);
    let groups = groups(walk, section);
    let attributes = attributes(section);
    if there != (true, true) {
        return None;
    }
    Some(IssuerSpec { issuer: issuer?, audiences, algorithms, jwks, ca, leeway, refresh, groups, attributes })
}

/// A URL of https, or of http on this machine: tokens and keys are believed for what comes from there.
fn url(walk: &mut Walk<'_>, section: &Section<'_>, key: &str) -> Option<String> {
    let (text, at) = section.text(walk, key)?;
    if is_url(&text) {
        return Some(text);
    }
    let message = "is not a URL that keys can be believed from: accepted is https (http on a loopback address), without query \
                   and fragment, such as \"https://login.example.com\"";
    walk.wrong(at, format!("`{key}`: \"{}\" {message}", shown(&text)));
    None
}

fn is_url(text: &str) -> bool {
    let Ok(uri) = text.parse::<http::Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    let bare = host.trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let secure = text.starts_with("https://") || (text.starts_with("http://") && is_loopback);
    let plain = uri.query().is_none() && !text.contains(['#', '@']) && text.len() <= TEXT_BYTES;
    secure && plain && uri.port().is_none_or(|port| port.as_u16() != 0)
}

fn audiences(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(audiences) = section.list(walk, "audience") else { return Vec::new() };
    if audiences.is_empty() || audiences.len() > RULES_MOST {
        let message = format!("`audience` names whom tokens are for: accepted are 1 to {RULES_MOST} strings");
        walk.wrong(section.place("audience"), message);
    }
    for (audience, at) in &audiences {
        check_text(walk, "audience", audience, *at);
    }
    audiences.into_iter().map(|(audience, _)| audience).collect()
}

fn algorithms(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<String> {
    let Some(algorithms) = section.list(walk, "algorithms") else { return Vec::new() };
    if algorithms.is_empty() {
        let message = "`algorithms` is empty: leave it out for all that are known";
        walk.wrong(section.place("algorithms"), message);
    }
    let mut read: Vec<String> = Vec::new();
    for (algorithm, at) in algorithms {
        if !ALGORITHMS.contains(&algorithm.as_str()) {
            not_one_of(walk, at, "an algorithm", &algorithm, &ALGORITHMS);
        } else if read.contains(&algorithm) {
            walk.wrong(at, format!("`algorithms` names \"{algorithm}\" twice"));
        }
        read.push(algorithm);
    }
    read
}

fn ca(walk: &mut Walk<'_>, section: &Section<'_>, files: &Files<'_, '_>) -> Option<String> {
    let (name, at) = section.text(walk, "ca_file")?;
    let file = files.of(walk, "ca_file", &name, at)?;
    if let Some(wrong) = not_a_ca("ca_file", file.text) {
        walk.wrong(at, wrong);
    }
    Some(file.text.to_owned())
}

fn groups(walk: &mut Walk<'_>, section: &Section<'_>) -> Vec<GroupRule> {
    let entries = section.sections(walk, "groups");
    if entries.len() > RULES_MOST {
        let message = format!("`groups` has {} rules: accepted are {RULES_MOST}", entries.len());
        walk.wrong(section.place("groups"), message);
        return Vec::new();
    }
    entries.iter().filter_map(|entry| group(walk, entry)).collect()
}

fn group(walk: &mut Walk<'_>, entry: &Section<'_>) -> Option<GroupRule> {
    entry.check_keys(walk, &["claim", "prefix", "value", "group"], &[]);
    let claim = claim(walk, entry);
    let mut text = |key: &str| {
        let (text, at) = entry.text(walk, key)?;
        if key != "prefix" || !text.is_empty() {
            check_text(walk, key, &text, at);
        }
        Some(text)
    };
    let (prefix, value, group) = (text("prefix"), text("value"), text("group"));
    let means = match (entry.has("value"), entry.has("group"), entry.has("prefix")) {
        (false, false, _) => GroupMeaning::Prefix(prefix.unwrap_or_default()),
        (true, true, false) => GroupMeaning::Value { value: value?, group: group? },
        _ => {
            let message = "a rule is either { claim = \"groups\" }, perhaps with a `prefix`, or { claim = \"role\", value = \
                           \"admin\", group = \"admins\" }";
            walk.wrong(entry.at, message);
            return None;
        }
    };
    Some(GroupRule { claim: claim?, means })
}

/// Tells what is wrong with the attributes; `known` are those of all issuers so far, with who gives them.
fn check_attributes(
    walk: &mut Walk<'_>,
    section: &Section<'_>,
    issuer: &MemberName,
    known: &mut BTreeMap<String, (AttributeType, MemberName)>,
) -> bool {
    let Some(table) = section.section(walk, "attributes", "`attributes`") else { return !section.has("attributes") };
    let entries = section.named::<AttributeName>(walk, "attributes");
    let mut are_read = entries.len() == table.entries().count();
    for (AttributeName(name), entry) in entries {
        entry.check_keys(walk, &["claim", "type"], &[]);
        let kind = attribute_type(walk, &entry);
        let claim = claim(walk, &entry);
        let (Some(kind), Some(_)) = (kind, claim) else {
            are_read = false;
            continue;
        };
        let (before, other) = known.entry(name.clone()).or_insert((kind, issuer.clone()));
        if *before != kind {
            let message =
                format!("`{name}` is \"{before}\" in [issuer.{other}]: policies know one type of an attribute");
            walk.wrong(entry.place("type"), message);
            are_read = false;
        }
    }
    are_read
}

/// Those of an issuer that are right.
fn attributes(section: &Section<'_>) -> BTreeMap<String, AttributeRule> {
    // What is wrong was told by `check_attributes`.
    let walk = &mut Walk::new("", "");
    let entries = section.named::<AttributeName>(walk, "attributes");
    let rule = |(AttributeName(name), entry): (AttributeName, Section<'_>)| {
        let (kind, claim) = (attribute_type(walk, &entry)?, claim(walk, &entry)?);
        Some((name, AttributeRule { claim, kind }))
    };
    entries.into_iter().filter_map(rule).collect()
}

fn attribute_type(walk: &mut Walk<'_>, entry: &Section<'_>) -> Option<AttributeType> {
    if !entry.require(walk, "type") {
        return None;
    }
    let (word, at) = entry.text(walk, "type")?;
    match word.as_str() {
        "string" => Some(AttributeType::String),
        "long" => Some(AttributeType::Long),
        "bool" => Some(AttributeType::Bool),
        "strings" => Some(AttributeType::Strings),
        other => {
            not_one_of(walk, at, "a type of an attribute", other, &TYPES);
            None
        }
    }
}

fn claim(walk: &mut Walk<'_>, entry: &Section<'_>) -> Option<String> {
    if !entry.require(walk, "claim") {
        return None;
    }
    let (claim, at) = entry.text(walk, "claim")?;
    if claim.split('.').any(str::is_empty) {
        let message = "is not the name of a claim: accepted are names with dots between them, such as \"groups\" or \
                       \"realm_access.roles\"";
        walk.wrong(at, format!("\"{}\" {message}", shown(&claim)));
        return None;
    }
    check_text(walk, "claim", &claim, at);
    Some(claim)
}

/// Refuses what is empty, too long or cannot be seen.
fn check_text(walk: &mut Walk<'_>, key: &str, text: &str, at: usize) {
    if text.is_empty() || text.len() > TEXT_BYTES || text.chars().any(char::is_control) {
        let message = format!("accepted are 1 to {TEXT_BYTES} bytes without control characters");
        walk.wrong(at, format!("`{key}`: \"{}\": {message}", shown(text)));
    }
}
