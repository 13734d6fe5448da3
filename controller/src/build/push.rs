//! What is built goes to the operator's registry, and what was pushed by the build itself is looked for where it should be.

use std::num::NonZeroU8;
use std::time::Duration;

use api::Digest;
use certs::call::Clear;
use certs::endpoint::Authorities;
use registry::{Credentials, Place, Progress, Registry, SILENCE, Settings, Tag, Wanted};

use crate::core::observe::Transfer;
use crate::core::state::{Artifact, ArtifactKind, BuildStep};

use super::BuildProblem;
use super::journal::Made;
use super::process::cancelled;
use super::steps::{Build, named};

/// How often it is told how far a transfer is.
const TOLD_EACH: Duration = Duration::from_millis(500);

impl Build<'_> {
    /// Pushes each folder to `<address>/<service>/<component>`. Images are where they are.
    pub(crate) async fn push(&mut self, mut made: Made) -> Result<Made, BuildProblem> {
        if self.journal.pushed {
            return Ok(made);
        }
        self.step = BuildStep::Push;
        if let Some(spec) = &self.job.registry {
            let registry = self.shelf.registry_of(spec).await.map_err(BuildProblem::new)?;
            let release = &self.job.release;
            for (component, environment, artifact) in made.each() {
                let place = spec.address.below(&[release.service.as_str(), component.as_str()]);
                let place = place.map_err(|error| BuildProblem::new(error.to_string()))?;
                if artifact.kind == ArtifactKind::Image || artifact.place.as_ref() == Some(&place) {
                    continue;
                }
                let environment = environment.map(|name| name.as_str());
                let end = environment.map(|name| format!("-{name}")).unwrap_or_default();
                let tag: Tag = format!("{}{end}", release.number).parse().expect("numbers and names are tags");
                let what = named(component.as_str(), environment);
                self.push_one(&registry, &what, artifact, &place, &tag).await?;
                artifact.place = Some(place);
            }
        }
        self.journal.made = Some(made.clone());
        self.journal.pushed = true;
        self.note().await?;
        Ok(made)
    }

    async fn push_one(
        &mut self,
        registry: &Registry,
        what: &str,
        artifact: &Artifact,
        place: &Place,
        tag: &Tag,
    ) -> Result<(), BuildProblem> {
        let progress = Progress::default();
        let pushing = registry.push(&self.shelf.layout, &artifact.digest, place, Some(tag), &progress);
        tokio::pin!(pushing);
        let mut each = tokio::time::interval(TOLD_EACH);
        let pushed = loop {
            tokio::select! {
                biased;
                () = cancelled(&mut self.cancel) => break Err(BuildProblem::new("the build was cancelled")),
                pushed = &mut pushing => {
                    break pushed.map_err(|error| BuildProblem::new(format!("pushing {what} failed: {error}")));
                }
                _ = each.tick() => {
                    let (done_bytes, all_bytes) = (progress.done(), progress.all());
                    self.transfers.send_replace(Some(Transfer { what: what.to_owned(), done_bytes, all_bytes }));
                }
            }
        };
        self.transfers.send_replace(None);
        let pushed = pushed?;
        self.log.line(&format!("pushed {what}: {place}@{} ({} bytes)", pushed.digest, pushed.bytes));
        Ok(())
    }

    /// Size of an image, whose registry must have it by its digest.
    pub(crate) async fn image(&mut self, place: &Place, digest: &Digest) -> Result<u64, BuildProblem> {
        let registry = match &self.job.registry {
            Some(spec) => self.shelf.registry_of(spec).await.map_err(BuildProblem::new)?,
            None => anybody(place.clone()),
        };
        let wanted = Wanted::Digest(*digest);
        tokio::select! {
            biased;
            () = cancelled(&mut self.cancel) => Err(BuildProblem::new("the build was cancelled")),
            found = registry.manifest(place, &wanted) => match found {
                Ok(found) => Ok(found.bytes),
                Err(error) => Err(BuildProblem::new(format!("the image {place}@{digest} was not found: {error}"))),
            },
        }
    }
}

/// Whoever asks without the operator's registry has only what everybody may have.
pub(crate) fn anybody(place: Place) -> Registry {
    Registry::new(Settings {
        place,
        authorities: Authorities::of_machine(),
        credentials: Credentials::Anonymous,
        uploads: NonZeroU8::MIN,
        clear: Clear::OnLoopback,
        silence: SILENCE,
    })
}
