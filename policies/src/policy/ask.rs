//! One question put to Cedar: who, what, and what is known of both.
//!
//! Must not know: documents, or which policies there are.
//!
//! Policies look one step far (`read::LEVEL`), so three entities are enough: who calls, through what, and what is called.
//! Groups are no entities of their own: they stand in these three, all that they are in included.
//!
//! Main type: [`Prepared`].

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{Context, Entities, Entity, EntityUid, Request, RestrictedExpression};

use super::asked::Asked;
use super::groups::Groups;
use super::words::{TYPES, uid};
use super::{Action, Decision, Question, StageFacts};
use crate::credential::{Application, Attribute, Identity, Standing, User};

static ANONYMOUS: LazyLock<Entity> = LazyLock::new(|| Entity::with_uid(uid(&TYPES.anonymous, "anonymous")));

/// A stage, ready to be asked about.
#[derive(Debug)]
pub(super) struct Stage {
    entity: Entity,
    /// The stage, and what the group "call" holds: Cedar would work out what is in what for each question again.
    entities: Entities,
}

impl Stage {
    pub(super) fn new(facts: &StageFacts, environment: &str) -> Self {
        let attributes = HashMap::from([
            ("service".to_owned(), RestrictedExpression::new_string(facts.service.to_string())),
            ("environment".to_owned(), RestrictedExpression::new_string(environment.to_owned())),
            ("public".to_owned(), RestrictedExpression::new_bool(facts.public)),
        ]);
        let id = uid(&TYPES.stage, &format!("{}/{environment}", facts.service));
        let parents = HashSet::from([uid(&TYPES.environment, environment)]);
        let entity = Entity::new(id, attributes, parents).expect("strings and booleans are values");
        let calls = Action::ALL.into_iter().filter(|action| action.is_call()).map(|action| action.entity().clone());
        let entities = Entities::from_entities(calls.chain([entity.clone()]), None).expect("nothing is in itself");
        Self { entity, entities }
    }
}

/// Who asks about which stage, ready for several questions.
#[derive(Debug)]
pub(super) struct Prepared {
    principal: EntityUid,
    /// That it is in.
    groups: HashSet<EntityUid>,
    application: Option<EntityUid>,
    /// Who calls, through what, the stage, and what the group "call" holds.
    entities: Entities,
}

impl Prepared {
    /// # Errors
    /// Something is no value in Cedar; nothing can be decided then.
    pub(super) fn new(stage: &Stage, groups: &Groups, identity: &Identity) -> Result<Self, String> {
        let (principal, within) = match &identity.user {
            Standing::Valid(user) => {
                let within = groups.closure(user.groups.iter().map(AsRef::as_ref));
                (principal(user, within.clone())?, within)
            }
            Standing::Absent | Standing::Refused(_) | Standing::Unavailable(_) => (ANONYMOUS.clone(), HashSet::new()),
        };
        let application = match &identity.application {
            Standing::Valid(known) => Some(application(known, groups)?),
            Standing::Absent | Standing::Refused(_) | Standing::Unavailable(_) => None,
        };
        let (principal_id, application_id) = (principal.uid(), application.as_ref().map(Entity::uid));
        let who = [principal].into_iter().chain(application);
        let entities = stage.entities.clone().add_entities(who, None).map_err(text)?;
        Ok(Self { principal: principal_id, groups: within, application: application_id, entities })
    }

    /// Asks. Never allows when anything failed.
    pub(super) fn decide(&self, asked: &Asked, stage: &Stage, question: &Question<'_>) -> Decision {
        self.ask(asked, stage, question).unwrap_or_else(|error| Decision { errors: vec![error], ..Decision::default() })
    }

    fn ask(&self, asked: &Asked, stage: &Stage, question: &Question<'_>) -> Result<Decision, String> {
        let context = context(asked, self.application.clone(), question)?;
        let action = question.action.entity().uid();
        let request = |resource| Request::new(self.principal.clone(), action, resource, context, None).map_err(text);
        match (question.action, question.release) {
            (Action::Use, Some(number)) => {
                let release = release(&stage.entity, number)?;
                let request = request(release.uid())?;
                let entities = self.entities.clone().add_entities([release], None).map_err(text)?;
                Ok(asked.answer(&request, &entities, &self.groups))
            }
            // What is asked for is not there.
            (Action::Use, None) => Ok(Decision::default()),
            _ => Ok(asked.answer(&request(stage.entity.uid())?, &self.entities, &self.groups)),
        }
    }
}

