//! Applications: what they are known by, their keys, and their end.

use std::collections::BTreeSet;
use std::time::Duration;

use api::operator::{
    Application, ApplicationClient, ApplicationKey, ApplicationKeyShown, Applications, AssertionKeySet,
    CreateApplicationRequest, Reached, RevokeApplicationRequest, RotateApplicationRequest,
};
use api::{MemberName, Span, Verb};
use policies::credential::api_key::{self, Drawn};
use policies::credential::assertion;
use tonic::Status;

use crate::core::{Command, KeyMade, NewApplication, state};
use crate::engine::{Accepted, Engine, Priority};
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping, wrong};
use crate::status::clock_ms;

/// How long it is waited for the fleet before those that lag are named.
const FLEET: Duration = Duration::from_secs(2);

impl Shared {
    pub(super) async fn create_application(
        &self,
        who: &Operator,
        request: CreateApplicationRequest,
    ) -> Result<ApplicationKey, Status> {
        who.may(Verb::App, None, None)?;
        let name: MemberName = parse(&request.name)?;
        let new = NewApplication {
            clients: clients(&request.clients)?,
            groups: request.groups.into_iter().collect(),
            certificates: request.certificates.into_iter().collect(),
        };
        let drawn = if request.without_key { None } else { Some(draw(request.key_valid_ms)?) };
        let key = drawn.as_ref().map(|(_, made)| made.clone());
        let command = Command::CreateApplication { name, new, key };
        let accepted = self.ask(who, command, request.reason, String::new(), Priority::Normal).await?;
        Ok(ApplicationKey { lagging: self.lagging(&accepted).await, ..shown(drawn) })
    }

    pub(super) async fn rotate_application(
        &self,
        who: &Operator,
        request: RotateApplicationRequest,
    ) -> Result<ApplicationKey, Status> {
        who.may(Verb::App, None, None)?;
        let name: MemberName = parse(&request.name)?;
        if request.overlap_ms > Span::MAX.ms() {
            return Err(Status::invalid_argument("keys overlap for at most 366d"));
        }
        let (drawn, key) = draw(request.key_valid_ms)?;
        let command =
            Command::RotateApplication { name: name.clone(), key: key.clone(), overlap_ms: request.overlap_ms };
        let priority = urgency(request.overlap_ms);
        let accepted = self.ask(who, command, request.reason, String::new(), priority).await?;
        let id = key.id.clone();
        let latest = move |engine: &Engine| {
            let keys =
                engine.state.applications.get(&name).map(|application| application.keys.clone()).unwrap_or_default();
            keys.iter().filter(|other| other.id != id).filter_map(|other| other.until_ms).max()
        };
        let before_until_ms = self.engine.read(latest).await.ok_or_else(stopping)?.unwrap_or_default();
        let lagging = self.lagging(&accepted).await;
        Ok(ApplicationKey { before_until_ms, lagging, ..shown(Some((drawn, key))) })
    }

    /// Ahead of everything else, as a change of traffic: somebody may hold a key that leaked.
    pub(super) async fn revoke_application(
        &self,
        who: &Operator,
        request: RevokeApplicationRequest,
    ) -> Result<Reached, Status> {
        who.may(Verb::App, None, None)?;
        let command = Command::RevokeApplication { name: parse(&request.name)? };
        let accepted = self.ask(who, command, request.reason, String::new(), Priority::Traffic).await?;
        Ok(Reached { lagging: self.lagging(&accepted).await })
    }

    pub(super) async fn list_applications(&self, who: &Operator) -> Result<Applications, Status> {
        who.may(Verb::Read, None, None)?;
        let now_ms = clock_ms();
        let list = move |engine: &Engine| Applications {
            applications: engine.state.applications.iter().map(|(name, one)| application(name, one, now_ms)).collect(),
        };
        self.engine.read(list).await.ok_or_else(stopping)
    }

    /// For endpoints that verify who calls.
    pub(super) async fn assertion_keys(&self, who: &Operator) -> Result<AssertionKeySet, Status> {
        who.may(Verb::Read, None, None)?;
        let list = |engine: &Engine| {
            let keys = engine.publisher.certificates().assertion().keys();
            let keys: Vec<_> = keys.iter().map(|key| (key.id(), key.public.clone())).collect();
            AssertionKeySet { jwks: assertion::jwks(&keys) }
        };
        self.engine.read(list).await.ok_or_else(stopping)
    }

