//! Policies in Cedar's language: read, checked strictly, cut for each stage, asked.
//!
//! Must not know: credentials, requests on the wire, or what a caller is told.
//!
//! INVARIANT: an evaluation that fails is never an allow, whatever the other policies say.
//!
//! Main types: [`Policies`], [`StagePolicies`], [`Question`], [`Decision`].

mod ask;
mod asked;
mod cut;
mod groups;
mod read;
mod reads;
mod scope;
mod text;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use self::ask::{Prepared, Stage};
use self::asked::Asked;
use self::groups::Groups;
use self::read::{Checker, ReadDocument};
use crate::Problem;
use crate::credential::Identity;

/// A document as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// "staff.cedar".
    pub name: String,
    /// Cedar.
    pub text: String,
}

/// Where a policy begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The document's name.
    pub document: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

/// Attributes of users that issuers give, for the schema: name and type.
pub type AttributeTypes = BTreeMap<String, api::fleet::claim_attribute::Type>;

/// All documents, read and checked.
#[derive(Debug, Default)]
pub struct Policies {
    /// None: nothing was read.
    checker: Option<Arc<Checker>>,
    groups: Arc<Groups>,
    /// In the order of their names.
    documents: Vec<Arc<ReadDocument>>,
}

/// A stage, as far as policies are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageFacts {
    /// "hello".
    pub service: Arc<str>,
    /// Anybody may discover and call it.
    pub public: bool,
}

/// The policies of an environment's stages. All have the same number to ask about discovering, so that it costs the same for
/// each, and for a stage that does not exist.
#[derive(Debug, Default)]
pub struct Cut {
    /// By service.
    pub stages: BTreeMap<Arc<str>, Arc<StagePolicies>>,
    /// For services that are not there.
    pub unknown: Arc<StagePolicies>,
}

/// What is asked for one stage.
///
/// The default has no policies, so it permits nothing.
#[derive(Debug, Default)]
pub struct StagePolicies {
    /// None: the stage of nobody.
    stage: Option<Stage>,
    /// By action.
    asked: [Arc<Asked>; Action::ALL.len()],
    groups: Arc<Groups>,
}

/// One caller's questions about one stage.
#[derive(Debug)]
pub struct Asking<'a> {
    of: &'a StagePolicies,
    /// None: the stage of nobody.
    prepared: Option<Result<Prepared, String>>,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Know that the stage exists.
    Discover,
    /// GET, HEAD, OPTIONS.
    Read,
    /// Any other method.
    Write,
    /// A gRPC call.
    Rpc,
    /// A WebSocket or another change of protocol.
    Upgrade,
    /// Ask a release by its own host, or see one before its turn.
    Use,
    /// A browser's question before a page calls (CORS): carries no credentials.
    Preflight,
    /// A health check: the path that a component names, or `grpc.health.v1.Health`.
    Check,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What somebody wants to do.
    pub action: Action,
    /// The release, for [`Action::Use`].
    pub release: Option<u32>,
    /// "GET".
    pub method: &'a str,
    /// Path with the query, as it is forwarded. Policies see it without the query; of a gRPC call service and method.
    pub path: &'a str,
    /// The client's address.
    pub client: IpAddr,
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What policies read besides who asks and for what: a decision may be remembered for the same values of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Reads {
    /// Method, in HTTP's sense.
    pub method: bool,
    /// Path, or service and method of a gRPC call.
    pub path: bool,
    /// Something that is never the same twice: the client's address.
    pub volatile: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Whether it is permitted. Never with `errors`.
    pub is_allowed: bool,
    /// Policies that decided: "staff.cedar:12", or by their `@id`: "staff.cedar \"only in office hours\"".
    pub policies: Vec<Arc<str>>,
    /// Evaluations that failed: policy and message.
    pub errors: Vec<String>,
}

// === impl Policies ===

