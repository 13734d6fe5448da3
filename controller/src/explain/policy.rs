//! What would be decided about a request: the same questions in the same order as a proxy asks them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use api::fleet::claim_attribute::Type;
use api::operator::{ExplainPolicyRequest, PolicyExplained, QuestionExplained};
use api::{MemberName, ReleaseNumber, StageName};
use policies::credential::{Application, Attribute, Identity, Standing, User};
use policies::policy::{Action, Decision, Document, Policies, Question, StageFacts};
use policies::verdict::{Named, Rule, Said, Verdict, Wanted, Why, judge};

use crate::core::spec::AccessSpec;
use crate::core::{Refusal, State, resources};

/// Documentation's own (RFC 5737): no policy can mean it.
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What is asked, with all that is needed for an answer.
#[derive(Debug)]
pub(crate) struct Ask {
    access: AccessSpec,
    stage: StageName,
    rule: Rule,
    identity: Identity,
    release: Option<ReleaseNumber>,
    named: Named,
    action: Action,
    method: String,
    path: String,
    client: IpAddr,
}

impl Ask {
    /// Reads a request against what is there.
    ///
    /// # Errors
    /// Everything that is wrong, or a stage that does not exist.
    pub(crate) fn read(state: &State, request: &ExplainPolicyRequest) -> Result<Self, Refusal> {
        let stage: StageName = request.stage.parse().map_err(|problem: api::NotAccepted| wrong(&problem))?;
        if !super::stages(state).any(|known| known == stage) {
            return Err(Refusal::Unknown(format!(
                "there is no stage {stage}: nobody would see more than of no stage at all"
            )));
        }
        let mut mistakes = Vec::new();
        let user = user(state, request, &mut mistakes);
        let application = application(state, &request.application, &mut mistakes);
        let release = ReleaseNumber::new(request.release);
        let has = |number| state.stage(&stage).is_some_and(|stage| stage.routed().contains(&number));
        let named = match release {
            None => Named::Nothing,
            Some(number) if has(number) => Named::Known,
            Some(_) => Named::Unknown,
        };
        let (action, method, path) = what(request, &mut mistakes);
        let client = match request.client.as_str() {
            "" => Some(NOBODY),
            text => text.parse().map_err(|_| mistakes.push(format!("{text:?} is no IP address"))).ok(),
        };
        let access = resources::of_itself(state, &stage);
        let rule = Rule {
            public: access.public,
            explicit_denial: access.explicit_denial,
            needs_application: access.needs_application,
            needs_user: access.needs_user,
        };
        let identity = Identity { application, user, until_s: None, by_proxy_authorization: false };
        match client {
            Some(client) if mistakes.is_empty() => {
                let access = state.access.clone();
                Ok(Self { access, stage, rule, identity, release, named, action, method, path, client })
            }
            _ => Err(Refusal::Wrong(mistakes)),
        }
    }
}

fn wrong(problem: &api::NotAccepted) -> Refusal {
    Refusal::Wrong(vec![problem.to_string()])
}

/// Action, method and path of a request.
fn what(request: &ExplainPolicyRequest, mistakes: &mut Vec<String>) -> (Action, String, String) {
    let given = |text: &str, otherwise: &str| if text.is_empty() { otherwise.to_owned() } else { text.to_owned() };
    if !request.rpc.is_empty() {
        if !request.path.is_empty() || request.upgrade {
            mistakes.push("a call of gRPC has its own path, and upgrades nothing".to_owned());
        }
        if request.rpc.trim_start_matches('/').split('/').filter(|part| !part.is_empty()).count() != 2 {
            mistakes.push(format!("{:?} is no call of gRPC: accepted is \"pkg.Service/Method\"", request.rpc));
        }
        let path = format!("/{}", request.rpc.trim_start_matches('/'));
        return (Action::Rpc, given(&request.method, "POST"), path);
    }
    let (method, path) = (given(&request.method, "GET"), given(&request.path, "/"));
    if !path.starts_with('/') {
        mistakes.push(format!("{path:?} is no path: accepted is one that begins with \"/\""));
    }
    let action = if request.upgrade { Action::Upgrade } else { Action::of_method(&method) };
    (action, method, path)
}

fn user(state: &State, request: &ExplainPolicyRequest, mistakes: &mut Vec<String>) -> Standing<Arc<User>> {
    if request.issuer.is_empty() {
        if !(request.subject.is_empty() && request.groups.is_empty() && request.attributes.is_empty()) {
            mistakes.push("groups and attributes are a user's: --user ISSUER/SUBJECT".to_owned());
        }
        return Standing::Absent;
    }
    let known = request.issuer.parse::<MemberName>().ok().filter(|name| state.access.issuers.contains_key(name));
    if known.is_none() {
        mistakes.push(format!("there is no issuer {:?}", request.issuer));
    }
    if request.subject.is_empty() {
        mistakes.push("a user has a subject: --user ISSUER/SUBJECT".to_owned());
    }
    let types = state.access.attribute_types();
    let mut attributes = BTreeMap::new();
    for given in &request.attributes {
        match types.get(&given.name).map(|kind| attribute(*kind, &given.value)) {
            Some(Some(value)) => drop(attributes.insert(given.name.as_str().into(), value)),
            Some(None) => mistakes.push(format!("{:?} is not what the attribute {:?} can be", given.value, given.name)),
            None => mistakes.push(format!("there is no attribute {:?}: issuers give it by `attributes`", given.name)),
        }
    }
    let mut groups: Vec<Arc<str>> = request.groups.iter().map(|group| group.as_str().into()).collect();
    groups.sort_unstable();
    groups.dedup();
    let (issuer, subject) = (request.issuer.as_str().into(), request.subject.clone());
    Standing::Valid(Arc::new(User { issuer, subject, client: None, groups, attributes, until_s: u64::MAX }))
}

