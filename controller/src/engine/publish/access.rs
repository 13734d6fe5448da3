//! Who may pass, as the fleet of proxies should have it: issuers, policies, entities and applications.
//!
//! Must not know: who asked for a change, or how it is sent.

use api::MemberName;
use api::fleet::{Resource, ResourceKey, ResourceSet};

use super::Publisher;
use crate::core::{State, resources};

/// Everything of it.
pub(super) fn all(state: &State) -> impl Iterator<Item = Resource> {
    let applications = state.applications.keys().filter_map(|name| resources::access::of_application(state, name));
    resources::access::of_access(&state.access).into_iter().chain(applications)
}

impl Publisher {
    /// Issuers, policies and entities that are others now.
    pub(super) fn refresh_access(&self, state: &State, set: &mut ResourceSet) {
        let wanted = resources::access::of_access(&state.access);
        let present =
            self.resources.keys().filter(|(kind, _)| resources::access::ACCESS_KINDS.contains(&kind.as_str()));
        let gone = present.filter(|(kind, name)| !wanted.iter().any(|new| new.kind == *kind && new.name == *name));
        set.removals.extend(gone.map(|(kind, name)| ResourceKey { kind: kind.clone(), name: name.clone() }));
        set.upserts.extend(wanted.into_iter().filter(|new| self.is_news(new)));
    }

    /// An application as it is now.
    pub(super) fn refresh_application(&self, state: &State, name: &MemberName, set: &mut ResourceSet) {
        let (wanted, key) =
            (resources::access::of_application(state, name), ("application".to_owned(), name.to_string()));
        if wanted.is_none() && self.resources.contains_key(&key) {
            set.removals.push(ResourceKey { kind: key.0, name: key.1 });
        }
        set.upserts.extend(wanted.into_iter().filter(|new| self.is_news(new)));
    }
}
