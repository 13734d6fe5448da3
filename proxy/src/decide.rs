//! What happens to a request, by who asks and where: policies are asked, and what they said is remembered.
//!
//! Must not know: how an answer is written, or what credentials look like.
//!
//! INVARIANT: a host that no stage has is asked for as one that is hidden is: the same look-ups, the same evaluations, the
//! same memory. What is allowed and what is not are remembered apart, so that no flood of the one costs the other anything.
//!
//! Main function: [`decide`]. Main types: [`Request`], what is asked; [`Judged`]; [`Decisions`], a worker's memory.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use policies::policy::{Action, Asking as Prepared, Question};
use policies::verdict::{Named, Said, Verdict, Wanted, Why, judge};

use crate::callers::Caller;
use crate::explain;
use crate::recent::{Hashing, Recent, add};
use crate::route::Routed;
use crate::snapshot::{Gate, Guarded};

/// Decisions that each half of a memory holds, of either kind.
const MOST: usize = 4_096;
/// Longer ones are not remembered: service, method and path together.
const TEXT_BYTES: usize = 512;
/// What servers of gRPC are asked for their health by (grpc/doc/health-checking.md).
pub(crate) const GRPC_HEALTH: &str = "/grpc.health.v1.Health/";

/// What is asked, as far as it is decided on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// With the query.
    pub(crate) path: &'a str,
    /// By its content type.
    pub(crate) is_rpc: bool,
    pub(crate) is_upgrade: bool,
    /// A browser asks before it calls.
    pub(crate) is_preflight: bool,
    pub(crate) client: IpAddr,
    /// Milliseconds since the Unix epoch; asked for when policies are.
    pub(crate) now_ms: fn() -> u64,
}

/// What was decided, and on what.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    pub(crate) action: Action,
    /// The last that policies said; `None`: none was asked.
    pub(crate) said: Option<Rc<Answered>>,
    /// All for which a policy could not be evaluated, the last or before. Allocates only then.
    pub(crate) failed: Vec<Rc<Answered>>,
}

/// What policies said to one question.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) said: Said,
    /// Those that decided.
    pub(crate) policies: Vec<Arc<str>>,
    /// Those that could not be evaluated, and why.
    pub(crate) errors: Vec<String>,
}

/// A worker's memory. One thread owns it.
#[derive(Debug)]
pub(crate) struct Decisions {
    hashing: Hashing,
    allowed: Recent<Known>,
    /// And what is not there.
    denied: Recent<Known>,
    /// Of the gate that was asked.
    generation: u64,
    work: Work,
}

/// What was done for requests so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Work {
    /// In the memory.
    pub(crate) looked_up: u64,
    /// In what was compiled.
    pub(crate) found: u64,
    /// Questions that policies were asked.
    pub(crate) asked: u64,
    /// Policies that were evaluated for them, at most: see `StagePolicies::count`.
    pub(crate) evaluated: u64,
}

/// A decision with all that it was made for.
#[derive(Debug)]
struct Known {
    caller: u64,
    /// Where: the gate keeps it in its place as long as it is the same gate.
    guarded: *const Guarded,
    service: Box<str>,
    action: Action,
    release: Option<u32>,
    /// As far as policies read them.
    method: Option<Box<str>>,
    path: Option<Box<str>>,
    answered: Rc<Answered>,
}

/// What a decision is remembered by.
#[derive(Debug, Clone, Copy)]
struct Key<'a> {
    caller: u64,
    guarded: *const Guarded,
    service: &'a str,
    action: Action,
    release: Option<u32>,
    method: Option<&'a str>,
    path: Option<&'a str>,
}

impl Default for Decisions {
    fn default() -> Self {
        Self {
            hashing: Hashing::default(),
            allowed: Recent::new(MOST),
            denied: Recent::new(MOST),
            generation: 0,
            work: Work::default(),
        }
    }
}

/// Weighs a request in the one order there is.
pub(crate) fn decide(
    decisions: &mut Decisions,
    gate: &Gate,
    caller: &Caller,
    routed: &Routed<'_, '_>,
    request: &Request<'_>,
) -> Judged {
    let action = request.action();
    let release = routed.named();
    let judged = |verdict, said| Judged { verdict, action, said, failed: Vec::new() };
    let rule = match routed.stage {
        Some(_) => match routed.shape.rule {
            Some(rule) => Some(rule),
            // Nobody said who may: a controller of before there were policies.
            None if release == Named::Unknown => return judged(Verdict::Hidden(Why::UnknownRelease), None),
            None => return judged(Verdict::Allowed, None),
        },
        None if !gate.guards => return judged(Verdict::Hidden(Why::UnknownHost), None),
        None => None,
    };
    #[cfg(test)]
    if rule.is_none() && Leak::Early.is_set() {
        return judged(Verdict::Hidden(Why::UnknownHost), None);
    }
    decisions.keep_up(gate);
    // Who asks is prepared once for all questions that were not asked before.
    let (mut last, mut failed, mut prepared) = (None, Vec::new(), None);
    let wanted = Wanted { action, exempt: request.exempt(routed), release };
    let verdict = judge(rule, &caller.identity, wanted, |action| {
        let answered = decisions.ask(caller, routed, action, request, &mut prepared);
        let said = answered.said;
        if said == Said::Failed {
            failed.push(answered.clone());
        }
        last = Some(answered);
        // Of who may, whether it asks at the place itself.
        if action == Action::Check && said == Said::Yes && !routed.is_checked_at(request.bare_path(), request.is_call())
        {
            Said::No
        } else {
            said
        }
    });
    Judged { failed, ..judged(verdict, last) }
}

