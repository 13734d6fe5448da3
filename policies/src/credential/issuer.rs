//! Who issues users' tokens, and what a token of theirs stands for.
//!
//! A token's `iss` finds the issuer, the signature by one of its keys comes next, and only then do its claims count.
//!
//! Must not know: where keys come from, applications, or a clock of its own.
//!
//! Sources: RFC 7519 §7.2 (validation), RFC 8725 (best practices).
//!
//! Main type: [`Issuers`].

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::fleet;
use api::fleet::claim_attribute::Type;

use super::algorithm::{Accepted, Algorithm};
use super::claims::{AttributeRule, GroupRule, Into, Path, Terms};
use super::fault::Fault;
use super::json::{Json, Object};
use super::keys::KeyRing;
use super::token::Parts;
use super::{Standing, User};
use crate::Problem;
use crate::policy::AttributeTypes;

/// Who issues tokens, compiled.
#[derive(Debug, Default)]
pub struct Issuers {
    /// By `iss`.
    by_iss: HashMap<String, Issuer, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Issuer {
    name: Arc<str>,
    accepted: Accepted,
    terms: Terms,
    groups: Vec<GroupRule>,
    attributes: Vec<AttributeRule>,
}

// === impl Issuers ===

impl Issuers {
    /// Reads what the contract says, by name. `ca_pem` is not read here.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn new<'a>(issuers: impl Iterator<Item = (&'a str, &'a fleet::Issuer)>) -> Result<Self, Vec<Problem>> {
        let mut by_iss: HashMap<String, Issuer, _> = HashMap::default();
        let mut types = AttributeTypes::new();
        let mut problems = Vec::new();
        for (name, written) in issuers {
            let mut found = Vec::new();
            let issuer = Issuer::read(name, written, &mut types, &mut found);
            if let Some(other) = by_iss.get(&written.issuer) {
                found.push(format!("its \"issuer\" is that of {} too: one of them has to go", other.name));
            }
            problems.extend(found.into_iter().map(|message| Problem {
                place: format!("issuer {name}"),
                line: 0,
                column: 0,
                message,
            }));
            by_iss.insert(written.issuer.clone(), issuer);
        }
        if problems.is_empty() { Ok(Self { by_iss }) } else { Err(problems) }
    }

    /// Verifies a token: its signature, and that it counts at `now_s`, in seconds since the Unix epoch.
    ///
    /// Never `Absent`. `Unavailable` only with [`Fault::KeysMissing`]; a key that is not among those that were fetched is
    /// `Refused` with [`Fault::UnknownKey`], and may be worth a fetch of the keys of [`Issuers::named_by`].
    pub fn user(&self, token: &[u8], keys: &KeyRing, now_s: u64) -> Standing<Arc<User>> {
        match self.verify(token, keys, now_s) {
            Ok(user) => Standing::Valid(Arc::new(user)),
            Err(fault @ Fault::KeysMissing) => Standing::Unavailable(fault),
            Err(fault) => Standing::Refused(fault),
        }
    }

    /// The issuer that a token says it is from, if it is a known one: whose keys may be worth a fetch. Nothing was verified.
    pub fn named_by(&self, token: &[u8]) -> Option<&Arc<str>> {
        let parts = Parts::of(token).ok()?;
        let claims = parts.claims().ok()?;
        self.found_by(&claims).ok().map(|issuer| &issuer.name)
    }

    /// Names and types of the attributes that all issuers' rules give: what policies are checked against.
    pub fn attribute_types(&self) -> AttributeTypes {
        let rules = self.by_iss.values().flat_map(|issuer| &issuer.attributes);
        rules.map(|rule| (rule.name.to_string(), rule.kind)).collect()
    }

    fn found_by(&self, claims: &Object<'_>) -> Result<&Issuer, Fault> {
        let iss = claims.get("iss").and_then(Json::text).ok_or(Fault::IssuerMissing)?;
        self.by_iss.get(iss).ok_or(Fault::UnknownIssuer)
    }

    fn verify(&self, token: &[u8], keys: &KeyRing, now_s: u64) -> Result<User, Fault> {
        let parts = Parts::of(token)?;
        let header = parts.header()?;
        let claims = parts.claims()?;
        let issuer = self.found_by(&claims)?;
        if !issuer.accepted.holds(header.algorithm) {
            return Err(Fault::AlgorithmNotAccepted);
        }
        let set = keys.issuers.get(&issuer.name).ok_or(Fault::KeysMissing)?;
        let key = set.find(header.key.as_deref(), header.algorithm)?;
        let verified = jsonwebtoken::crypto::verify(parts.signature, parts.signed, key, header.algorithm.library());
        if !matches!(verified, Ok(true)) {
            return Err(Fault::Signature);
        }
        // From here on the claims are the issuer's word.
        issuer.user(&claims, now_s)
    }
}

// === impl Issuer ===

