//! Agents that are connected, and what each was told last.

use std::collections::BTreeMap;

use api::MemberName;
use api::agent::{ControllerMessage, Desired, Instance, controller_message::Kind};
use tokio::sync::mpsc;

use crate::core::{State, desired};

/// Terms stand in the upper half of a generation: none reaches this.
pub(super) const TERM_END: u64 = 1 << 32;

/// The way to one connected agent.
#[derive(Debug, Clone)]
pub(crate) struct AgentSender {
    /// Tells connections of the same agent apart.
    pub(crate) connection: u64,
    pub(crate) messages: mpsc::Sender<ControllerMessage>,
}

#[derive(Debug, Default)]
pub(crate) struct Agents {
    connected: BTreeMap<MemberName, Connected>,
    heard: BTreeMap<MemberName, Heard>,
    generation: u64,
}

#[derive(Debug)]
struct Connected {
    sender: AgentSender,
    told: Vec<Instance>,
}

/// What was last heard of an agent; kept when its connection ends.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) software: String,
    pub(crate) at_ms: u64,
}

impl Agents {
    /// Takes note that an agent lives.
    pub(super) fn hear(&mut self, name: &MemberName, at_ms: u64) {
        if let Some(heard) = self.heard.get_mut(name) {
            heard.at_ms = at_ms;
        }
    }

    /// What was last heard of an agent since the controller started.
    pub(crate) fn heard(&self, name: &MemberName) -> Option<&Heard> {
        self.heard.get(name)
    }

    /// Whether an agent's stream is open.
    pub(crate) fn is_connected(&self, name: &MemberName) -> bool {
        self.connected.contains_key(name)
    }

    /// Takes in a connection, in place of an older one of the same agent, and says at once what should run.
    pub(super) fn attach(
        &mut self,
        name: MemberName,
        software: String,
        sender: AgentSender,
        state: &State,
        at_ms: u64,
    ) {
        self.heard.insert(name.clone(), Heard { software, at_ms });
        let told = desired::of_agent(state, &name);
        self.generation += 1;
        let message = desired_message(self.generation, state.term, told.clone());
        if sender.messages.try_send(message).is_ok() {
            self.connected.insert(name, Connected { sender, told });
        }
    }

    pub(super) fn disconnect(&mut self, name: &MemberName) {
        self.connected.remove(name);
    }

    /// Whether `connection` is the agent's newest.
    pub(super) fn is_current(&self, name: &MemberName, connection: u64) -> bool {
        self.connected.get(name).is_some_and(|agent| agent.sender.connection == connection)
    }

    /// Tells every agent whose part has changed. One that does not take it is disconnected and will ask again.
    pub(super) fn refresh(&mut self, state: &State) {
        let generation = &mut self.generation;
        self.connected.retain(|name, agent| {
            let wanted = desired::of_agent(state, name);
            if wanted == agent.told {
                return true;
            }
            *generation += 1;
            agent.told.clone_from(&wanted);
            agent.sender.messages.try_send(desired_message(*generation, state.term, wanted)).is_ok()
        });
    }
}

fn desired_message(generation: u64, term: u64, instances: Vec<Instance>) -> ControllerMessage {
    // The term in the upper half: what a later controller says is always newer.
    ControllerMessage { kind: Some(Kind::Desired(Desired { generation: term << 32 | generation, instances })) }
}