impl Policies {
    /// Reads documents and checks them strictly against the schema. Documents that are the same as in `before` are not read
    /// again.
    ///
    /// # Errors
    /// Everything that is wrong, each with document, line and column.
    pub fn read(
        documents: &[Document],
        entities_json: Option<&str>,
        attributes: &AttributeTypes,
        before: Option<&Self>,
    ) -> Result<Self, Vec<Problem>> {
        let same = |checker: &&Arc<Checker>| checker.attributes == *attributes;
        let (checker, before) = match before.and_then(|before| before.checker.as_ref()).filter(same) {
            Some(checker) => (Arc::clone(checker), before),
            // Other attributes make another schema, against which everything is checked anew.
            None => (Arc::new(Checker::new(attributes)?), None),
        };
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        let mut read = Vec::with_capacity(documents.len());
        for document in documents {
            if !names.insert(&document.name) {
                let message = "two documents have this name: rename one".to_owned();
                problems.push(Problem { place: document.name.clone(), line: 0, column: 0, message });
            }
            match before.and_then(|before| before.document(document)) {
                Some(document) => read.push(document),
                None => match checker.read(document) {
                    Ok(document) => read.push(Arc::new(document)),
                    Err(found) => problems.extend(found),
                },
            }
        }
        let groups = entities_json.map(|json| Groups::read(json, &checker)).unwrap_or_else(|| Ok(Groups::default()));
        let groups = groups.unwrap_or_else(|found| {
            problems.extend(found);
            Groups::default()
        });
        read.sort_by(|one, other| one.document.name.cmp(&other.document.name));
        let policies = Self { checker: Some(checker), groups: Arc::new(groups), documents: read };
        if problems.is_empty() { Ok(policies) } else { Err(problems) }
    }

    /// What is right and never applies, or looks like something else than it is.
    pub fn warnings(&self) -> impl Iterator<Item = &Problem> {
        self.documents.iter().flat_map(|document| &document.warnings)
    }

    /// Environments that policies name, alone or in the name of a stage or a release, each with the policy's place.
    pub fn environments(&self) -> impl Iterator<Item = (&Place, &str)> {
        let written = self.documents.iter().flat_map(|document| &document.policies);
        written.flat_map(|policy| policy.environments.iter().map(|name| (&policy.place, name.as_str())))
    }

    /// How many policies there are.
    pub fn count(&self) -> usize {
        self.documents.iter().map(|document| document.policies.len()).sum()
    }

    /// Attributes of users that were read with them.
    pub fn attributes(&self) -> &AttributeTypes {
        static NONE: AttributeTypes = AttributeTypes::new();
        self.checker.as_ref().map_or(&NONE, |checker| &checker.attributes)
    }

    /// Cuts them for all stages of an environment, each of another service.
    pub fn cut(&self, environment: &str, stages: &[StageFacts]) -> Cut {
        let written: Vec<_> = self.documents.iter().flat_map(|document| &document.policies).collect();
        cut::cut(&written, &self.groups, environment, stages)
    }

    fn document(&self, document: &Document) -> Option<Arc<ReadDocument>> {
        self.documents.iter().find(|read| read.document == *document).cloned()
    }
}

// === impl StagePolicies ===

impl StagePolicies {
    fn new(facts: &StageFacts, environment: &str, asked: [Arc<Asked>; Action::ALL.len()], groups: Arc<Groups>) -> Self {
        Self { stage: Some(Stage::new(facts, environment)), asked, groups }
    }

    /// Asks one question. Who has several asks [`StagePolicies::asking`].
    pub fn decide(&self, identity: &Identity, question: &Question<'_>) -> Decision {
        self.asking(identity).decide(question)
    }

    /// Prepares questions of one caller: a third of what a decision costs, spent once for all of them.
    pub fn asking(&self, identity: &Identity) -> Asking<'_> {
        let prepared = self.stage.as_ref().map(|stage| Prepared::new(stage, &self.groups, identity));
        Asking { of: self, prepared }
    }

    /// What the answer to such a question may depend on besides identity and action; of [`Action::Use`] also the release.
    pub fn reads(&self, action: Action) -> Reads {
        match action {
            // It is told nothing of the request, whatever a policy would read.
            Action::Discover => Reads::default(),
            _ => self.asked[action.index()].reads,
        }
    }

    /// How many policies are evaluated for such a question: all of them before it is known whether the caller may know of the
    /// stage, afterwards at most so many.
    pub fn count(&self, action: Action) -> usize {
        self.asked[action.index()].count()
    }
}

// === impl Asking ===

impl Asking<'_> {
    /// Asks.
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        match (&self.of.stage, &self.prepared) {
            (Some(stage), Some(Ok(prepared))) => {
                prepared.decide(&self.of.asked[question.action.index()], stage, question)
            }
            (_, Some(Err(error))) => Decision { errors: vec![error.clone()], ..Decision::default() },
            (_, None) | (None, _) => Decision::default(),
        }
    }
}

/// The schema that documents are checked against, in Cedar's language, for people.
pub fn schema(attributes: &AttributeTypes) -> String {
    words::schema(attributes)
}

#[cfg(test)]
mod tests;
