//! The steps of one build: check out, run the command, pack, push, check. What is done is in the journal before the next begins.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use registry::Layout;
use tokio::sync::watch;

use crate::core::observe::Transfer;
use crate::core::spec::ServiceSpec;
use crate::core::state::{Artifact, ArtifactKind, BuildStep};
use crate::shelf::Shelf;

use super::contain::Containment;
use super::journal::{Journal, Made};
use super::log::Log;
use super::mask::Mask;
use super::outputs::{self, Found, Output};
use super::workspace::{self, Workspace};
use super::{BuildFolders, BuildProblem, Built, Cancel, Job};

/// A build under way.
pub(crate) struct Build<'b> {
    pub(crate) folders: &'b BuildFolders,
    pub(crate) shelf: &'b Shelf,
    pub(crate) job: &'b Job,
    pub(crate) log: &'b mut Log,
    pub(crate) cancel: Cancel,
    pub(crate) workspace: &'b Workspace,
    pub(crate) journal: &'b mut Journal,
    /// What goes to the registry now.
    pub(crate) transfers: &'b watch::Sender<Option<Transfer>>,
    /// What its commands see, once one of them needed it.
    pub(crate) surroundings: Option<BTreeMap<String, String>>,
    /// Secrets that the commands have.
    pub(crate) mask: Option<Arc<Mask>>,
    /// Where it is.
    pub(crate) step: BuildStep,
}

// === impl Build ===

impl Build<'_> {
    pub(crate) async fn steps(&mut self) -> Result<Built, BuildProblem> {
        self.begin().await?;
        let spec = Box::pin(self.check_out()).await?;
        let made = match self.journal.made.clone() {
            Some(made) => made,
            None => Box::pin(self.make(&spec)).await?,
        };
        let made = Box::pin(self.push(made)).await?;
        let checks = Box::pin(self.check(&spec, &made)).await?;
        let Made { artifacts, for_environments, kept_from } = made;
        Ok(Built { spec, artifacts, for_environments, checks, kept_from })
    }

    async fn begin(&mut self) -> Result<(), BuildProblem> {
        self.step = BuildStep::Checkout;
        let Job { release, commit, .. } = self.job;
        if self.journal.made.is_some() || self.journal.ran {
            self.log.line(&format!("going on with {release}: the command does not run again"));
            return Ok(());
        }
        if self.journal.pushes {
            self.step = BuildStep::Interrupted;
            let sentence = format!(
                "the controller ended while the build command ran, which pushes images itself: a second run could push \
                 others. `release retry {release}` builds the commit again, as a new release"
            );
            return Err(BuildProblem::new(sentence));
        }
        self.log.line(&format!("building {release} from commit {commit}"));
        if let Containment::GroupOnly(why) = self.folders.containment().await {
            self.log.line(&format!("a process that leaves its group may outlive this build: {why}"));
        }
        Ok(())
    }

    /// Makes the set, all or none.
    async fn make(&mut self, spec: &ServiceSpec) -> Result<Made, BuildProblem> {
        let made = match self.kept(spec).await? {
            Some(made) => made,
            None => {
                if let Some(build) = spec.build.as_ref().filter(|_| !self.journal.ran) {
                    self.step = BuildStep::Command;
                    self.journal.pushes = spec.components.values().any(|component| component.image.is_some());
                    self.note().await?;
                    Box::pin(self.command(build)).await?;
                    self.journal.ran = true;
                    self.note().await?;
                }
                let outputs = self.outputs(spec).await?;
                self.pack(outputs).await?
            }
        };
        self.journal.made = Some(made.clone());
        self.note().await?;
        Ok(made)
    }

    /// What another release has, when only configuration has changed since.
    async fn kept(&mut self, spec: &ServiceSpec) -> Result<Option<Made>, BuildProblem> {
        let Some(base) = self.job.base.as_ref().filter(|_| !self.journal.ran) else { return Ok(None) };
        if !base.is_like(spec) || !self.only_configuration_since(&base.commit).await? {
            return Ok(None);
        }
        let number = base.number;
        self.log
            .line(&format!("only configuration has changed since {number}: its artifacts are taken, nothing is built"));
        let (artifacts, for_environments) = (base.artifacts.clone(), base.for_environments.clone());
        Ok(Some(Made { artifacts, for_environments, kept_from: Some(number) }))
    }

    async fn outputs(&mut self, spec: &ServiceSpec) -> Result<Vec<(Output, u64)>, BuildProblem> {
        self.step = BuildStep::Outputs;
        let (checkout, spec) = (self.workspace.checkout(), spec.clone());
        let found = tokio::task::spawn_blocking(move || outputs::find(&checkout, &spec)).await;
        let found = found.map_err(|_| BuildProblem::new("looking for what was built was interrupted"))?;
        let found = found.map_err(|mistakes| {
            mistakes.iter().for_each(|mistake| self.log.line(mistake));
            match &mistakes[..] {
                [only] => BuildProblem::new(only),
                [first, rest @ ..] => BuildProblem::new(format!("{first}; and {} more, see the log", rest.len())),
                [] => BuildProblem::new("nothing was built"),
            }
        })?;
        let mut outputs = Vec::new();
        for output in found {
            let bytes = match &output.found {
                Found::Folder(_) => 0,
                Found::Image(place, digest) => self.image(place, digest).await?,
            };
            outputs.push((output, bytes));
        }
        Ok(outputs)
    }

    async fn pack(&mut self, outputs: Vec<(Output, u64)>) -> Result<Made, BuildProblem> {
        self.step = BuildStep::Pack;
        // Git's own folder is no part of what was built, and would differ each time.
        let git = self.workspace.checkout().join(".git");
        workspace::remove_folder(git.clone()).await.map_err(|error| BuildProblem::io("removing", &git, &error))?;
        let mut made = Made::default();
        for (Output { component, environment, found }, bytes) in outputs {
            let what = named(component.as_str(), environment.as_ref().map(|name| name.as_str()));
            let artifact = match found {
                Found::Folder(folder) => {
                    let packed = self.pack_one(&folder, component.clone()).await;
                    let packed = packed.map_err(|why| BuildProblem::new(format!("packing {what} failed: {why}")))?;
                    self.log.line(&format!("packed {what}: {} ({} bytes)", packed.digest, packed.bytes));
                    Artifact { digest: packed.digest, bytes: packed.bytes, kind: ArtifactKind::Folder, place: None }
                }
                Found::Image(place, digest) => {
                    self.log.line(&format!("found {what}: {place}@{digest}"));
                    Artifact { digest, bytes, kind: ArtifactKind::Image, place: Some(place) }
                }
            };
            made.put(component, environment, artifact);
        }
        Ok(made)
    }

    async fn pack_one(&self, folder: &Path, component: api::ComponentName) -> Result<registry::Artifact, String> {
        let (layout, release): (Layout, _) = (self.shelf.layout.clone(), self.job.release.clone());
        let folder = folder.to_owned();
        let packed = tokio::task::spawn_blocking(move || layout.pack(&folder, &release, &component)).await;
        packed.map_err(|_| "it was interrupted".to_owned())?.map_err(|error| error.to_string())
    }

    /// Writes down how far it is.
    pub(crate) async fn note(&self) -> Result<(), BuildProblem> {
        let written = self.journal.write(self.workspace.folder()).await;
        written.map_err(|error| BuildProblem::io("writing the journal in", self.workspace.folder(), &error))
    }
}

/// A component, and for which environment it is.
pub(crate) fn named(component: &str, environment: Option<&str>) -> String {
    environment.map_or(component.to_owned(), |environment| format!("{component} for {environment}"))
}
