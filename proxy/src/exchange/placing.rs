//! Which release a request goes to: the first that says so of a break-glass override, its host, a header rule, the caller's
//! place in the stage's range, and its turn by weights.
//!
//! Must not know: endpoints. Whether the release has a healthy one changes nothing here: who was led to one that has none is
//! told so (503), and its callers are not dealt to others meanwhile.
//!
//! Main function: [`place`].

use policies::credential::Standing;

use super::Release;
use crate::callers::Caller;
use crate::codec::connection::Flight;
use crate::codec::{Dialect, RequestView};
use crate::snapshot::{Backend, HeaderRule, Stage};
use crate::split::Placed;
use crate::sticky::{By, Name, Sticky, Token};
use crate::worker::Worker;

/// The release, and how it came to that; `None`: no weight is above zero. Takes no lock, shares nothing with other workers, and
/// allocates for a new cookie alone. `release`: what the host names.
pub(super) fn place<'a>(
    worker: &Worker,
    stage: &'a Stage,
    release: Release<'a>,
    caller: &Caller,
    view: RequestView<'_>,
    flight: &mut Flight,
) -> Option<(&'a Backend, Placed)> {
    if stage.overridden.is_some() {
        // It is the one that has weight.
        return Some((worker.split(stage)?, Placed::Override));
    }
    if let Release::One(backend) = release {
        return Some((backend, Placed::Host));
    }
    if let Some(rule) = stage.rules.iter().find(|rule| matches(rule, view)) {
        return Some((stage.backends.get(rule.backend)?, Placed::Rule));
    }
    let kept = stage.sticky.as_ref().and_then(|sticky| keep(sticky, caller, view, flight));
    match kept {
        Some((to, place)) => Some((stage.backends.get(to)?, Placed::Sticky(place))),
        None => Some((worker.split(stage)?, Placed::Weight)),
    }
}

/// Exactly one field of the name, with exactly the value. Of several nobody can say which one counts: endpoints join them, or
/// take the first or the last, and what stood before us may have added its own to what a client made up.
fn matches(rule: &HeaderRule, view: RequestView<'_>) -> bool {
    let mut values = view.fields().filter(|(name, _)| *name == &*rule.name).map(|(_, value)| value);
    values.next() == Some(&*rule.value) && values.next().is_none()
}

/// Whose the caller is, and its place; `None`: it has none.
fn keep(sticky: &Sticky, caller: &Caller, view: RequestView<'_>, flight: &mut Flight) -> Option<(usize, u64)> {
    match &sticky.by {
        By::Identity => sticky.of(name(caller)?),
        By::Cookie(cookie) => {
            let known = Token::find(cookie, view.header("cookie"));
            // gRPC clients keep no cookies: the next call would bring another one.
            let token = known.or_else(|| (view.dialect() == Dialect::Http).then(draw).flatten())?;
            let to = sticky.of(Name::Token(&token));
            if known.is_none() && to.is_some() {
                flight.set_cookie = Some(token.give(cookie, flight.is_https));
            }
            to
        }
    }
}

/// Who calls, by credentials that count; `None`: nobody.
fn name(caller: &Caller) -> Option<Name<'_>> {
    let identity = &caller.identity;
    match (&identity.user, &identity.application) {
        (Standing::Valid(user), _) => Some(Name::User { issuer: &user.issuer, subject: &user.subject }),
        (_, Standing::Valid(application)) => Some(Name::Application(&application.name)),
        _ => None,
    }
}

/// A new one. From this thread's own generator, without a lock. `None`: the system gives no random bytes, and the request is
/// dealt out by weight.
fn draw() -> Option<Token> {
    let mut bytes = [0; Token::BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(Token::new(bytes))
}
