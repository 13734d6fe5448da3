//! `release add`: what was made elsewhere, by its addresses or its images.

use std::net::SocketAddr;

use api::operator::{AddReleaseRequest, GivenImage, Release, StaticAddress};
use api::{ComponentName, EnvironmentName, NotAccepted, ServiceName, Verb};
use registry::Reference;
use tonic::Status;

use crate::core::Command;
use crate::core::command::GivenArtifact;
use crate::core::state::{Addresses, Artifact, ArtifactKind};
use crate::engine::Priority;
use crate::server::Shared;
use crate::server::who::{Operator, parse, wrong};

/// Images of one release.
const IMAGES_MOST: usize = 200;

/// An image as it was named.
#[derive(Debug)]
struct Named {
    environment: Option<EnvironmentName>,
    component: ComponentName,
    reference: Reference,
}

impl Shared {
    pub(in super::super) async fn add_release(
        &self,
        who: &Operator,
        request: AddReleaseRequest,
    ) -> Result<Release, Status> {
        let service: ServiceName = parse(&request.service)?;
        who.may(Verb::Release, Some(&service), None)?;
        let (mut addresses, mut images, mut mistakes) = (Vec::new(), Vec::new(), Vec::new());
        for given in &request.addresses {
            read_addresses(given).map_or_else(|found| mistakes.extend(found), |read| addresses.push(read));
        }
        for given in request.images.iter().take(IMAGES_MOST) {
            read_image(given).map_or_else(|found| mistakes.extend(found), |read| images.push(read));
        }
        if request.images.len() > IMAGES_MOST {
            mistakes.push(format!("a release has at most {IMAGES_MOST} images"));
        }
        if !mistakes.is_empty() {
            return Err(wrong(&mistakes));
        }
        // Before tags are looked up: they may have moved on since.
        if let Some(before) = self.done_before(who, &request.request_id).await? {
            return self.made(before).await;
        }
        let artifacts = self.look_up(images).await?;
        let (version, commit) = (request.version, request.commit);
        let command = Command::AddRelease { service, version, commit, addresses, artifacts };
        let accepted = self.ask(who, command, request.reason, request.request_id, Priority::Normal).await?;
        self.made(accepted).await
    }

    /// Asks registries what is there: a tag is looked up once, and its digest counts from then on.
    async fn look_up(&self, images: Vec<Named>) -> Result<Vec<GivenArtifact>, Status> {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for Named { environment, component, reference } in images {
            match self.in_registry(&reference.place, &reference.wanted).await {
                Ok(manifest) => {
                    let place = Some(reference.place);
                    let (digest, bytes, kind) = (manifest.digest, manifest.bytes, ArtifactKind::Image);
                    let artifact = Artifact { digest, bytes, kind, place };
                    found.push(GivenArtifact { environment, component, artifact });
                }
                Err(why) => missing.push(format!("{reference}: {why}")),
            }
        }
        if missing.is_empty() { Ok(found) } else { Err(Status::failed_precondition(missing.join("\n"))) }
    }
}

fn read_environment(text: &str, mistakes: &mut Vec<String>) -> Option<EnvironmentName> {
    let environment = (!text.is_empty()).then(|| text.parse()).transpose();
    environment.map_err(|problem: NotAccepted| mistakes.push(problem.to_string())).unwrap_or_default()
}

fn read_component(text: &str, mistakes: &mut Vec<String>) -> Option<ComponentName> {
    text.parse().map_err(|problem: NotAccepted| mistakes.push(problem.to_string())).ok()
}

fn read_image(given: &GivenImage) -> Result<Named, Vec<String>> {
    let mut mistakes = Vec::new();
    let environment = read_environment(&given.environment, &mut mistakes);
    let component = read_component(&given.component, &mut mistakes);
    let reference: Result<Reference, NotAccepted> = given.reference.parse();
    let reference = reference.map_err(|problem| mistakes.push(problem.to_string())).ok();
    match (component, reference) {
        (Some(component), Some(reference)) if mistakes.is_empty() => Ok(Named { environment, component, reference }),
        _ => Err(mistakes),
    }
}

fn read_addresses(given: &StaticAddress) -> Result<Addresses, Vec<String>> {
    let mut mistakes = Vec::new();
    let environment = read_environment(&given.environment, &mut mistakes);
    let component = read_component(&given.component, &mut mistakes);
    let mut addresses = Vec::new();
    for text in &given.addresses {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => {
                mistakes.push(format!("{text:?} has port 0, on which nobody can be reached: accepted is 1 to 65535"));
            }
            Ok(address) => addresses.push(address),
            Err(_) => mistakes.push(format!(
                "{text:?} is not an address: accepted is IP:PORT, such as \"10.0.0.7:8080\" or \"[::1]:8080\""
            )),
        }
    }
    match component {
        Some(component) if mistakes.is_empty() => Ok(Addresses { environment, component, addresses }),
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_an_address_has_a_port() {
        let given = |text: &str| StaticAddress {
            component: "web".into(),
            addresses: vec![text.to_owned()],
            ..StaticAddress::default()
        };
        assert!(read_addresses(&given("10.0.0.7:8080")).is_ok());
        for wrong in ["10.0.0.7:0", "[::1]:0", "10.0.0.7", "host:80"] {
            let mistakes = read_addresses(&given(wrong)).expect_err(wrong);
            assert!(mistakes.len() == 1 && mistakes[0].contains(wrong) && mistakes[0].contains("accepted is"));
        }
    }

    #[test]
    fn hostile_h83_images_are_named_with_all_that_is_wrong() {
        let given = |environment: &str, component: &str, reference: &str| GivenImage {
            environment: environment.into(),
            component: component.into(),
            reference: reference.into(),
        };
        let digest = api::Digest::of(b"x");
        let read = read_image(&given("qa", "web", &format!("registry.example.com/shop/web@{digest}"))).expect("good");
        assert_eq!(read.reference.to_string(), format!("registry.example.com/shop/web@{digest}"));
        assert_eq!(
            (read.environment.map(|name| name.to_string()), read.component.as_str()),
            (Some("qa".into()), "web")
        );
        assert!(read_image(&given("", "web", "registry.example.com/shop/web:v1")).expect("good").environment.is_none());
        for (wrong, count) in [
            (given("../x", "We b", "web"), 3),
            (given("../x", "web", "registry.example.com/shop/web:v1"), 1),
            (given("", "", "registry.example.com/shop/web:v1"), 1),
            // Neither Docker Hub nor `latest` is meant by what does not name them.
            (given("", "web", "registry.example.com/shop/web"), 1),
            (given("", "web", "ubuntu:24.04"), 1),
        ] {
            let mistakes = read_image(&wrong).expect_err("not accepted");
            assert_eq!(mistakes.len(), count, "{mistakes:?}");
        }
    }
}