fn principal(user: &User, groups: HashSet<EntityUid>) -> Result<Entity, String> {
    let mut attributes = HashMap::with_capacity(3 + user.attributes.len());
    for (name, value) in &user.attributes {
        attributes.insert(name.to_string(), expression(value));
    }
    // Last: nothing that an issuer gives may stand for these.
    attributes.insert("issuer".to_owned(), RestrictedExpression::new_string(user.issuer.to_string()));
    attributes.insert("subject".to_owned(), RestrictedExpression::new_string(user.subject.clone()));
    if let Some(client) = &user.client {
        attributes.insert("client".to_owned(), RestrictedExpression::new_string(client.clone()));
    } else {
        attributes.remove("client");
    }
    let id = uid(&TYPES.user, &format!("{}/{}", user.issuer, user.subject));
    Entity::new(id, attributes, groups).map_err(text)
}

fn expression(value: &Attribute) -> RestrictedExpression {
    match value {
        Attribute::String(value) => RestrictedExpression::new_string(value.clone()),
        Attribute::Long(value) => RestrictedExpression::new_long(*value),
        Attribute::Bool(value) => RestrictedExpression::new_bool(*value),
        Attribute::Strings(values) => {
            RestrictedExpression::new_set(values.iter().cloned().map(RestrictedExpression::new_string))
        }
    }
}

fn application(application: &Application, groups: &Groups) -> Result<Entity, String> {
    let name = RestrictedExpression::new_string(application.name.to_string());
    let parents = groups.closure(application.groups.iter().map(AsRef::as_ref));
    let id = uid(&TYPES.application, &application.name);
    Entity::new(id, HashMap::from([("name".to_owned(), name)]), parents).map_err(text)
}

/// A release is in its stage, and so in the stage's environment.
fn release(stage: &Entity, number: u32) -> Result<Entity, String> {
    let (stage, _, mut parents) = stage.clone().into_inner();
    let id = uid(&TYPES.release, &format!("{}/r{number}", stage.id().unescaped()));
    parents.insert(stage);
    let number = RestrictedExpression::new_long(i64::from(number));
    Entity::new(id, HashMap::from([("number".to_owned(), number)]), parents).map_err(text)
}

/// What is known of the request. What no policy of the set reads is left out: nobody could see that it is not there.
fn context(asked: &Asked, application: Option<EntityUid>, question: &Question<'_>) -> Result<Context, String> {
    let mut pairs = Vec::with_capacity(6);
    let mut add = |name: &str, value: RestrictedExpression| pairs.push((name.to_owned(), value));
    if let Some(application) = application {
        add("application", RestrictedExpression::new_entity_uid(application));
    }
    // Whether a stage exists cannot depend on what is asked of it.
    if question.action != Action::Discover {
        let path = question.path.split('?').next().unwrap_or_default();
        if asked.reads.method {
            add("method", RestrictedExpression::new_string(question.method.to_owned()));
        }
        if asked.reads.path {
            add("path", RestrictedExpression::new_string(path.to_owned()));
        }
        if asked.reads.path && question.action == Action::Rpc {
            let (service, method) = rpc(path);
            add("service", RestrictedExpression::new_string(service.to_owned()));
            add("rpc_method", RestrictedExpression::new_string(method.to_owned()));
        }
        if asked.reads.volatile {
            // An IPv4 address is one, through whatever socket it came.
            add("client", RestrictedExpression::new_ip(question.client.to_canonical().to_string()));
        }
    }
    Context::from_pairs(pairs).map_err(text)
}

/// Service and method of "/pkg.Greeter/Hello" (gRPC over HTTP/2, "Requests"). Of another path all but its last part is the
/// service, so that no permission for a service is one for it.
fn rpc(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.rsplit_once('/').unwrap_or(("", path))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
