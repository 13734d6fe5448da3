//! Checks of a release: commands that look at the whole set before it counts as built, each with a log and a verdict.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::core::spec::{BuildCheck, BuildSpec, ComponentSpec, ServiceSpec};
use crate::core::state::{Artifact, BuildStep, CheckDone, CheckVerdict};

use super::journal::Made;
use super::log::{self, Log};
use super::process::{Ended, Output, Program};
use super::steps::Build;
use super::{BuildProblem, GRACE, outputs, told};

impl Build<'_> {
    /// Runs those that have not ended yet, one after the other, until one fails; what all of them said.
    pub(crate) async fn check(&mut self, spec: &ServiceSpec, made: &Made) -> Result<Vec<CheckDone>, BuildProblem> {
        self.step = BuildStep::Check;
        let Some(build) = spec.build.as_ref().filter(|build| !build.checks.is_empty()) else { return Ok(Vec::new()) };
        if made.kept_from.is_some() {
            // They looked at these artifacts, as they were built.
            return Ok(self.job.base.as_ref().map(|base| base.checks.clone()).unwrap_or_default());
        }
        let mut environment = self.environment(build).await?;
        let list = self.workspace.folder().join("artifacts.json");
        let written = std::fs::write(&list, listed(spec, made, &self.workspace.checkout()).to_string());
        written.map_err(|error| BuildProblem::io("writing", &list, &error))?;
        environment.insert("POINTSMAN_ARTIFACTS".to_owned(), list.display().to_string());
        for check in &build.checks {
            let done = self.journal.checks.iter().find(|done| done.name == check.name).cloned();
            let done = match done {
                Some(done) => done,
                None => self.check_one(build, check, environment.clone()).await?,
            };
            let name = &check.name;
            let (sentence, exit) = match done.verdict {
                CheckVerdict::Well => continue,
                CheckVerdict::Failed(status) => {
                    (format!("the check {name} failed with exit status {status}"), Some(status))
                }
                CheckVerdict::Ended(why) => (format!("the check {name} failed: {why}"), None),
            };
            return Err(BuildProblem { sentence, exit });
        }
        Ok(self.journal.checks.clone())
    }

    async fn check_one(
        &mut self,
        build: &BuildSpec,
        check: &BuildCheck,
        environment: BTreeMap<String, String>,
    ) -> Result<CheckDone, BuildProblem> {
        let name = &check.name;
        let mut log = Log::open(log::path_of_check(&self.folders.logs, &self.job.release, name))?;
        log.hide(self.mask.clone());
        log.line(&format!("$ {}", told(&check.command)));
        self.log.line(&format!("checking {name}"));
        let program = Program {
            words: check.command.clone(),
            folder: self.workspace.checkout(),
            environment,
            timeout: check.timeout.duration(),
            grace: GRACE,
            record: Some(self.workspace.record()),
        };
        let program = program.within(&self.containment(build).await);
        let program = program.no_larger(self.workspace.folder().to_owned(), build.size_bytes);
        let begun = Instant::now();
        let ended = program.run(&mut self.cancel, Output::Log(&mut log)).await;
        self.workspace.end_strays().await;
        let verdict = match ended {
            Ok(Ended::Cancelled) => {
                log.line("cancelled");
                return Err(BuildProblem::new("the build was cancelled"));
            }
            Ok(Ended::Exit(0)) => CheckVerdict::Well,
            Ok(Ended::Exit(status)) => CheckVerdict::Failed(status),
            Ok(Ended::TimedOut) => CheckVerdict::Ended(format!("it took longer than {} and was ended", check.timeout)),
            Ok(Ended::TooLarge(_)) => {
                CheckVerdict::Ended(format!("its folder became larger than {} bytes, [build] size", build.size_bytes))
            }
            Ok(ended @ Ended::Signal(_)) => CheckVerdict::Ended(format!("it was {ended}")),
            Err(error) => CheckVerdict::Ended(format!("it could not be started: {error}")),
        };
        let said = match &verdict {
            CheckVerdict::Well => "well".to_owned(),
            CheckVerdict::Failed(status) => format!("exit status {status}"),
            CheckVerdict::Ended(why) => why.clone(),
        };
        log.line(&said);
        self.log.line(&format!("check {name}: {said}"));
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let done = CheckDone { name: name.clone(), verdict, took_ms };
        self.journal.checks.push(done.clone());
        self.note().await?;
        Ok(done)
    }
}

/// The set, as `POINTSMAN_ARTIFACTS` shows it: by component and environment.
fn listed(spec: &ServiceSpec, made: &Made, checkout: &std::path::Path) -> Value {
    let mut made = made.clone();
    let each = made.each().map(|(component, environment, artifact)| {
        let Artifact { digest, bytes, place, .. } = &*artifact;
        let folder = spec
            .components
            .get(component)
            .filter(|one| one.image.is_none())
            .map(|one: &ComponentSpec| checkout.join(outputs::of(&one.folder, environment)).display().to_string());
        json!({
            "component": component,
            "environment": environment,
            "digest": digest,
            "bytes": bytes,
            "reference": place.as_ref().map(|place| format!("{place}@{digest}")),
            "folder": folder,
        })
    });
    each.collect()
}