    /// Proxies that do not have a change after a while.
    async fn lagging(&self, accepted: &Accepted) -> Vec<String> {
        self.fleet.wait_for(accepted.version, FLEET).await
    }
}

/// A rotation without an overlap shuts keys out, as a revocation does: somebody may hold one that leaked.
fn urgency(overlap_ms: u64) -> Priority {
    if overlap_ms == 0 { Priority::Traffic } else { Priority::Normal }
}

fn draw(valid_ms: u64) -> Result<(Drawn, KeyMade), Status> {
    let mut random = [0; 40];
    let none = |_| Status::internal("the operating system gives no random numbers");
    aws_lc_rs::rand::fill(&mut random).map_err(none)?;
    let valid = (valid_ms > 0).then(|| Span::from_ms(valid_ms));
    if valid == Some(None) {
        return Err(Status::invalid_argument("a key counts for 1ms to 366d, or without an end"));
    }
    let drawn = api_key::draw(&random);
    let until_ms = valid.flatten().map(|valid| clock_ms().saturating_add(valid.ms()));
    let made = KeyMade { id: drawn.id.clone(), sha256: drawn.sha256, until_ms };
    Ok((drawn, made))
}

fn shown(drawn: Option<(Drawn, KeyMade)>) -> ApplicationKey {
    let Some((drawn, made)) = drawn else { return ApplicationKey::default() };
    let until_ms = made.until_ms.unwrap_or_default();
    ApplicationKey { key: drawn.text, id: made.id, until_ms, ..ApplicationKey::default() }
}

fn clients(given: &[ApplicationClient]) -> Result<BTreeSet<(MemberName, String)>, Status> {
    let read = |client: &ApplicationClient| match client.issuer.parse::<MemberName>() {
        Ok(issuer) => Ok((issuer, client.client_id.clone())),
        Err(problem) => Err(format!("--client: {problem}")),
    };
    let (read, mistakes): (Vec<_>, Vec<_>) = given.iter().map(read).partition(Result::is_ok);
    let mistakes: Vec<String> = mistakes.into_iter().filter_map(Result::err).collect();
    if mistakes.is_empty() { Ok(read.into_iter().filter_map(Result::ok).collect()) } else { Err(wrong(&mistakes)) }
}

/// Without keys whose time is over, which are kept for a while.
fn application(name: &MemberName, application: &state::Application, now_ms: u64) -> Application {
    let key = |key: &state::ApiKey| ApplicationKeyShown {
        id: key.id.clone(),
        created_ms: key.created_ms,
        until_ms: key.until_ms.unwrap_or_default(),
    };
    let client = |(issuer, client_id): &(MemberName, String)| ApplicationClient {
        issuer: issuer.to_string(),
        client_id: client_id.clone(),
    };
    Application {
        name: name.to_string(),
        groups: application.groups.iter().cloned().collect(),
        certificates: application.certificates.iter().cloned().collect(),
        clients: application.clients.iter().map(client).collect(),
        keys: application.keys_at(now_ms).map(key).collect(),
        created_ms: application.created_ms,
        by: application.by.clone(),
        revoked: application.revoked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_rotation_without_an_overlap_goes_first() {
        for (overlap_ms, expected) in [(0, Priority::Traffic), (1, Priority::Normal), (86_400_000, Priority::Normal)] {
            assert_eq!(urgency(overlap_ms), expected, "{overlap_ms}");
        }
    }

    #[test]
    fn app_list_leaves_out_keys_whose_time_is_over() {
        let key = |id: &str, until_ms| state::ApiKey {
            id: id.into(),
            sha256: api::Digest::of(id.as_bytes()),
            created_ms: 0,
            until_ms,
        };
        let one = state::Application {
            keys: vec![key("over", Some(1_000)), key("ends", Some(1_001)), key("stays", None)],
            groups: BTreeSet::new(),
            certificates: BTreeSet::new(),
            clients: BTreeSet::new(),
            created_ms: 0,
            by: String::new(),
            revoked: false,
        };
        let shown = application(&"batch".parse().expect("a name"), &one, 1_000);
        let ids: Vec<&str> = shown.keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(ids, ["ends", "stays"]);
    }
}
