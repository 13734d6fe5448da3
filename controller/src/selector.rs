//! What `status` is asked about: everything, a service, or a stage.

use std::str::FromStr;

use api::{EnvironmentName, ServiceName, StageName};

use crate::core::State;

/// A part of the whole, by name. Written as nothing, `SERVICE` or `SERVICE/ENVIRONMENT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    Everything,
    Service(ServiceName),
    Stage(StageName),
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Everything);
        }
        let stage = text.parse().map(Self::Stage);
        stage.or_else(|_| text.parse().map(Self::Service)).map_err(|_: api::NotAccepted| {
            format!("{text:?} names nothing that can be shown: accepted is SERVICE or SERVICE/ENVIRONMENT")
        })
    }
}

impl Selector {
    /// Whether a stage belongs to it; without an environment, whether anything of the service does.
    pub(crate) fn includes(&self, service: &ServiceName, environment: Option<&EnvironmentName>) -> bool {
        match self {
            Self::Everything => true,
            Self::Service(wanted) => wanted == service,
            Self::Stage(wanted) => {
                &wanted.service == service && environment.is_none_or(|environment| environment == &wanted.environment)
            }
        }
    }

    /// Whether there is such a thing.
    pub(crate) fn exists(&self, state: &State) -> bool {
        match self {
            Self::Everything => true,
            Self::Service(service) => state.services.contains_key(service),
            Self::Stage(stage) => {
                let service = state.service(&stage.service);
                service.is_some_and(|service| service.spec.stages.contains_key(&stage.environment))
            }
        }
    }

    /// Whether one of its stages is as `wanted`.
    pub(crate) fn has_one(&self, state: &State, wanted: impl Fn(&ServiceName, &EnvironmentName) -> bool) -> bool {
        let stages = state
            .services
            .iter()
            .flat_map(|(name, service)| service.spec.stages.keys().map(move |stage| (name, stage)));
        stages.into_iter().any(|(name, stage)| self.includes(name, Some(stage)) && wanted(name, stage))
    }

    /// The environment it is about, if it is about one.
    pub(crate) fn environment(&self) -> Option<&EnvironmentName> {
        match self {
            Self::Everything | Self::Service(_) => None,
            Self::Stage(stage) => Some(&stage.environment),
        }
    }

    /// The service it is about.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Everything => None,
            Self::Service(service) | Self::Stage(StageName { service, .. }) => Some(service),
        }
    }
}
