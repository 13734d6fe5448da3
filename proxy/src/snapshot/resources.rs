//! What was applied, byte for byte, with its fingerprint kept up to date.
//!
//! Must not know: what a body means. Bodies are kept as they came, so that fields of a later schema survive.

use std::collections::HashMap;
use std::sync::Arc;

use api::Fingerprint;
use api::fleet::{Rejection, Resource, ResourceKey, ResourceSet};
use bytes::Bytes;

/// Kinds of resources, in the order of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Zone,
    Stage,
    Split,
    Endpoints,
    Certificate,
    Tickets,
    Challenge,
    Issuer,
    Application,
    Entities,
    Policy,
    Assertion,
    Explain,
}

impl Kind {
    pub(crate) const ALL: [Self; 13] = [
        Self::Zone,
        Self::Stage,
        Self::Split,
        Self::Endpoints,
        Self::Certificate,
        Self::Tickets,
        Self::Challenge,
        Self::Issuer,
        Self::Application,
        Self::Entities,
        Self::Policy,
        Self::Assertion,
        Self::Explain,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Zone => "zone",
            Self::Stage => "stage",
            Self::Split => "split",
            Self::Endpoints => "endpoints",
            Self::Certificate => "certificate",
            Self::Tickets => "tickets",
            Self::Challenge => "challenge",
            Self::Issuer => "issuer",
            Self::Application => "application",
            Self::Entities => "entities",
            Self::Policy => "policy",
            Self::Assertion => "assertion",
            Self::Explain => "explain",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A body as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) body: Bytes,
    pub(crate) schema: u32,
}

/// A change: what is set and what is taken away, each key at most once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Delta {
    /// `None`: taken away.
    pub(crate) entries: HashMap<(Kind, Arc<str>), Option<Raw>>,
}

/// The applied set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources {
    kinds: [HashMap<Arc<str>, Raw>; Kind::ALL.len()],
    fingerprint: Fingerprint,
}

impl Delta {
    /// Reads a set. Every resource of an unknown kind or a later schema is a rejection.
    pub(crate) fn read(set: ResourceSet) -> Result<Self, Vec<Rejection>> {
        let (mut delta, mut rejections) = (Self::default(), Vec::new());
        for ResourceKey { kind, name } in set.removals {
            match Kind::parse(&kind) {
                Some(kind) => delta.entries.insert((kind, name.into()), None).is_some(),
                None => reject(&mut rejections, &kind, &name, "kind", "this proxy does not know the kind".into()),
            };
        }
        for Resource { kind, name, body, schema } in set.upserts {
            let Some(known) = Kind::parse(&kind) else {
                reject(&mut rejections, &kind, &name, "kind", "this proxy does not know the kind".into());
                continue;
            };
            if schema > api::RESOURCE_SCHEMA {
                let reason = format!("needs schema {schema}, this proxy knows up to {}", api::RESOURCE_SCHEMA);
                reject(&mut rejections, &kind, &name, "schema", reason);
            }
            // Copied: a slice of a large transfer would keep all of it in memory.
            let raw = Raw { body: Bytes::copy_from_slice(&body), schema };
            if let Some(Some(_)) = delta.entries.insert((known, name.as_str().into()), Some(raw)) {
                reject(&mut rejections, &kind, &name, "name", "stands twice in one change".into());
            }
        }
        if rejections.is_empty() { Ok(delta) } else { Err(rejections) }
    }

    /// Whether endpoints, or how they are checked, may be others afterwards.
    pub(crate) fn touches_endpoints(&self) -> bool {
        self.entries.keys().any(|(kind, _)| matches!(kind, Kind::Stage | Kind::Endpoints))
    }

    /// Whether it sets or takes away any of a kind.
    pub(crate) fn touches(&self, kind: Kind) -> bool {
        self.entries.keys().any(|(touched, _)| *touched == kind)
    }

    /// As a message, for the journal.
    pub(crate) fn to_set(&self) -> ResourceSet {
        let mut set = ResourceSet::default();
        for ((kind, name), raw) in &self.entries {
            match raw {
                Some(raw) => set.upserts.push(resource(*kind, name, raw)),
                None => set.removals.push(ResourceKey { kind: kind.as_str().into(), name: name.as_ref().into() }),
            }
        }
        set
    }
}

impl Resources {
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Raw> {
        self.kinds[kind as usize].get(name)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &Raw)> {
        self.kinds[kind as usize].iter()
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn len(&self) -> usize {
        self.kinds.iter().map(HashMap::len).sum()
    }

    /// Turns a full state into the change that leads to it, without what is the same already.
    pub(crate) fn difference_to(&self, full: Delta) -> Delta {
        let mut delta = full;
        for kind in Kind::ALL {
            for (name, raw) in self.of_kind(kind) {
                let key = (kind, name.clone());
                match delta.entries.get(&key) {
                    Some(Some(new)) if new == raw => drop(delta.entries.remove(&key)),
                    Some(_) => {}
                    None => drop(delta.entries.insert(key, None)),
                }
            }
        }
        delta
    }

    /// The fingerprint that the set will have after `delta`.
    pub(crate) fn fingerprint_after(&self, delta: &Delta) -> Fingerprint {
        let mut fingerprint = self.fingerprint;
        for ((kind, name), new) in &delta.entries {
            if let Some(old) = self.get(*kind, name) {
                fingerprint.remove(&resource(*kind, name, old));
            }
            if let Some(new) = new {
                fingerprint.add(&resource(*kind, name, new));
            }
        }
        fingerprint
    }

    pub(crate) fn apply(&mut self, delta: &Delta) {
        self.fingerprint = self.fingerprint_after(delta);
        for ((kind, name), new) in &delta.entries {
            let map = &mut self.kinds[*kind as usize];
            match new {
                Some(raw) => drop(map.insert(name.clone(), raw.clone())),
                None => drop(map.remove(name)),
            }
        }
    }

    /// Everything as a message, for the journal.
    pub(crate) fn to_set(&self) -> ResourceSet {
        let all = Kind::ALL.into_iter().flat_map(|kind| self.of_kind(kind).map(move |(name, raw)| (kind, name, raw)));
        ResourceSet { upserts: all.map(|(kind, name, raw)| resource(kind, name, raw)).collect(), removals: Vec::new() }
    }
}

fn resource(kind: Kind, name: &str, raw: &Raw) -> Resource {
    Resource { kind: kind.as_str().into(), name: name.into(), body: raw.body.clone(), schema: raw.schema }
}

fn reject(rejections: &mut Vec<Rejection>, kind: &str, name: &str, field: &str, reason: String) -> bool {
    rejections.push(Rejection { resource: format!("{kind} {name}"), field: field.into(), reason });
    false
}
