//! Proxies and agents that come, tell something, and go: what the engine makes of it, each in one step.
//!
//! Must not know: how they are connected, or whether they may be; the servers have looked at that.

use api::MemberName;
use api::Version;
use api::fleet::{ControllerMessage, Hello};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::members::TERM_END;
use super::{AgentSender, Engine};
use crate::core::observe::InstanceSeen;

/// A proxy that knows a term so far ahead is not believed: a term is a start, and this is one an hour for a year. The
/// next term goes above what is believed, and on record.
const TERMS_AHEAD: u64 = 10_000;

impl Engine {
    /// A proxy connected: tells it what it needs, and counts it in. In one step, so that no change falls between.
    pub(crate) fn attach_proxy(
        &mut self,
        name: &MemberName,
        connection: u64,
        hello: &Hello,
        messages: mpsc::Sender<ControllerMessage>,
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
            self.fleet.send_to_all(&self.publisher.everything());
        }
        let needed = self.publisher.catch_up(hello);
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
