//! What is wanted of an instance: said by the keeper of the set, read by the instance's task. Pure.

use std::sync::Arc;

use api::agent::Instance;

/// What is wanted of an instance.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// It should run, as this says.
    Run(Arc<Instance>),
    /// It should end, and nothing stay but its log.
    Stop,
    /// It has ended, its task says so itself. INVARIANT: nothing follows, so whoever wants it again needs a new task.
    Ended,
}

impl Wanted {
    /// Whether exactly this should run.
    ///
    /// Releases are immutable, so the same id is the same thing, except after a controller came back from a backup and
    /// gave a number twice.
    pub(super) fn is_run(&self, instance: &Instance) -> bool {
        let Self::Run(wanted) = self else { return false };
        wanted.digest == instance.digest
            && wanted.run == instance.run
            && wanted.environment == instance.environment
            && wanted.has_port == instance.has_port
    }

    /// Wants it to run, unless it has ended for good.
    pub(crate) fn run(&mut self, instance: &Arc<Instance>) -> bool {
        self.change(Self::Run(instance.clone()))
    }

    /// Wants it to end, unless it has ended for good.
    pub(crate) fn stop(&mut self) -> bool {
        self.change(Self::Stop)
    }

    /// Ends it for good, unless it is wanted again.
    pub(super) fn end(&mut self) -> bool {
        let ends = matches!(self, Self::Stop);
        ends && self.change(Self::Ended)
    }

    fn change(&mut self, to: Self) -> bool {
        let open = !matches!(self, Self::Ended);
        if open {
            *self = to;
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_what_has_ended_is_not_wanted_again_and_what_is_wanted_does_not_end() {
        let instance = Arc::new(Instance { digest: "a".into(), ..Instance::default() });
        let mut wanted = Wanted::Run(instance.clone());
        assert!(!wanted.end() && wanted.is_run(&instance));
        assert!(wanted.stop() && wanted.run(&instance), "it was about to stop");
        assert!(!wanted.end() && wanted.is_run(&instance));
        assert!(wanted.stop() && wanted.end());
        assert!(!wanted.run(&instance) && !wanted.stop() && !wanted.end());
    }

    #[test]
    fn agent_the_same_id_with_another_digest_is_another_thing() {
        let old = Instance { id: "i".into(), digest: "a".into(), ..Instance::default() };
        let wanted = Wanted::Run(Arc::new(old.clone()));
        assert!(wanted.is_run(&Instance { stop_ms: 7, ..old.clone() }));
        assert!(!wanted.is_run(&Instance { digest: "b".into(), ..old.clone() }));
        assert!(!wanted.is_run(&Instance { run: vec!["x".into()], ..old }));
    }
}
