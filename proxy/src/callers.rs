//! Who asks, as one worker remembers it: credentials are looked at once and then known by their bytes.
//!
//! Must not know: stages, policies, or answers.
//!
//! INVARIANT: only what is valid is remembered, so that nobody makes a worker forget valid callers by presenting garbage; and
//! only as long as those who may be known, their keys and the credential itself are the same. What is valid beside something
//! that is not has a memory of its own: that may be garbage. What is long is not remembered, so that there is an end in bytes.
//!
//! Main types: [`Callers`], a worker's memory; [`Caller`].

mod kept;

use std::rc::Rc;
use std::sync::Arc;

use policies::credential::{Access, Fault, Given, Identity, Issuers, KeyRing, Presented, Standing, User, denial};

use self::kept::{Counted, Kept};
use crate::codec::RequestView;
use crate::recent::{Hashing, Recent, add};
use crate::snapshot::Gate;

/// Callers, and tokens, that each half of a worker's memory holds.
const MOST: usize = 4_096;
/// The same of callers of whom one credential is not valid.
const MOST_HALVES: usize = 512;
/// Tokens that are longer are verified each time.
const TOKEN_BYTES: usize = 4 * 1024;
/// All that a caller presents; more is looked at each time.
const CALLER_BYTES: usize = TOKEN_BYTES + 1024;

/// Who asks.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) identity: Identity,
    /// By what decisions for it are remembered: callers with the same number are the same to policies. `None`: they are not
    /// remembered.
    pub(crate) number: Option<u64>,
    /// How a denial names application and user.
    pub(crate) short: (u64, u64),
    presented: Kept,
}

/// See the module. One thread owns it.
#[derive(Debug)]
pub(crate) struct Callers {
    hashing: Hashing,
    known: Recent<Rc<Caller>>,
    /// Those of whom one credential is valid and another is not.
    halves: Recent<Rc<Caller>>,
    tokens: Recent<Token>,
    /// Of the gate that `known` was asked of.
    generation: u64,
    /// What tokens were verified with.
    issuers: Arc<Issuers>,
    ring: u64,
    next: u64,
    nobody: Rc<Caller>,
}

/// A token that was verified.
#[derive(Debug)]
struct Token {
    bytes: Box<[u8]>,
    user: Arc<User>,
    /// Of the user without an application.
    number: u64,
}

#[cfg(test)]
impl Default for Caller {
    /// Nobody.
    fn default() -> Self {
        let callers = Callers::default();
        Rc::into_inner(callers.nobody).expect("nobody else has it")
    }
}

impl Default for Callers {
    fn default() -> Self {
        let identity = Identity {
            application: Standing::Absent,
            user: Standing::Absent,
            until_s: None,
            by_proxy_authorization: false,
        };
        let nobody = Caller { identity, number: Some(NOBODY), short: (0, 0), presented: Kept::default() };
        Self {
            hashing: Hashing::default(),
            known: Recent::new(MOST),
            halves: Recent::new(MOST_HALVES),
            tokens: Recent::new(MOST),
            generation: 0,
            issuers: Arc::default(),
            ring: 0,
            next: NOBODY + 1,
            nobody: Rc::new(nobody),
        }
    }
}

/// The number of all that have nothing valid.
const NOBODY: u64 = 0;

impl Caller {
    /// Whether anything is known of who calls.
    pub(crate) fn is_known(&self) -> bool {
        is_valid(&self.identity.application) || is_valid(&self.identity.user)
    }

    /// Whether newer keys of an issuer may show that its token is valid.
    pub(crate) fn lacks_keys(&self) -> bool {
        matches!(self.identity.user, Standing::Unavailable(_) | Standing::Refused(Fault::UnknownKey))
    }

    /// What was presented, as far as anything of it was valid.
    pub(crate) fn presented(&self) -> Presented<'_> {
        self.presented.presented()
    }

    /// Whether `authorization` is for us, and nobody else's to see: also a token of our issuer that nobody can verify now.
    pub(crate) fn spent_authorization(&self) -> bool {
        let is_ours = matches!(self.identity.user, Standing::Valid(_) | Standing::Unavailable(_));
        is_ours && !self.identity.by_proxy_authorization
    }
}

/// Reads what a request presents, in one pass. `certificate`: names in the one that the client showed.
pub(crate) fn presented<'a>(view: RequestView<'a>, certificate: &'a [String]) -> Presented<'a> {
    let mut presented = Presented { certificate, ..Presented::default() };
    for (name, value) in view.fields() {
        let given = match name {
            "x-api-key" => &mut presented.api_key,
            "authorization" => &mut presented.authorization,
            "proxy-authorization" => &mut presented.proxy_authorization,
            _ => continue,
        };
        *given = if *given == Given::Nothing { Given::One(value) } else { Given::Several };
    }
    presented
}

/// The token that names the user, if there is one.
pub(crate) fn token<'a>(presented: &Presented<'a>) -> Option<&'a [u8]> {
    Counted::of(presented).token()
}

impl Callers {
    /// Who presents this. `now_s`: seconds since the Unix epoch.
    pub(crate) fn identify(
        &mut self,
        gate: &Gate,
        keys: &KeyRing,
        presented: &Presented<'_>,
        now_s: impl FnOnce() -> u64,
    ) -> Rc<Caller> {
        let counted = Counted::of(presented);
        if gate.knows_nobody || counted.is_nothing() {
            return self.nobody.clone();
        }
        let now_s = now_s();
        self.keep_up(gate, keys);
        self.look_up(&counted, now_s).unwrap_or_else(|| self.establish(&gate.access, keys, presented, now_s))
    }

