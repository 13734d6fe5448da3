//! The steps of one build: check out, run the command, pack.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::ComponentName;

use crate::artifact::{Artifact, Layout};
use crate::core::spec::{BuildSpec, ServiceSpec};
use crate::files::{self, File};

use super::log::Log;
use super::mirror::Mirror;
use super::process::{Ended, Output, Program};
use super::workspace::{self, Workspace};
use super::{BuildFolders, BuildProblem, Built, Cancel, GRACE, Job, told};

/// The file in a commit that says how it is built.
const SERVICE_FILE: &str = "pointsman.toml";

/// A build under way.
pub(crate) struct Build<'b> {
    pub(crate) folders: &'b BuildFolders,
    pub(crate) job: &'b Job,
    pub(crate) log: &'b mut Log,
    pub(crate) cancel: Cancel,
    pub(crate) workspace: &'b Workspace,
}

// === impl Build ===

impl Build<'_> {
    pub(crate) async fn steps(&mut self, layout: &Layout) -> Result<Built, BuildProblem> {
        let Job { release, commit, .. } = self.job;
        self.log.line(&format!("building {release} from commit {commit}"));
        let spec = self.check_out().await?;
        if let Some(build) = &spec.build {
            self.command(build).await?;
        }
        let artifacts = self.pack(layout, &spec).await?;
        Ok(Built { spec, artifacts })
    }

    /// Puts the commit's files into the workspace and returns its spec.
    async fn check_out(&mut self) -> Result<ServiceSpec, BuildProblem> {
        let Job { release, source, commit } = self.job;
        let mut mirror = Mirror::open(self.folders, &release.service, source, self.cancel.clone()).await?;
        mirror.log_to(self.log);
        mirror.need(commit).await?;
        if mirror.file(commit, ".gitmodules").await?.is_some() {
            let sentence = format!("commit {commit} has submodules, which are not supported by this version");
            return Err(BuildProblem::new(sentence));
        }
        let file = mirror.file(commit, SERVICE_FILE).await?;
        let file = file.ok_or_else(|| BuildProblem::new(format!("commit {commit} has no {SERVICE_FILE} on top")))?;
        mirror.check_out(commit, &self.workspace.checkout()).await?;
        drop(mirror);
        self.spec(&file)
    }

    fn spec(&mut self, file: &[u8]) -> Result<ServiceSpec, BuildProblem> {
        let (service, commit) = (&self.job.release.service, &self.job.commit);
        let spec = match files::parse_bytes(SERVICE_FILE, file) {
            Ok(File::Service(spec)) => spec,
            Ok(File::Environment(_)) => {
                let sentence = format!("{SERVICE_FILE} of commit {commit} describes an environment, not a service");
                return Err(BuildProblem::new(sentence));
            }
            Ok(File::Access(_)) => {
                let sentence = format!("{SERVICE_FILE} of commit {commit} says who may pass, and describes no service");
                return Err(BuildProblem::new(sentence));
            }
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| self.log.line(&mistake.to_string()));
                let count = match mistakes.len() {
                    1 => "a mistake".to_owned(),
                    many => format!("{many} mistakes, the first"),
                };
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                return Err(BuildProblem::new(format!("{SERVICE_FILE} of commit {commit} has {count}: {first}")));
            }
        };
        if spec.name != *service {
            let sentence =
                format!("{SERVICE_FILE} of commit {commit} describes the service {}, not {service}", spec.name);
            return Err(BuildProblem::new(sentence));
        }
        if spec.components.is_empty() {
            let sentence =
                format!("{SERVICE_FILE} of commit {commit} has no [component.NAME]: nothing could be released");
            return Err(BuildProblem::new(sentence));
        }
        Ok(spec)
    }

    async fn command(&mut self, build: &BuildSpec) -> Result<(), BuildProblem> {
        let environment = self.environment(build)?;
        self.log.line(&format!("$ {}", told(&build.command)));
        let program = Program {
            words: build.command.clone(),
            folder: self.workspace.checkout(),
            environment,
            timeout: build.timeout.duration(),
            grace: GRACE,
            record: Some(self.workspace.record()),
        };
        let ended = program.run(&mut self.cancel, Output::Log(self.log)).await;
        self.workspace.end_strays().await;
        let ended = ended.map_err(|error| {
            let name = build.command.first().map(String::as_str).unwrap_or_default();
            BuildProblem::new(format!("the build command {name:?} could not be started: {error}"))
        })?;
        let told = ended.to_string();
        self.log.line(&told);
        match ended {
            Ended::Exit(0) => Ok(()),
            Ended::Exit(status) => {
                Err(BuildProblem { sentence: format!("the build command ended with {told}"), exit: Some(status) })
            }
            Ended::TimedOut => {
                let sentence = format!("the build command took longer than {} and was ended", build.timeout);
                Err(BuildProblem::new(sentence))
            }
            Ended::Cancelled => Err(BuildProblem::new("the build was cancelled")),
            Ended::Signal(_) => Err(BuildProblem::new(format!("the build command was {told}"))),
        }
    }

    /// All that the command sees: nothing of ours but PATH and what the spec passes on.
    fn environment(&mut self, build: &BuildSpec) -> Result<BTreeMap<String, String>, BuildProblem> {
        let Job { release, commit, .. } = self.job;
        let cache = self.folders.cache.join(release.service.as_str());
        std::fs::create_dir_all(&cache).map_err(|error| BuildProblem::io("making the folder", &cache, &error))?;
        let text = |path: PathBuf| path.display().to_string();
        let mut all: BTreeMap<String, String> = [
            ("PATH", self.folders.path()),
            ("LANG", "C.UTF-8".to_owned()),
            ("HOME", text(self.workspace.home())),
            ("POINTSMAN_CACHE", text(cache)),
            ("POINTSMAN_COMMIT", commit.clone()),
            ("POINTSMAN_RELEASE", release.to_string()),
            ("POINTSMAN_SERVICE", release.service.to_string()),
            (workspace::MARK, text(self.workspace.folder().to_owned())),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for name in &build.pass {
            match self.folders.inherited.get(name) {
                Some(value) => drop(all.insert(name.clone(), value.clone())),
                None => self.log.line(&format!("{name} is to be passed on, but the controller does not have it")),
            }
        }
        all.extend(build.environment.clone());
        Ok(all)
    }

    async fn pack(
        &mut self,
        layout: &Layout,
        spec: &ServiceSpec,
    ) -> Result<BTreeMap<ComponentName, Artifact>, BuildProblem> {
        let checkout = self.workspace.checkout();
        // Git's own folder is no part of what was built, and would differ each time.
        let git = checkout.join(".git");
        workspace::remove_folder(git.clone()).await.map_err(|error| BuildProblem::io("removing", &git, &error))?;
        let mut artifacts = BTreeMap::new();
        for (name, component) in &spec.components {
            let folder = component_folder(&checkout, name, &component.folder)?;
            let (layout, release, component) = (layout.clone(), self.job.release.clone(), name.clone());
            let packed = tokio::task::spawn_blocking(move || layout.pack(&folder, &release, &component)).await;
            let packed = packed.map_err(|_| BuildProblem::new(format!("packing {name} was interrupted")))?;
            let artifact = packed.map_err(|error| BuildProblem::new(format!("packing {name} failed: {error}")))?;
            self.log.line(&format!("packed {name}: {} ({} bytes)", artifact.digest, artifact.bytes));
            artifacts.insert(name.clone(), artifact);
        }
        Ok(artifacts)
    }
}

/// The folder of a component, which must be there and, with all links followed, within the checkout.
fn component_folder(checkout: &Path, name: &ComponentName, folder: &str) -> Result<PathBuf, BuildProblem> {
    let missing = || BuildProblem::new(format!("the build left no folder \"{folder}\" for the component {name}"));
    let real = checkout.join(folder).canonicalize().map_err(|_| missing())?;
    let root = checkout.canonicalize().map_err(|error| BuildProblem::io("opening", checkout, &error))?;
    if !real.starts_with(&root) {
        let sentence =
            format!("the folder \"{folder}\" of the component {name} is a link that points out of the checkout");
        return Err(BuildProblem::new(sentence));
    }
    if real.is_dir() { Ok(real) } else { Err(missing()) }
}
