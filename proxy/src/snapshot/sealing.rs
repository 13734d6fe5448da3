//! The keys by which we say who calls, to endpoints, and why we answered 404, to operators.
//!
//! Must not know: what is said with them.
//!
//! Main type: [`Sealing`]. What is applied may lack a key that is lost; it is asked for anew with each change.

use std::sync::Arc;

use api::fleet::{self, Rejection};
use policies::credential::assertion::{Signer, jwks};
use policies::credential::denial::Seal;

use super::check::{self, Keyed, Problems};
use super::resources::{Delta, Kind, Raw, Resources};
use super::shown::only;
use crate::keyring::Keyring;

/// The names of the only resources of their kinds.
const ASSERTION: &str = "assertion";
const EXPLAIN: &str = "explain";
/// Most keys that endpoints may meet: the one before, the current and the next one, and some more.
const MOST_KEYS: usize = 8;
/// Name and key of what seals.
const EXPLAIN_NAME_BYTES: usize = 8;
/// An uncompressed point on P-256 (SEC 1 §2.3.3).
const POINT_BYTES: usize = 65;

/// See the module.
#[derive(Default)]
pub(super) struct Sealing {
    assertion: Option<Assertion>,
    explain: Option<Keyed<Arc<Seal>>>,
}

#[derive(Debug)]
struct Assertion {
    jwks: Arc<str>,
    signer: Keyed<Arc<Signer>>,
}

/// A change that was found good. `None`: as before.
#[derive(Default)]
pub(super) struct Change {
    assertion: Option<Option<Assertion>>,
    explain: Option<Option<Keyed<Arc<Seal>>>>,
}

impl std::fmt::Debug for Sealing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing").field("is_whole", &self.is_whole()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change").finish_non_exhaustive()
    }
}

impl Sealing {
    /// Reads what a change sets, and again what lacks its key so far. `missing`: what still does.
    pub(super) fn prepare(
        &self,
        delta: &Delta,
        resources: &Resources,
        keyring: &Keyring,
        (list, missing): (&mut Vec<Rejection>, &mut Vec<Rejection>),
    ) -> Change {
        let lacks = self.assertion.as_ref().is_some_and(|assertion| assertion.signer.made.is_none());
        let assertion = only((Kind::Assertion, ASSERTION), lacks, delta, resources, |raw, name| {
            let mut lacks = Problems { list: missing, kind: Kind::Assertion, name };
            assertion(raw, keyring, &mut Problems { list, kind: Kind::Assertion, name }, &mut lacks)
        });
        let lacks = self.explain.as_ref().is_some_and(|explain| explain.made.is_none());
        let explain = only((Kind::Explain, EXPLAIN), lacks, delta, resources, |raw, name| {
            let mut lacks = Problems { list: missing, kind: Kind::Explain, name };
            explain(raw, keyring, &mut Problems { list, kind: Kind::Explain, name }, &mut lacks)
        });
        Change { assertion, explain }
    }

    /// Makes a change the applied state; false: nothing changed.
    pub(super) fn commit(&mut self, change: Change) -> bool {
        let changed = change.assertion.is_some() || change.explain.is_some();
        if let Some(assertion) = change.assertion {
            self.assertion = assertion;
        }
        if let Some(explain) = change.explain {
            self.explain = explain;
        }
        changed
    }

    pub(super) fn signer(&self) -> Option<Arc<Signer>> {
        self.assertion.as_ref()?.signer.made.clone()
    }

    pub(super) fn jwks(&self) -> Option<Arc<str>> {
        Some(self.assertion.as_ref()?.jwks.clone())
    }

    pub(super) fn seal(&self) -> Option<Arc<Seal>> {
        self.explain.as_ref()?.made.clone()
    }

    /// Whether every secret that is named is here.
    pub(super) fn is_whole(&self) -> bool {
        self.assertion.as_ref().is_none_or(|assertion| assertion.signer.made.is_some())
            && self.explain.as_ref().is_none_or(|explain| explain.made.is_some())
    }

