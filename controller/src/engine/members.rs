//! Agents that are connected, and what each was told last.

use std::collections::{BTreeMap, BTreeSet};

use api::MemberName;
use api::agent::{ControllerMessage, Desired, Instance, controller_message::Kind};
use tokio::sync::mpsc;

use crate::core::observe::InstanceSeen;
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
    /// Under which number that was told.
    generation: u64,
}

/// What agents report, by name and instance.
type Seen = BTreeMap<MemberName, BTreeMap<String, InstanceSeen>>;

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
        let generation = in_term(self.generation, state.term);
        if sender.messages.try_send(desired_message(generation, told.clone())).is_ok() {
            self.connected.insert(name, Connected { sender, told, generation });
        }
    }

    pub(super) fn disconnect(&mut self, name: &MemberName) {
        self.connected.remove(name);
    }

    /// Whether `connection` is the agent's newest.
    pub(super) fn is_current(&self, name: &MemberName, connection: u64) -> bool {
        self.connected.get(name).is_some_and(|agent| agent.sender.connection == connection)
    }

    /// Whether a report answers what the agent was told last; an older one tells of what should not be any more.
    pub(super) fn answers(&self, name: &MemberName, generation: u64) -> bool {
        self.connected.get(name).is_some_and(|agent| generation >= agent.generation)
    }

    /// Tells every agent whose part has changed. One that does not take it is disconnected and will ask again.
    ///
    /// What was seen of instances that should not run any more is dropped: they end, and the next of their name is not
    /// taken for them.
    pub(super) fn refresh(&mut self, state: &State, seen: &mut Seen) {
        let count = &mut self.generation;
        self.connected.retain(|name, agent| {
            let wanted = desired::of_agent(state, name);
            if wanted == agent.told {
                return true;
            }
            *count += 1;
            agent.generation = in_term(*count, state.term);
            let ids: BTreeSet<&str> = wanted.iter().map(|instance| instance.id.as_str()).collect();
            if let Some(instances) = seen.get_mut(name) {
                instances.retain(|id, _| ids.contains(id.as_str()));
            }
            agent.told.clone_from(&wanted);
            let taken = agent.sender.messages.try_send(desired_message(agent.generation, wanted)).is_ok();
            if !taken {
                seen.remove(name);
            }
            taken
        });
    }
}

#[cfg(test)]
impl Agents {
    /// Has every agent be told anew.
    pub(super) fn forget_told(&mut self) {
        self.connected.values_mut().for_each(|agent| agent.told = vec![Instance::default()]);
    }
}

/// The term in the upper half: what a later controller says is always newer.
fn in_term(count: u64, term: u64) -> u64 {
    term << 32 | count
}

fn desired_message(generation: u64, instances: Vec<Instance>) -> ControllerMessage {
    ControllerMessage { kind: Some(Kind::Desired(Desired { generation, instances })) }
}
