//! Ports for instances: free when first given, kept for as long as the instance is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// Who has which port.
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    given: Mutex<BTreeMap<u16, String>>,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, given: Mutex::default() }
    }

    /// A port nobody uses, from now on that of `id`.
    ///
    /// # Errors
    /// A sentence, when the range is used up.
    pub(crate) fn give(&self, id: &str) -> Result<u16, String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let free = |port: &u16| !given.contains_key(port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        let port = self
            .range
            .clone()
            .find(free)
            .ok_or_else(|| format!("no port from {} to {} is free", self.range.start(), self.range.end()))?;
        given.insert(port, id.to_owned());
        Ok(port)
    }

    /// Takes note of a port that `id` has had before.
    pub(crate) fn keep(&self, id: &str, port: u16) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(port, id.to_owned());
    }

    /// Takes back the port of an instance that is gone.
    pub(crate) fn give_back(&self, id: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, owner| owner != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_ports_are_given_once_and_come_back() {
        let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
        let port = taken.local_addr().expect("address").port();
        let ports = Ports::new(port..=port);
        assert!(ports.give("a").is_err(), "somebody else listens there");
        drop(taken);
        assert_eq!(ports.give("a"), Ok(port));
        assert!(ports.give("b").is_err());
        ports.give_back("a");
        assert_eq!(ports.give("b"), Ok(port));
    }
}