    /// Every secret that is named.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let of_assertion = self.assertion.iter().flat_map(|assertion| &assertion.signer.secrets);
        of_assertion.chain(self.explain.iter().flat_map(|explain| &explain.secrets)).map(|id| &**id)
    }
}

fn assertion(
    raw: &Raw,
    keyring: &Keyring,
    problems: &mut Problems<'_>,
    missing: &mut Problems<'_>,
) -> Option<Assertion> {
    let read: fleet::Assertion = check::decode(raw, problems)?;
    let before = problems.list.len();
    check_name(ASSERTION, problems);
    if read.issuer.is_empty() {
        problems.add("issuer", "is empty");
    }
    let count = read.keys.len();
    if count > MOST_KEYS {
        problems.add("keys", format!("there are {count}, at most {MOST_KEYS} are accepted"));
    }
    for (place, key) in read.keys.iter().enumerate().take(MOST_KEYS) {
        if !is_key_id(&key.id) {
            problems.add(format!("keys[{place}].id"), "is not 1 to 64 letters, digits, hyphens and underscores");
        }
        if key.public.len() != POINT_BYTES || key.public[0] != 4 {
            problems.add(format!("keys[{place}].public"), "is no uncompressed point of 65 bytes");
        }
    }
    if !read.keys.iter().any(|key| key.id == read.current) {
        problems.add("current", format!("{:?} is none of the keys", read.current));
    }
    if problems.list.len() > before {
        return None;
    }
    // That of the key before is kept as well, for as long as it is named.
    let secrets: Vec<String> = read.keys.iter().map(|key| assertion_id(&key.id)).collect();
    let mut made = None;
    match keyring.get(&assertion_id(&read.current)) {
        None => missing.add("current", "its key did not come, or is not sealed for this proxy"),
        Some(pkcs8) => match Signer::new(&read.issuer, &read.current, pkcs8) {
            Ok(signer) => made = Some(Arc::new(signer)),
            Err(why) => {
                problems.add("current", format!("its key cannot be used: {why}"));
                return None;
            }
        },
    }
    let keys: Vec<_> = read.keys.into_iter().map(|key| (key.id, key.public)).collect();
    Some(Assertion { jwks: jwks(&keys).into(), signer: Keyed { made, secrets } })
}

fn explain(
    raw: &Raw,
    keyring: &Keyring,
    problems: &mut Problems<'_>,
    missing: &mut Problems<'_>,
) -> Option<Keyed<Arc<Seal>>> {
    let read: fleet::Explain = check::decode(raw, problems)?;
    let before = problems.list.len();
    check_name(EXPLAIN, problems);
    let Ok(name) = <[u8; EXPLAIN_NAME_BYTES]>::try_from(&read.current[..]) else {
        problems.add("current", format!("has {} bytes, not {EXPLAIN_NAME_BYTES}", read.current.len()));
        return None;
    };
    if problems.list.len() > before {
        return None;
    }
    let id = explain_id(name);
    // Its length was looked at when it was opened.
    let key = keyring.get(&id).and_then(|key| <&[u8; 32]>::try_from(key).ok());
    if key.is_none() {
        missing.add("current", "its key did not come, or is not sealed for this proxy");
    }
    Some(Keyed { made: key.map(|key| Arc::new(Seal::new(name, key))), secrets: vec![id] })
}

fn check_name(name: &str, problems: &mut Problems<'_>) {
    if problems.name != name {
        problems.add("name", format!("is not {name:?}: there is one of these"));
    }
}

/// Whether it may name a key that signs assertions.
pub(crate) fn is_key_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The id under which a key that signs assertions travels.
fn assertion_id(id: &str) -> String {
    format!("{ASSERTION}/{id}")
}

/// The id under which a key that seals travels.
fn explain_id(name: [u8; EXPLAIN_NAME_BYTES]) -> String {
    let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{EXPLAIN}/{hex}")
}
