//! Command in, events or a refusal out. Changes nothing itself: `--plan` is this function without what follows.

mod access;
mod application;
mod apply;
mod marks;
mod register;
mod release;
mod rollout;
mod traffic;

#[cfg(test)]
pub(super) use traffic::START_DEADLINE_MS;

pub use apply::is_within;
pub(super) use traffic::must_start;

use super::command::{Command, Context, Decision, Refusal};
use super::event::Event;
use super::state::{Brought, State};

/// Answers one command.
///
/// # Errors
/// A [`Refusal`]: nothing changes, and its sentence says why and what can be done instead.
pub fn decide(state: &State, command: &Command, context: &Context) -> Result<Decision, Refusal> {
    match command {
        Command::Start { above } => {
            Ok(Decision::one(Event::Started { term: state.term.max(*above).saturating_add(1) }))
        }
        Command::Apply { environments, services, access, releases } => {
            apply::apply(state, environments, services, access.as_ref(), releases.as_deref(), context)
        }
        Command::Register { repository, commit, services } => register::register(state, repository, commit, services),
        Command::NoticeTags { service, tags } => register::notice_tags(state, service, tags),
        Command::ReplaceCertificates { environment, source, key, certificates } => {
            let brought = Brought { source: key.clone(), certificates: certificates.clone() };
            apply::replace_certificates(state, environment, source, brought, context)
        }

        Command::Build { service, wanted, again } => release::request(state, service, wanted, *again),
        Command::AddRelease { service, version, commit, addresses, artifacts } => {
            release::add(state, service, version, commit, addresses, artifacts)
        }
        Command::CancelBuild { release } => release::cancel(state, release),
        Command::RetryRelease { release } => release::retry(state, release),
        Command::Overtake { release, by } => release::overtake(state, release, *by),
        Command::Trim { release, log, artifacts } => release::trim(state, release, *log, *artifacts),
        Command::Forget { release } => release::forget(state, release),
        Command::MarkRelease { release, reversible } => marks::mark(state, release, *reversible, context),
        Command::BeginBuild { release } => release::begin_build(state, release),
        Command::EndBuild { release, outcome } => release::end_build(state, release, outcome),

        Command::Promote { release, environment, share, bypass } => {
            let bypass = *bypass;
            traffic::Promotion { state, context, release, environment, share: *share, bypass, was_queued: false }
                .decide()
        }
        Command::Weigh { stage, share } => traffic::weigh(state, stage, *share, context),
        Command::PauseRollout { stage } => rollout::pause(state, stage, context),
        Command::ResumeRollout { stage } => rollout::resume(state, stage, context),
        Command::SkipStep { stage } => rollout::skip(state, stage, context),
        Command::AbortRollout { stage, bad } => {
            traffic::abort(state, stage, *bad, context).map(|decision| traffic::nobody_waits(state, command, decision))
        }
        Command::MoveRollout { stage, seen } => rollout::go_on(state, stage, seen, context),
        Command::EnterQueued { stage, release } => traffic::enter_queued(state, stage, *release, context),
        Command::Rollback { stage, to } => traffic::rollback(state, stage, *to, context)
            .map(|decision| traffic::nobody_waits(state, command, decision)),
        Command::Unhold { stage, release } => traffic::unhold(state, stage, *release, context),
        Command::Enter { stage, release } => traffic::enter(state, stage, *release, context),
        Command::FailPromotion { stage, release, problem } => traffic::fail(state, stage, *release, problem, context),
        Command::EndWarmth { stage, release } => traffic::end_warmth(state, stage, *release, context),
        Command::Retire { stage, release } => traffic::retire(state, stage, *release),
        Command::Place { stage, release, agent, address } => traffic::place(state, stage, *release, agent, *address),
        Command::TellOverride { proxy, stage, release, until_ms } => {
            access::tell_override(state, proxy, stage, *release, *until_ms)
        }

        Command::Invite { name, role, group, secret, until_ms } => {
            access::invite(state, name, *role, group, *secret, *until_ms)
        }
        Command::Join { name, serial } => access::join(state, name, serial, context),
        Command::RenewMember { name, used, from_ms, serial } => {
            access::renew_member(state, name, used, *from_ms, serial, context)
        }
        Command::RevokeMember { name } => access::revoke_member(state, name),
        Command::CreateToken { name, secret, scope } => access::create_token(state, name, *secret, scope),
        Command::CertifyOperator { name, serial, scope } => access::certify_operator(state, name, serial, scope),
        Command::RevokeToken { name } => access::revoke_token(state, name),

        Command::CreateApplication { name, new, key } => application::create(state, name, new, key.as_ref(), context),
        Command::RotateApplication { name, key, overlap_ms } => {
            application::rotate(state, name, key, *overlap_ms, context)
        }
        Command::RevokeApplication { name } => application::revoke(state, name, context),
        Command::EndKeys { name } => application::end_keys(state, name, context),
    }
}

/// Refuses a change without a reason where an environment asks for one.
///
/// # Errors
/// A [`Refusal`] that says how to give one.
pub fn require_reason(state: &State, environment: &api::EnvironmentName, context: &Context) -> Result<(), Refusal> {
    let required = state.environments.get(environment).is_some_and(|spec| spec.reason_required);
    if required && context.reason.trim().is_empty() {
        return Err(Refusal::Refused(format!("{environment} asks for a reason: add --reason \"...\"")));
    }
    Ok(())
}

/// Refuses a change for all environments alike without a reason, when any of them asks for one.
///
/// # Errors
/// As [`require_reason`].
fn require_any_reason(state: &State, context: &Context) -> Result<(), Refusal> {
    state.environments.keys().try_for_each(|name| require_reason(state, name, context))
}