impl Issuer {
    /// What is wrong goes to `problems`; the issuer is of use only when there are none.
    fn read(name: &str, written: &fleet::Issuer, types: &mut AttributeTypes, problems: &mut Vec<String>) -> Self {
        for (field, url) in [("issuer", &written.issuer), ("jwks", &written.jwks_url)] {
            if !(is_fetchable(url) || field == "jwks" && url.is_empty()) {
                problems.push(format!("\"{field}\": \"{}\" is no address: {URL_FORM}", url.escape_debug()));
            }
        }
        if written.audiences.is_empty() || written.audiences.iter().any(String::is_empty) {
            problems.push("\"audience\": at least one, none of them empty, such as [\"pointsman\"]".to_owned());
        }
        if written.leeway_ms > 300_000 {
            problems.push(format!("\"leeway\": {} ms; at most 5m", written.leeway_ms));
        }
        if !(30_000..=86_400_000).contains(&written.refresh_ms) {
            problems.push(format!("\"refresh\": {} ms; from 30s to 24h", written.refresh_ms));
        }
        Self {
            name: name.into(),
            accepted: accepted(&written.algorithms, problems),
            terms: Terms { audiences: written.audiences.clone(), leeway_s: u64::from(written.leeway_ms) / 1000 },
            groups: written.groups.iter().filter_map(|rule| group_rule(rule, problems)).collect(),
            attributes: attribute_rules(&written.attributes, types, problems),
        }
    }

    fn user(&self, claims: &Object<'_>, now_s: u64) -> Result<User, Fault> {
        let claimed = self.terms.check(claims, now_s)?;
        let mut groups = Vec::new();
        for rule in &self.groups {
            rule.apply(claims, &mut groups)?;
        }
        groups.sort_unstable();
        groups.dedup();
        let mut attributes = BTreeMap::new();
        for rule in &self.attributes {
            rule.apply(claims, &mut attributes)?;
        }
        Ok(User {
            issuer: Arc::clone(&self.name),
            subject: claimed.subject,
            client: claimed.client,
            groups,
            attributes,
            until_s: claimed.until_s,
        })
    }
}

// What is written, read.

const URL_FORM: &str = "https://HOST and a path, or http on loopback only, without user, query and fragment";

/// Whether something may be fetched there without anybody changing it on the way.
fn is_fetchable(url: &str) -> bool {
    let (is_secure, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return false,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_loopback = host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    url.len() <= 2048
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#\\\"<>".contains(&byte))
        && !address.is_empty()
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
        && (is_secure || is_loopback)
}

fn accepted(written: &[String], problems: &mut Vec<String>) -> Accepted {
    if written.is_empty() {
        return Accepted::all();
    }
    let mut accepted = Accepted::none();
    for name in written {
        if let Some(algorithm) = Algorithm::named(name) {
            accepted = accepted.with(algorithm);
            continue;
        }
        let known = Algorithm::ALL.map(Algorithm::name).join(", ");
        problems.push(format!("\"algorithms\": \"{}\" is none that we know: {known}", name.escape_debug()));
    }
    accepted
}

fn group_rule(written: &fleet::GroupRule, problems: &mut Vec<String>) -> Option<GroupRule> {
    if written.claim.is_empty() {
        problems.push("\"groups\": a rule needs a claim, such as { claim = \"groups\" }".to_owned());
        return None;
    }
    let group = written.group.clone();
    let into = match &*written.value {
        "" => Into::Each { prefix: group },
        _ if group.is_empty() => {
            let claim = &written.claim;
            problems.push(format!("\"groups\": the rule for a value of \"{}\" names no group", claim.escape_debug()));
            return None;
        }
        value => Into::One { value: value.to_owned(), group: group.into() },
    };
    Some(GroupRule { claim: Path::new(&written.claim), into })
}

/// `types`: those of other issuers, which have to agree.
fn attribute_rules(
    written: &[fleet::ClaimAttribute],
    types: &mut AttributeTypes,
    problems: &mut Vec<String>,
) -> Vec<AttributeRule> {
    let mut rules: Vec<AttributeRule> = Vec::new();
    for attribute in written {
        let name = &*attribute.attribute;
        let kind = attribute.r#type();
        let mut wrong = |message: String| problems.push(format!("attribute \"{}\": {message}", name.escape_debug()));
        if !is_attribute_name(name) {
            wrong("a name has letters, digits and \"_\", no digit first, at most 64".to_owned());
        } else if ["issuer", "subject", "client"].contains(&name) {
            wrong("every user has one of that name; take another".to_owned());
        } else if rules.iter().any(|rule| &*rule.name == name) {
            wrong("stands twice".to_owned());
        }
        if attribute.claim.is_empty() {
            wrong("needs a claim, such as { claim = \"department\", type = \"string\" }".to_owned());
        }
        if kind == Type::Unspecified {
            wrong("its type is one of string, long, bool, strings".to_owned());
        } else if *types.entry(name.to_owned()).or_insert(kind) != kind {
            wrong("another issuer gives it with another type".to_owned());
        }
        rules.push(AttributeRule { name: name.into(), claim: Path::new(&attribute.claim), kind });
    }
    rules
}

/// An identifier of Cedar's language.
fn is_attribute_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests;