/// A value of a type; a list has commas between its parts.
fn attribute(kind: Type, text: &str) -> Option<Attribute> {
    match kind {
        Type::String | Type::Unspecified => Some(Attribute::String(text.to_owned())),
        Type::Long => text.parse().ok().map(Attribute::Long),
        Type::Bool => text.parse().ok().map(Attribute::Bool),
        Type::Strings => Some(Attribute::Strings(text.split(',').map(str::to_owned).collect())),
    }
}

fn application(state: &State, name: &str, mistakes: &mut Vec<String>) -> Standing<Arc<Application>> {
    if name.is_empty() {
        return Standing::Absent;
    }
    let found = name.parse::<MemberName>().ok();
    let found = found.and_then(|name| state.applications.get(&name)).filter(|application| !application.revoked);
    let Some(found) = found else {
        mistakes.push(format!("there is no application {name:?}: `pointsman app list` shows all"));
        return Standing::Absent;
    };
    let groups = found.groups.iter().map(|group| group.as_str().into()).collect();
    Standing::Valid(Arc::new(Application { name: name.into(), groups }))
}

/// What would be decided, with each question that the policies would be asked.
///
/// # Errors
/// Policies that cannot be read, which were checked when they were applied.
pub(crate) fn policy(ask: &Ask, now_ms: u64) -> Result<PolicyExplained, String> {
    let documents = ask.access.documents.iter().map(|(name, text)| Document { name: name.clone(), text: text.clone() });
    let documents: Vec<_> = documents.collect();
    let read = Policies::read(&documents, ask.access.entities.as_deref(), &ask.access.attribute_types(), None);
    let policies = read.map_err(|problems| {
        let said = problems.iter().map(|problem| format!("{}:{}: {}", problem.place, problem.line, problem.message));
        said.collect::<Vec<_>>().join("\n")
    })?;
    let service: Arc<str> = ask.stage.service.as_str().into();
    let facts = StageFacts { service: service.clone(), public: ask.rule.public };
    let cut = policies.cut(ask.stage.environment.as_str(), &[facts]);
    let stage = cut.stages.get(&service).cloned().unwrap_or_default();
    let mut questions = Vec::new();
    let mut lines = Vec::new();
    let wanted = Wanted { action: ask.action, exempt: None, release: ask.named };
    let verdict = judge(Some(ask.rule), &ask.identity, wanted, |action| {
        let question = Question {
            action,
            release: ask.release.map(ReleaseNumber::number).filter(|_| action == Action::Use),
            method: &ask.method,
            path: &ask.path,
            client: ask.client,
            now_ms,
        };
        let decision = stage.decide(&ask.identity, &question);
        lines.extend(missing(ask, action, &decision));
        let said = said(&decision);
        questions.push(explained(action, decision));
        said
    });
    let (word, reason) = match verdict {
        Verdict::Allowed => ("allowed", Why::Permitted),
        Verdict::Hidden(reason) => ("hidden", reason),
        Verdict::Unauthenticated(reason) => ("unauthenticated", reason),
        Verdict::Forbidden(reason) => ("forbidden", reason),
        Verdict::Unavailable(reason) => ("unavailable", reason),
    };
    Ok(PolicyExplained { verdict: word.to_owned(), why: reason.to_string(), questions, lines })
}

fn said(decision: &Decision) -> Said {
    match (decision.is_allowed, decision.errors.is_empty()) {
        (true, _) => Said::Yes,
        (false, true) => Said::No,
        (false, false) => Said::Failed,
    }
}

fn explained(action: Action, decision: Decision) -> QuestionExplained {
    QuestionExplained {
        action: action.word().to_owned(),
        allowed: decision.is_allowed,
        policies: decision.policies.iter().map(ToString::to_string).collect(),
        errors: decision.errors,
    }
}

/// What kept a question from being permitted.
fn missing(ask: &Ask, action: Action, decision: &Decision) -> Option<String> {
    let word = action.word();
    if decision.is_allowed {
        return None;
    }
    if !decision.errors.is_empty() {
        return Some(format!(
            "{word}: an evaluation failed, which never permits anything: {}",
            decision.errors.join("; ")
        ));
    }
    if !decision.policies.is_empty() {
        return Some(format!("{word}: forbidden by {}", decision.policies.join(", ")));
    }
    let principal = match &ask.identity.user {
        Standing::Valid(user) => {
            let groups = if user.groups.is_empty() { "no group".to_owned() } else { user.groups.join(", ") };
            format!("User::\"{}/{}\" (in {groups})", user.issuer, user.subject)
        }
        _ => "Anonymous::\"anonymous\"".to_owned(),
    };
    let through = match &ask.identity.application {
        Standing::Valid(application) => format!(" through Application::\"{}\"", application.name),
        _ => String::new(),
    };
    let resource = match (action, ask.release) {
        (Action::Use, Some(number)) => format!("Release::\"{}/{number}\"", ask.stage),
        _ => format!("Stage::\"{}\"", ask.stage),
    };
    Some(format!("{word}: no policy permits Action::\"{word}\" on {resource} to {principal}{through}"))
}
