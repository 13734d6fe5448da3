//! Whether agents of an environment could run a release: each part of it that runs, or is reached, has to be there.

use api::{ComponentName, EnvironmentName, ReleaseName};

use crate::core::command::Refusal;
use crate::core::event::short;
use crate::core::state::{ArtifactKind, Release};

/// Refuses what could not be run, with what to do instead.
pub(super) fn can_start(name: &ReleaseName, release: &Release, at: &EnvironmentName) -> Result<(), Refusal> {
    if release.trimmed.artifacts_ms.is_some() {
        let again = again(name, release, "");
        return Err(Refusal::Refused(format!(
            "the artifacts of {name} were removed by [keep]: {again} makes them again"
        )));
    }
    let parts = || {
        let parts = release.components.iter().filter(|(_, one)| !one.run.is_empty() || one.protocol.is_some());
        parts.map(|(component, _)| component)
    };
    if let Some(image) = parts().find(|component| is_image(release, component, at)) {
        return Err(Refusal::Refused(format!(
            "{image} of {name} is an image: images run on Kubernetes, and {at} has agents"
        )));
    }
    if let Some(component) = parts().find(|component| is_elsewhere(release, component, at)) {
        let again = again(name, release, " --again");
        return Err(Refusal::Refused(format!(
            "{name} has nothing of {component} for {at}: it was made before that stage was; {again} makes it for all of them"
        )));
    }
    if release.can_run(at) {
        return Ok(());
    }
    Err(Refusal::Refused(format!(
        "{} has nothing that an agent could run in {at}: its routed component needs `run` and an artifact, which `release build` \
         makes",
        name.number
    )))
}

fn is_image(release: &Release, component: &ComponentName, at: &EnvironmentName) -> bool {
    release.artifact(component, at).is_some_and(|artifact| artifact.kind == ArtifactKind::Image)
}

fn is_elsewhere(release: &Release, component: &ComponentName, at: &EnvironmentName) -> bool {
    let mut others = release.for_environments.values();
    release.artifact(component, at).is_none() && others.any(|artifacts| artifacts.contains_key(component))
}

fn again(name: &ReleaseName, release: &Release, how: &str) -> String {
    if release.begun_ms.is_none() {
        return format!("`release add {}`", name.service);
    }
    format!("`release build {} --commit {}{how}`", name.service, short(&release.wanted.commit))
}
