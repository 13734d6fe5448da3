//! Proxies and agents that come, tell something, and go: what the engine makes of it, each in one step.
//!
//! Must not know: how they are connected, or whether they may be; the servers have looked at that.

use std::collections::BTreeSet;

use api::MemberName;
use api::Version;
use api::fleet::{ControllerMessage, Hello};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::members::TERM_END;
use super::publish::secrets_messages;
use super::{AgentSender, Engine};
use crate::core::observe::InstanceSeen;

/// A proxy that knows a term so far ahead is not believed: a term is a start, and this is one an hour for a year. The
/// next term goes above what is believed, and on record.
const TERMS_AHEAD: u64 = 10_000;

/// Secrets that were sealed for a proxy before it is counted in: that takes a while, and the engine has none.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    ids: BTreeSet<String>,
    messages: Vec<ControllerMessage>,
}

impl Sealed {
    /// Seals. Some 60 us each.
    pub(crate) fn for_key(secrets: &[(String, Vec<u8>)], seal_key: &[u8]) -> Self {
        let ids = secrets.iter().map(|(id, _)| id.clone()).collect();
        Self { ids, messages: secrets_messages(secrets, seal_key) }
    }

    /// In the order in which they are sent.
    pub(crate) fn messages(&self) -> &[ControllerMessage] {
        &self.messages
    }
}

impl Engine {
    /// A proxy connected: tells it what it needs, and counts it in. In one step, so that no change falls between.
    pub(crate) fn attach_proxy(
        &mut self,
        name: &MemberName,
        connection: u64,
        hello: &Hello,
        messages: mpsc::Sender<ControllerMessage>,
        sealed: &Sealed,
    ) {
        let term = hello.have.map_or(0, |have| have.term);
        if term > self.state.term.saturating_add(TERMS_AHEAD) || term >= TERM_END {
            return error!(proxy = %name, term, "says to have a state of a term that no controller can have had: it is refused");
        }
        // Only a controller whose store is older than what the fleet serves (a restored backup, say) can be behind. It was
        // started on purpose, so it leads; its next term says that its state is the one that counts.
        if let Some(ahead) = hello.have.map(Version::from).filter(|have| *have > self.publisher.version()) {
            warn!(proxy = %name, %ahead, "has a newer state than this controller's store: it is brought back to the store's");
            if let Err(problem) = self.begin_term(ahead.term) {
                return warn!(?problem, "no new term could be taken; the proxy will ask again");
            }
            self.fleet.send_secrets(&self.publisher.secrets());
            self.fleet.send_to_all(&self.publisher.everything());
        }
        let mut secrets = self.publisher.secrets();
        secrets.retain(|(id, _)| !sealed.ids.contains(id));
        let late = secrets_messages(&secrets, &hello.seal_key);
        let needed = sealed.messages.iter().cloned().chain(late).chain(self.publisher.catch_up(hello));
        if needed.into_iter().all(|message| messages.try_send(message).is_ok()) {
            let now_ms = self.now_ms();
            self.fleet.attach(name, connection, hello, messages, now_ms);
        }
    }

    /// An agent connected.
    pub(crate) fn attach_agent(&mut self, name: MemberName, software: String, sender: AgentSender) {
        let now_ms = self.now_ms();
        // What an earlier connection told may be long ago.
        self.forget_agent(&name);
        self.agents.attach(name, software, sender, &self.state, now_ms);
    }

    /// An agent reported all that it runs, in answer to what it was told under `generation`.
    pub(crate) fn observe_agent(
        &mut self,
        name: MemberName,
        connection: u64,
        generation: u64,
        instances: Vec<(String, InstanceSeen)>,
    ) {
        if self.agents.is_current(&name, connection) {
            let now_ms = self.now_ms();
            self.agents.hear(&name, now_ms);
            if self.agents.answers(&name, generation) {
                self.seen.agents.insert(name, instances.into_iter().collect());
            }
        }
    }

    /// An agent's connection ended.
    pub(crate) fn detach_agent(&mut self, name: &MemberName, connection: u64) {
        if self.agents.is_current(name, connection) {
            self.forget_agent(name);
        }
    }

    /// What is not connected is not seen.
    pub(super) fn forget_agent(&mut self, name: &MemberName) {
        self.agents.disconnect(name);
        self.seen.agents.remove(name);
    }
}
