//! The build command: what it sees, and how it ends.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::core::spec::BuildSpec;

use super::contain::Containment;
use super::mask::{Mask, SecretValue};
use super::process::{Ended, Output, Program};
use super::steps::Build;
use super::{BuildProblem, GRACE, Job, limit, login, secrets, told, workspace};

impl Build<'_> {
    /// Runs it to its end.
    pub(crate) async fn command(&mut self, build: &BuildSpec) -> Result<(), BuildProblem> {
        let environment = self.environment(build).await?;
        self.log.line(&format!("$ {}", told(&build.command)));
        let program = Program {
            words: build.command.clone(),
            folder: self.workspace.checkout(),
            environment,
            timeout: build.timeout.duration(),
            grace: GRACE,
            record: Some(self.workspace.record()),
        };
        let containment = self.containment(build).await;
        let program = program.within(&containment).no_larger(self.workspace.folder().to_owned(), build.size_bytes);
        let ended = program.run(&mut self.cancel, Output::Log(self.log)).await;
        self.workspace.end_strays().await;
        let ended = ended.map_err(|error| {
            let name = build.command.first().map(String::as_str).unwrap_or_default();
            BuildProblem::new(format!("the build command {name:?} could not be started: {error}"))
        })?;
        let ended = self.measured(ended, build.size_bytes).await;
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
            Ended::TooLarge(_) => {
                let most = build.size_bytes;
                let sentence = format!("the build command made its folder larger than {most} bytes, [build] size");
                Err(BuildProblem::new(sentence))
            }
            Ended::Cancelled => Err(BuildProblem::new("the build was cancelled")),
            Ended::Signal(_) => Err(BuildProblem::new(format!("the build command was {told}"))),
        }
    }

    /// What was made between the last look and the end counts, too.
    async fn measured(&self, ended: Ended, most: u64) -> Ended {
        let folder = self.workspace.folder().to_owned();
        match tokio::task::spawn_blocking(move || limit::size(&folder, most)).await {
            Ok(bytes) if bytes > most && ended == Ended::Exit(0) => Ended::TooLarge(bytes),
            _ => ended,
        }
    }

    /// How the build's processes are kept together.
    pub(crate) async fn containment(&mut self, build: &BuildSpec) -> Containment {
        if build.contain {
            return self.folders.containment().await.clone();
        }
        let why = "[build] contain = false";
        self.log.line(&format!("a process that leaves its group may outlive this build: {why}"));
        Containment::GroupOnly(why.into())
    }

    /// All that the commands of a build see: nothing of ours but PATH and what the spec passes on. Secrets are hidden from here
    /// on.
    pub(crate) async fn environment(&mut self, build: &BuildSpec) -> Result<BTreeMap<String, String>, BuildProblem> {
        if let Some(known) = &self.surroundings {
            return Ok(known.clone());
        }
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
        let mut values = self.secrets(build).await?;
        all.extend(values.iter().map(|secret| (secret.name.clone(), secret.text.clone())));
        if !values.is_empty() {
            all.insert("POINTSMAN_SECRETS".to_owned(), text(self.workspace.secrets()));
        }
        if build.registry {
            let login = login::make(self, &mut values).await?;
            all.extend(login);
        }
        self.mask = Mask::of(&values).map(Arc::new);
        self.log.hide(self.mask.clone());
        self.surroundings = Some(all.clone());
        Ok(all)
    }

    /// Values of its secrets; each is in a file of its own, too.
    async fn secrets(&mut self, build: &BuildSpec) -> Result<Vec<SecretValue>, BuildProblem> {
        let folder = self.workspace.secrets();
        self.workspace.private(&folder).await?;
        let service = &self.job.release.service;
        let mut values = Vec::new();
        for name in &build.secrets {
            let problem = |why: &str| BuildProblem::new(format!("the secret {name} {why}"));
            let spec = self.job.secrets.get(name).filter(|spec| spec.services.iter().any(|one| one.covers(service)));
            let spec = spec.ok_or_else(|| {
                problem(&format!(
                    "is not given to {service}: [secret.{name}] in the operator's releases.toml says to whom"
                ))
            })?;
            let text = secrets::value(&spec.from, self.folders, &self.workspace.home(), &mut self.cancel).await;
            let text = text.map_err(|why| problem(&why))?;
            keep(&folder.join(name), text.as_bytes())
                .map_err(|error| problem(&format!("cannot be written: {error}")))?;
            values.push(SecretValue { name: name.clone(), text });
        }
        Ok(values)
    }
}

/// Writes a new file for its owner alone.
pub(crate) fn keep(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(bytes)
}
