//! What happened, as a person says it.

use api::Scope;

use super::Event;

impl Event {
    /// What happened, as a person says it.
    pub fn sentence(&self) -> String {
        match self {
            Self::Started { term } => format!("the controller started (term {term})"),
            Self::EnvironmentApplied { spec } => format!("environment {} in zone {} was applied", spec.name, spec.zone),
            Self::ServiceApplied { spec } => {
                let stages: Vec<_> = spec.stages.keys().map(ToString::to_string).collect();
                format!("service {} with stages {} was applied", spec.name, stages.join(", "))
            }
            Self::PromotionFailed { stage, release, problem, .. } => {
                format!("{release} did not get into {stage}: {problem}")
            }
            Self::Entered { stage, release } => format!("{release} has started in {stage}"),
            Self::ShareSet { stage, release, share } => format!("{release} gets {share} of {stage}"),
            Self::Unheld { stage, release } => format!("{release} is no longer marked bad in {stage}"),
            Self::WarmthEnded { stage, release, .. } => format!("{release} is no longer kept warm in {stage}"),
            Self::Retired { stage, release } => format!("{release} has left {stage}"),
            Self::Placed { stage, release, agent, address } => {
                format!("{release} of {stage} runs on {agent} at {address}")
            }
            Self::CertificatesReplaced { environment, source, certificates, .. } => {
                let names: Vec<_> = certificates.iter().flat_map(|one| one.names.first()).map(String::as_str).collect();
                format!("{environment} has a new certificate from {source}: {}", names.join(", "))
            }
            Self::MemberInvited { name, role, .. } => format!("{role} {name} was invited"),
            Self::MemberJoined { name, .. } => format!("{name} joined the fleet"),
            Self::MemberRenewed { name, .. } => format!("the certificate of {name} was renewed"),
            Self::MemberRevoked { name } => format!("{name} was revoked"),
            Self::TokenCreated { name, scope, .. } => format!("token {name} was made for {}", verbs(scope)),
            Self::OperatorCertified { name, scope, .. } => {
                format!("token {name} was made for {}, opened by a certificate", verbs(scope))
            }
            Self::TokenRevoked { name } => format!("token {name} was revoked"),
            Self::ReleasesApplied { .. }
            | Self::ServiceRegistered { .. }
            | Self::ReleaseRequested { .. }
            | Self::ReleaseAdded { .. }
            | Self::BuildStarted { .. }
            | Self::ReleaseBuilt { .. }
            | Self::ReleaseFailed { .. }
            | Self::BuildCancelAsked { .. }
            | Self::ReleaseCancelled { .. }
            | Self::ReleaseOvertaken { .. }
            | Self::TagsSeen { .. }
            | Self::ReleaseTrimmed { .. }
            | Self::ReleaseForgotten { .. } => self.sentence_of_release(),
            Self::AccessApplied { spec } => {
                let (issuers, documents) = (names(spec.issuers.keys()), names(spec.documents.keys()));
                format!("who may pass was applied: issuers {issuers}; policies {documents}")
            }
            Self::ApplicationCreated { name, key, groups, .. } => {
                let key =
                    key.as_ref().map_or_else(|| "without a key".to_owned(), |key| format!("with the key {}", key.id));
                format!("application {name} was made {key}, in groups {}", names(groups.iter()))
            }
            Self::ApplicationRotated { name, key, .. } => format!("application {name} has the new key {}", key.id),
            Self::ApplicationKeysEnded { name, keys } => {
                format!("the time of keys of application {name} is over: {}", names(keys.iter()))
            }
            Self::ApplicationRevoked { name } => format!("application {name} was revoked"),
            Self::OverrideTold { proxy, stage, release: Some(release), .. } => {
                format!("{proxy} was told on the spot to send {stage} to {release}")
            }
            Self::OverrideTold { proxy, stage, release: None, .. } => {
                format!("the override of {stage} on {proxy} ended")
            }
            Self::ReleaseMarked { .. } | Self::ReleaseUnmarked { .. } | Self::MarksPassed { .. } => {
                self.sentence_of_mark()
            }
            _ => self.sentence_of_rollout(),
        }
    }
}

/// Names with commas between them, or "none".
fn names<T: ToString>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<_> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn verbs(scope: &Scope) -> String {
    scope.verbs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
