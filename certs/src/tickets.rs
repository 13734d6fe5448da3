//! Tickets of TLS sessions that every proxy of a fleet can open: the keys are shared, and nothing else has to be.
//!
//! Must not know: where keys come from, when they change, or for whom a session was.
//!
//! A ticket is the name of its key (16 bytes), a nonce (12), and what rustls puts in, sealed with AES-256-GCM under that
//! name (RFC 5116). TLS 1.2 (RFC 5077) and 1.3 (RFC 8446 §4.6.1) alike.
//!
//! Main types: [`TicketKeys`], keys at one time; [`Tickets`], which rustls asks.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use crate::CertsError;

/// How long a client may keep a ticket: as long as tickets are made with one key, since keys rotate every 12 hours, and the
/// one before is accepted for as long. So a ticket is good to its end, and what ends a session for certain is that its key
/// goes. RFC 8446 §4.6.1 allows a week.
const LIFETIME_S: u32 = 12 * 3_600;
/// Length of a key's name.
pub const NAME_BYTES: usize = 16;

type Name = [u8; NAME_BYTES];

/// The key that new tickets are made with, and those whose tickets are accepted.
pub struct TicketKeys {
    /// The first is the current one.
    keys: Vec<(Name, LessSafeKey)>,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TicketKeys").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl TicketKeys {
    /// Takes over keys with their names, the current one first. A name is 16 bytes, a key 32.
    ///
    /// # Errors
    /// No key, or a name or key of another length.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Self, CertsError> {
        let one = |(name, key): (&[u8], &[u8])| {
            let name = Name::try_from(name)
                .map_err(|_| CertsError::Material(format!("a name has {} bytes, not {NAME_BYTES}", name.len())))?;
            let unbound = UnboundKey::new(&AES_256_GCM, key)
                .map_err(|_| CertsError::Material(format!("a key has {} bytes, not 32", key.len())))?;
            Ok((name, LessSafeKey::new(unbound)))
        };
        let keys: Vec<_> = keys.into_iter().map(one).collect::<Result<_, CertsError>>()?;
        if keys.is_empty() { Err(CertsError::Material("there is no key".into())) } else { Ok(Self { keys }) }
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        // Random, by every worker of every proxy alike: one key is good for 2^32 tickets (NIST SP 800-38D §8.3), when the odds
        // that any two nonces are the same are 2^-33. In the 12 hours until the next rotation these are 99,000 tickets a second
        // by the whole fleet, or half as many handshakes of TLS 1.3, each of which makes two.
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        // Names are no secret: they stand in every ticket.
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut sealed).ok()?;
        let length = plain.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

/// Makes and opens tickets with the newest keys; makes none as long as there are no keys.
#[derive(Debug, Default)]
pub struct Tickets {
    // Written by the admin runtime, read in each handshake by every worker.
    keys: ArcSwapOption<TicketKeys>,
}

impl Tickets {
    /// Replaces all keys. Tickets of keys that are gone are as good as none; connections go on.
    pub fn publish(&self, keys: Option<Arc<TicketKeys>>) {
        self.keys.store(keys);
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.keys.load().is_some()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().as_ref()?.seal(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.keys.load().as_ref()?.open(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[u8]) -> Option<Arc<TicketKeys>> {
        let all: Vec<_> = names.iter().map(|name| ([*name; NAME_BYTES], [!*name; 32])).collect();
        TicketKeys::new(all.iter().map(|(name, key)| (&name[..], &key[..]))).ok().map(Arc::new)
    }

    #[test]
    fn tickets_open_with_current_and_accepted_keys_and_with_no_other() {
        let (here, there) = (Tickets::default(), Tickets::default());
        assert!(!here.enabled() && here.encrypt(b"a session").is_none() && here.decrypt(&[0; 64]).is_none());
        here.publish(keys(&[1, 2]));
        assert!(here.enabled());
        let ticket = here.encrypt(b"a session").expect("made");
        assert_ne!(here.encrypt(b"a session").expect("made"), ticket);
        assert!(!ticket.windows(9).any(|part| part == b"a session"));
        for (names, opens) in [(&[1][..], true), (&[2, 1], true), (&[3, 2, 1], true), (&[2], false), (&[], false)] {
            there.publish(keys(names));
            assert_eq!(there.decrypt(&ticket).as_deref(), opens.then_some(&b"a session"[..]), "{names:?}");
        }
        assert_eq!(TicketKeys::new([]).map(drop).map_err(|error| error.to_string()), Err("there is no key".into()));
        for (name, key) in [(15, 32), (17, 32), (16, 31), (16, 48), (16, 0)] {
            assert!(TicketKeys::new([(&[0; 17][..name], &[0; 48][..key])]).is_err(), "{name} {key}");
        }
    }

    #[test]
    fn hostile_h60_a_ticket_that_is_none_is_none() {
        let tickets = Tickets::default();
        tickets.publish(keys(&[1]));
        let ticket = tickets.encrypt(b"a session").expect("made");
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
        }
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 0x40;
            assert_eq!(tickets.decrypt(&changed), None, "{place}");
        }
        assert_eq!(tickets.decrypt(&[&ticket[..], &[0]].concat()), None);
        assert_eq!(tickets.decrypt(&vec![1; 1 << 20]), None);
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
    }
}