    /// Who presented the same before.
    fn look_up(&mut self, counted: &Counted<'_>, now_s: u64) -> Option<Rc<Caller>> {
        let hash = counted.hash(&self.hashing);
        let counts = |caller: &Rc<Caller>| {
            caller.presented.is(counted) && caller.identity.until_s.is_none_or(|until| now_s < until)
        };
        let known = self.known.get(hash, counts).cloned();
        known.or_else(|| self.halves.get(hash, counts).cloned())
    }

    fn keep_up(&mut self, gate: &Gate, keys: &KeyRing) {
        let is_same = Arc::ptr_eq(&self.issuers, &gate.access.issuers) && self.ring == keys.generation;
        if !is_same {
            (self.issuers, self.ring) = (gate.access.issuers.clone(), keys.generation);
            self.tokens.clear();
        }
        if !is_same || self.generation != gate.generation {
            self.generation = gate.generation;
            self.known.clear();
            self.halves.clear();
        }
    }

    /// Looks at credentials that are not known. Allocates.
    fn establish(&mut self, access: &Access, keys: &KeyRing, presented: &Presented<'_>, now_s: u64) -> Rc<Caller> {
        let counted = Counted::of(presented);
        let identity = access.identify(presented, now_s, |token| self.user(token, &access.issuers, keys, now_s));
        let (application, user) = (&identity.application, &identity.user);
        let fits = counted.fits(CALLER_BYTES);
        let number = match (is_valid(application), is_valid(user)) {
            (false, false) => Some(NOBODY),
            (true, _) if is_valid(user) || *user == Standing::Absent => fits.then(|| self.draw()),
            // The field is the application's own, or its token is no good: to policies it is the application alone.
            (true, _) => {
                let nothing = Given::Nothing;
                let alone = Presented { authorization: nothing, proxy_authorization: nothing, ..*presented };
                self.alone(access, keys, &alone, now_s)
            }
            // Nor does a key that is refused count for policies.
            (false, true) => counted.token().and_then(|token| self.number_of(token)),
        };
        let short = (name_of_application(application), name_of_user(user));
        let is_whole = is_good(application) && is_good(user);
        let lasts = lasts(application) && lasts(user);
        // Whoever stays long presents it again.
        let presented = if number == Some(NOBODY) { Kept::default() } else { Kept::of(&counted) };
        let caller = Rc::new(Caller { identity, number, short, presented });
        if fits && lasts && number != Some(NOBODY) {
            let memory = if is_whole { &mut self.known } else { &mut self.halves };
            memory.insert(counted.hash(&self.hashing), caller.clone());
        }
        caller
    }

    /// The number of an application by itself.
    fn alone(&mut self, access: &Access, keys: &KeyRing, presented: &Presented<'_>, now_s: u64) -> Option<u64> {
        let known = self.look_up(&Counted::of(presented), now_s);
        known.unwrap_or_else(|| self.establish(access, keys, presented, now_s)).number
    }

    /// The number of a user by itself; `None`: its token is not remembered.
    fn number_of(&mut self, token: &[u8]) -> Option<u64> {
        let hash = self.hashing.hash(|hasher| add(hasher, token));
        self.tokens.get(hash, |known| *known.bytes == *token).map(|known| known.number)
    }

    /// Verifies a token, or remembers that it was.
    fn user(&mut self, token: &[u8], issuers: &Issuers, keys: &KeyRing, now_s: u64) -> Standing<Arc<User>> {
        let hash = self.hashing.hash(|hasher| add(hasher, token));
        let counts = |known: &Token| *known.bytes == *token && now_s < known.user.until_s;
        if let Some(known) = self.tokens.get(hash, counts) {
            return Standing::Valid(known.user.clone());
        }
        let standing = issuers.user(token, keys, now_s);
        if let Standing::Valid(user) = &standing
            && token.len() <= TOKEN_BYTES
        {
            let number = self.draw();
            self.tokens.insert(hash, Token { bytes: token.into(), user: user.clone(), number });
        }
        standing
    }

    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn is_valid<T>(standing: &Standing<T>) -> bool {
    matches!(standing, Standing::Valid(_))
}

/// Whether nothing about it is wrong.
fn is_good<T: PartialEq>(standing: &Standing<T>) -> bool {
    is_valid(standing) || *standing == Standing::Absent
}

/// Whether time alone, or newer keys, cannot make it valid.
fn lasts<T>(standing: &Standing<T>) -> bool {
    !matches!(
        standing,
        Standing::Unavailable(_) | Standing::Refused(Fault::UnknownKey | Fault::NotYet | Fault::IssuedLater)
    )
}

fn name_of_application(standing: &Standing<Arc<policies::credential::Application>>) -> u64 {
    match standing {
        Standing::Valid(application) => denial::short(&application.name),
        _ => 0,
    }
}

fn name_of_user(standing: &Standing<Arc<User>>) -> u64 {
    match standing {
        Standing::Valid(user) => denial::short_user(&user.issuer, &user.subject),
        _ => 0,
    }
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
