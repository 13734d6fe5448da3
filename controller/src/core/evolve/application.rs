//! What becomes of applications.

use crate::core::event::Event;
use crate::core::evolve::Mark;
use crate::core::state::{ApiKey, Application, State};

impl State {
    pub(super) fn evolve_application(&mut self, event: &Event, mark: Mark<'_>) {
        let made = |id: &String, sha256, until_ms| ApiKey { id: id.clone(), sha256, created_ms: mark.at_ms, until_ms };
        match event {
            Event::ApplicationCreated { name, key, groups, certificates, clients } => {
                let application = Application {
                    keys: key.iter().map(|key| made(&key.id, key.sha256, key.until_ms)).collect(),
                    groups: groups.clone(),
                    certificates: certificates.clone(),
                    clients: clients.clone(),
                    created_ms: mark.at_ms,
                    by: mark.by.to_owned(),
                    revoked: false,
                };
                self.applications.insert(name.clone(), application);
            }
            Event::ApplicationRotated { name, key, before_until_ms } => {
                let Some(application) = self.applications.get_mut(name) else { return };
                for before in &mut application.keys {
                    // One that ends earlier anyway still does.
                    let until_ms = before.until_ms.map_or(*before_until_ms, |until_ms| until_ms.min(*before_until_ms));
                    before.until_ms = Some(until_ms);
                }
                application.keys.push(made(&key.id, key.sha256, key.until_ms));
                application.keys.retain(|key| key.counts_at(mark.at_ms));
            }
            Event::ApplicationKeysEnded { name, keys } => {
                self.applications
                    .entry(name.clone())
                    .and_modify(|application| application.keys.retain(|key| !keys.contains(&key.id)));
            }
            Event::ApplicationRevoked { name } => {
                self.applications.entry(name.clone()).and_modify(|application| {
                    application.revoked = true;
                    application.keys.clear();
                });
            }
            _ => {}
        }
    }
}
