//! What handshakes with clients need of secrets: certificates with their keys, and the keys of tickets.
//!
//! Must not know: handshakes, or where secrets come from.
//!
//! Main types: [`Shown`], what is applied; [`Change`], what a change makes of it. A state of the last run may name a key
//! that is lost: all else serves, and the key is asked for anew with each change.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::fleet::Rejection;
use certs::resolver::Certified;
use certs::tickets::TicketKeys;

use super::check::{self, Keyed, Problems};
use super::resources::{Delta, Kind, Raw, Resources};
use crate::keyring::Keyring;

/// The name of the one resource of its kind.
const TICKETS: &str = "tickets";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shown {
    certificates: BTreeMap<Arc<str>, Keyed<Certified>>,
    tickets: Option<Keyed<Arc<TicketKeys>>>,
}

/// A change that was found good.
#[derive(Debug, Default)]
pub(super) struct Change {
    certificates: Vec<(Arc<str>, Option<Keyed<Certified>>)>,
    /// `None`: as before.
    tickets: Option<Option<Keyed<Arc<TicketKeys>>>>,
}

/// What is to be shown from now on; `None`: as before.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// All of them.
    pub(crate) certificates: Option<Vec<Certified>>,
    pub(crate) tickets: Option<Option<Arc<TicketKeys>>>,
}

impl Shown {
    /// Compiles what a change sets, and again what lacks its secret so far. `missing`: what still does.
    pub(super) fn prepare(
        &self,
        delta: &Delta,
        resources: &Resources,
        keyring: &Keyring,
        (list, missing): (&mut Vec<Rejection>, &mut Vec<Rejection>),
    ) -> Change {
        let mut change = Change::default();
        let lacking = self.certificates.iter().filter(|(_, one)| one.made.is_none()).filter_map(|(name, _)| {
            let key = (Kind::Certificate, Arc::clone(name));
            if delta.entries.contains_key(&key) { None } else { Some((name, resources.get(Kind::Certificate, name))) }
        });
        let changed = delta.entries.iter().filter(|((kind, _), _)| *kind == Kind::Certificate);
        for (name, raw) in changed.map(|((_, name), raw)| (name, raw.as_ref())).chain(lacking) {
            let Some(raw) = raw else {
                change.certificates.push((name.clone(), None));
                continue;
            };
            let read = certificate(raw, name, keyring, list, missing);
            change.certificates.extend(read.map(|one| (name.clone(), Some(one))));
        }
        change.tickets = self.tickets(delta, resources, keyring, (list, missing));
        change
    }

    fn tickets(
        &self,
        delta: &Delta,
        resources: &Resources,
        keyring: &Keyring,
        (list, missing): (&mut Vec<Rejection>, &mut Vec<Rejection>),
    ) -> Option<Option<Keyed<Arc<TicketKeys>>>> {
        let lacks = self.tickets.as_ref().is_some_and(|tickets| tickets.made.is_none());
        only((Kind::Tickets, TICKETS), lacks, delta, resources, |raw, name| tickets(raw, name, keyring, list, missing))
    }

    /// Makes a change the applied state.
    pub(super) fn commit(&mut self, change: Change) -> Changed {
        let tickets = change.tickets.map(|tickets| {
            self.tickets = tickets;
            self.tickets.as_ref().and_then(|tickets| tickets.made.clone())
        });
        let changed = !change.certificates.is_empty();
        for (name, certificate) in change.certificates {
            match certificate {
                Some(certificate) => drop(self.certificates.insert(name, certificate)),
                None => drop(self.certificates.remove(&name)),
            }
        }
        Changed { certificates: changed.then(|| self.certificates().map(|(_, one)| one.clone()).collect()), tickets }
    }

    /// All certificates that can be shown, by the names of their resources.
    pub(super) fn certificates(&self) -> impl Iterator<Item = (&Arc<str>, &Certified)> {
        self.certificates.iter().filter_map(|(name, one)| Some((name, one.made.as_ref()?)))
    }

    /// Whether every secret that is named is here.
    pub(super) fn is_whole(&self) -> bool {
        self.certificates.values().all(|one| one.made.is_some())
            && self.tickets.as_ref().is_none_or(|tickets| tickets.made.is_some())
    }

    /// Every secret that is named.
    pub(super) fn secrets(&self) -> HashSet<&str> {
        let of_certificates = self.certificates.values().flat_map(|one| &one.secrets);
        let of_tickets = self.tickets.iter().flat_map(|tickets| &tickets.secrets);
        of_certificates.chain(of_tickets).map(|id| &**id).collect()
    }
}

/// What the one resource of a kind is after a change; `None`: as before. `lacks`: what is applied lacks a secret, and is read
/// again.
pub(super) fn only<T>(
    (kind, only): (Kind, &str),
    lacks: bool,
    delta: &Delta,
    resources: &Resources,
    mut read: impl FnMut(&Raw, &str) -> Option<T>,
) -> Option<Option<T>> {
    let mut last = None;
    for ((_, name), raw) in delta.entries.iter().filter(|((touched, _), _)| *touched == kind) {
        // One of another name is looked at, so that it is told.
        let read = raw.as_ref().and_then(|raw| read(raw, name));
        if **name == *only {
            last = Some(read);
        }
    }
    if last.is_some() || !lacks {
        return last;
    }
    resources.get(kind, only).map(|raw| read(raw, only))
}

fn tickets(
    raw: &Raw,
    name: &str,
    keyring: &Keyring,
    list: &mut Vec<Rejection>,
    missing: &mut Vec<Rejection>,
) -> Option<Keyed<Arc<TicketKeys>>> {
    let mut lacks = Problems { list: missing, kind: Kind::Tickets, name };
    let read = check::tickets(raw, keyring, &mut Problems { list, kind: Kind::Tickets, name }, &mut lacks)?;
    Some(Keyed { made: read.made.map(Arc::new), secrets: read.secrets })
}

fn certificate(
    raw: &Raw,
    name: &str,
    keyring: &Keyring,
    list: &mut Vec<Rejection>,
    missing: &mut Vec<Rejection>,
) -> Option<Keyed<Certified>> {
    let mut lacks = Problems { list: missing, kind: Kind::Certificate, name };
    check::certificate(raw, keyring, &mut Problems { list, kind: Kind::Certificate, name }, &mut lacks)
}
