//! Names of our own 404s: why it was, sealed so that only operators can open it. All have one form and one length.
//!
//! Must not know: how an answer is written. Main functions: [`name`]; [`seal_of_process`], for when no key was sent.

use policies::credential::Standing;
use policies::credential::denial::{Denial, Seal};
use policies::verdict::Why;

use crate::callers::Caller;
use crate::request_id::{Block, RequestId};

/// Seals with a key that nobody else has, so that names look alike before the first key has come.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn seal_of_process() -> std::io::Result<Seal> {
    let (mut name, mut key) = ([0; 8], [0; 32]);
    for bytes in [&mut name[..], &mut key[..]] {
        aws_lc_rs::rand::fill(bytes).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
    }
    Ok(Seal::new(name, &key))
}

/// The name of an answer. `stage`: as a denial names it; 0: no stage has the host. `own`: the request's own.
pub(crate) fn name(seal: &Seal, caller: &Caller, (stage, why): (u64, Why), own: &Block, at_ms: u64) -> RequestId {
    let identity = &caller.identity;
    let (application, user) = caller.short;
    let denial = Denial {
        at_ms,
        stage,
        application,
        user,
        why: why as u8,
        application_fault: fault(&identity.application),
        user_fault: fault(&identity.user),
    };
    // Allocates: a name of its own is longer than others.
    RequestId::Denial(Box::new(seal.seal(&denial, own)))
}

fn fault<T>(standing: &Standing<T>) -> u8 {
    standing.fault().map_or(0, |fault| fault as u8)
}
