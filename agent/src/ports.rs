//! Ports for instances: free when first given, kept for as long as the instance is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Who has which port.
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    given: Mutex<Given>,
}

struct Given {
    owners: BTreeMap<u16, String>,
    /// Where the search begins: a port rests as long as possible before another instance has it, because a proxy that
    /// lags may still send requests there.
    next: u16,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        let next = *range.start();
        Self { range, given: Mutex::new(Given { owners: BTreeMap::new(), next }) }
    }

    /// The port of `id`: the one it `had`, otherwise one that nobody uses.
    ///
    /// # Errors
    /// A sentence: the range is used up, or somebody else listens on the one it had, whom a probe would find well.
    pub(crate) fn give(&self, id: &str, had: Option<u16>) -> Result<u16, String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = had {
            given.owners.insert(port, id.to_owned());
            return is_free(port).then_some(port).ok_or_else(|| format!("its port {port} is taken by another process"));
        }
        let (first, last, next) = (*self.range.start(), *self.range.end(), given.next);
        let port = (next..=last)
            .chain(first..next)
            .find(|port| !given.owners.contains_key(port) && is_free(*port))
            .ok_or_else(|| format!("no port from {first} to {last} is free"))?;
        given.owners.insert(port, id.to_owned());
        given.next = port.saturating_add(1);
        Ok(port)
    }

    /// Takes note of a port that `id` has had before.
    pub(crate) fn keep(&self, id: &str, port: u16) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.owners.insert(port, id.to_owned());
        if self.range.contains(&port) {
            given.next = given.next.max(port.saturating_add(1));
        }
    }

    /// Takes back the port of an instance that is gone.
    pub(crate) fn give_back(&self, id: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).owners.retain(|_, owner| owner != id);
    }
}

/// Whether nobody listens there. Called with the lock held: two looks at the same port would see each other.
fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ports_are_given_once_and_come_back() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = taken.local_addr().expect("address").port();
        let ports = Ports::new(port..=port);
        assert!(ports.give("a", None).is_err(), "somebody else listens there");
        assert!(ports.give("a", Some(port)).is_err(), "also when it was its own");
        assert!(ports.give("b", None).is_err(), "it stays its own");
        drop(taken);
        assert_eq!(ports.give("a", Some(port)), Ok(port));
        assert!(ports.give("b", None).is_err());
        ports.give_back("a");
        assert_eq!(ports.give("b", None), Ok(port));
    }

    #[test]
    fn agent_ports_rest_before_another_has_them() {
        let ports = Ports::new(30_000..=32_000);
        let first = ports.give("a", None).expect("a port");
        ports.give_back("a");
        let second = ports.give("b", None).expect("a port");
        assert!(second > first, "{first} {second}");
        ports.keep("c", 31_000);
        assert!(ports.give("d", None).expect("a port") > 31_000);
    }
}