/// What would tell a hidden stage from none: tests do it, to see that they see it.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leak {
    /// Nothing is asked of what is not there.
    Early,
    /// The answer of what is hidden has a field more.
    Header,
}

#[cfg(test)]
thread_local!(static LEAK: std::cell::Cell<Option<Leak>> = const { std::cell::Cell::new(None) });

#[cfg(test)]
impl Leak {
    /// For this thread.
    pub(crate) fn set(leak: Option<Self>) {
        LEAK.set(leak);
    }

    pub(crate) fn is_set(self) -> bool {
        LEAK.get() == Some(self)
    }
}

impl Judged {
    /// The verdict in a word, for people.
    pub(crate) fn outcome(&self) -> &'static str {
        explain::outcome(self.verdict)
    }
}

impl Request<'_> {
    fn action(&self) -> Action {
        match self.method {
            _ if self.is_upgrade => Action::Upgrade,
            _ if self.is_call() => Action::Rpc,
            method => Action::of_method(method),
        }
    }

    /// A call is a POST (gRPC over HTTP/2, "Requests"); what a server makes of any other with its content type is not known.
    fn is_call(&self) -> bool {
        self.is_rpc && self.method == "POST"
    }

    pub(crate) fn bare_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// What it may pass as without credentials. The same for every host of a zone, whether or not it is there.
    fn exempt(&self, routed: &Routed<'_, '_>) -> Option<Action> {
        if self.is_preflight {
            return Some(Action::Preflight);
        }
        let is_check = if self.is_call() {
            self.path.starts_with(GRPC_HEALTH)
        } else {
            matches!(self.method, "GET" | "HEAD") && !self.is_upgrade && routed.guarded.is_health_path(self.bare_path())
        };
        is_check.then_some(Action::Check)
    }
}

// === impl Decisions ===

impl Decisions {
    /// What was done so far.
    #[cfg(test)]
    pub(crate) fn work(&self) -> Work {
        Work { found: crate::snapshot::looked_up::count(), ..self.work }
    }

    fn keep_up(&mut self, gate: &Gate) {
        if self.generation != gate.generation {
            self.generation = gate.generation;
            self.allowed.clear();
            self.denied.clear();
        }
    }

    fn ask<'a>(
        &mut self,
        caller: &Caller,
        routed: &Routed<'a, '_>,
        action: Action,
        request: &Request<'_>,
        prepared: &mut Option<Prepared<'a>>,
    ) -> Rc<Answered> {
        let asking = routed.asking;
        let reads = asking.reads(action);
        let release = if action == Action::Use { routed.number() } else { None };
        let key = Key {
            caller: caller.number.unwrap_or_default(),
            guarded: routed.guarded,
            service: routed.service,
            action,
            release,
            method: reads.method.then_some(request.method),
            // As policies see it.
            path: reads.path.then_some(request.bare_path()),
        };
        let is_kept = caller.number.is_some() && !reads.volatile && key.bytes() <= TEXT_BYTES;
        let hash = key.hash(&self.hashing);
        self.work.looked_up += 1;
        if is_kept {
            // In both, one after the other: also what is hidden and what is not there.
            if let Some(known) = self.allowed.get(hash, |known| known.is(&key)) {
                return known.answered.clone();
            }
            if let Some(known) = self.denied.get(hash, |known| known.is(&key)) {
                return known.answered.clone();
            }
        }
        // Allocates: the first time.
        let question = Question {
            action,
            release,
            method: request.method,
            path: request.path,
            client: request.client,
            now_ms: (request.now_ms)(),
        };
        let policies = asking.policies();
        self.work.asked += 1;
        self.work.evaluated += policies.count(action) as u64;
        let decision = prepared.get_or_insert_with(|| policies.asking(&caller.identity)).decide(&question);
        let said = match (decision.errors.is_empty(), decision.is_allowed) {
            (false, _) => Said::Failed,
            (true, true) => Said::Yes,
            (true, false) => Said::No,
        };
        let answered = Rc::new(Answered { said, policies: decision.policies, errors: decision.errors });
        if is_kept {
            // Of what is not there nothing is ever allowed, whatever policies say of it.
            let is_allowed = said == Said::Yes && routed.stage.is_some();
            let memory = if is_allowed { &mut self.allowed } else { &mut self.denied };
            memory.insert(hash, Known::of(&key, answered.clone()));
        }
        answered
    }
}

impl Key<'_> {
    fn bytes(&self) -> usize {
        self.service.len() + self.method.map_or(0, str::len) + self.path.map_or(0, str::len)
    }

    fn hash(&self, hashing: &Hashing) -> u64 {
        use std::hash::Hasher;
        hashing.hash(|hasher| {
            hasher.write_u64(self.caller);
            hasher.write_usize(self.guarded as usize);
            hasher.write_u64(u64::from(self.release.unwrap_or_default()) << 8 | self.action as u64);
            add(hasher, self.service.as_bytes());
            [self.method, self.path].into_iter().flatten().for_each(|text| add(hasher, text.as_bytes()));
        })
    }
}

impl Known {
    fn of(key: &Key<'_>, answered: Rc<Answered>) -> Self {
        let Key { caller, guarded, service, action, release, method, path } = *key;
        let (method, path) = (method.map(Into::into), path.map(Into::into));
        Self { caller, guarded, service: service.into(), action, release, method, path, answered }
    }

    fn is(&self, key: &Key<'_>) -> bool {
        (self.caller, self.guarded, self.action, self.release) == (key.caller, key.guarded, key.action, key.release)
            && *self.service == *key.service
            && self.method.as_deref() == key.method
            && self.path.as_deref() == key.path
    }
}
