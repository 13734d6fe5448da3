//! What endpoints are told of who calls, signed once for each caller and stage, and again when half of its time is over.
//!
//! Must not know: requests, or what an assertion says.
//!
//! Main type: [`Assertions`], a worker's memory.

use std::rc::Rc;

use policies::credential::assertion::LIFETIME_S;

use crate::callers::Caller;
use crate::recent::{Hashing, Recent};
use crate::request_id::{Block, RequestId};
use crate::snapshot::{Gate, Stage};

/// Assertions that each half of a worker's memory holds; one takes about half a kilobyte.
const MOST: usize = 4_096;

/// See the module. One thread owns it.
#[derive(Debug)]
pub(crate) struct Assertions {
    hashing: Hashing,
    signed: Recent<Signed>,
    /// Of the gate whose key signed.
    generation: u64,
}

#[derive(Debug)]
struct Signed {
    caller: u64,
    slot: u32,
    text: Rc<str>,
    at_s: u64,
}

impl Default for Assertions {
    fn default() -> Self {
        Self { hashing: Hashing::default(), signed: Recent::new(MOST), generation: 0 }
    }
}

impl Assertions {
    /// What the endpoints of a stage are told; `None`: nobody is known, or there is no key. `now_s`: seconds since the Unix
    /// epoch.
    pub(crate) fn of(
        &mut self,
        gate: &Gate,
        caller: &Caller,
        stage: &Stage,
        own: &Block,
        now_s: impl FnOnce() -> u64,
    ) -> Option<Rc<str>> {
        let signer = gate.signer.as_deref().filter(|_| caller.is_known())?;
        let now_s = now_s();
        if self.generation != gate.generation {
            // Stages may have other places, and callers other groups.
            self.generation = gate.generation;
            self.signed.clear();
        }
        let sign = || -> Rc<str> {
            // Allocates: once for many requests.
            let id = RequestId::own(*own);
            signer.sign(&caller.identity, &stage.text, &String::from_utf8_lossy(id.as_bytes()), now_s).into()
        };
        let Some(number) = caller.number else { return Some(sign()) };
        let hash = self.hashing.hash(|hasher| {
            use std::hash::Hasher;
            hasher.write_u64(number);
            hasher.write_u32(stage.slot);
        });
        // A clock that was set back makes it one of the future.
        let counts = |one: &Signed| {
            (one.caller, one.slot) == (number, stage.slot) && one.at_s <= now_s && now_s < one.at_s + LIFETIME_S / 2
        };
        if let Some(known) = self.signed.get(hash, counts) {
            return Some(known.text.clone());
        }
        let text = sign();
        self.signed.insert(hash, Signed { caller: number, slot: stage.slot, text: text.clone(), at_s: now_s });
        Some(text)
    }
}
