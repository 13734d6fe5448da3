//! The first step of a build: the commit's files in a clean folder, and what they say of themselves.

use crate::core::spec::ServiceSpec;
use crate::files::{self, File};

use super::mirror::Mirror;
use super::steps::Build;
use super::{BuildProblem, Job, picks};

/// The file in a commit that says how it is built.
pub(crate) const SERVICE_FILE: &str = "pointsman.toml";

impl Build<'_> {
    /// Puts the commit's files into the workspace, unless an earlier build has and went on from there, and returns its spec.
    pub(crate) async fn check_out(&mut self) -> Result<ServiceSpec, BuildProblem> {
        let Job { release, source, commit, .. } = self.job;
        let mut mirror = Mirror::open(self.folders, &release.service, source, self.cancel.clone()).await?;
        mirror.log_to(self.log);
        let begins = self.journal.made.is_none() && !self.journal.ran;
        if let Some(tag) = self.job.tag.as_ref().filter(|_| begins) {
            mirror.need_tag(tag, commit).await?;
        }
        match &self.job.hot_fix {
            Some(fix) if !fix.picks.is_empty() => {
                let picks: Vec<String> = fix.picks.iter().map(|pick| pick.id.clone()).collect();
                picks::need(&mut mirror, self.folders, &release.service, commit, &fix.base, &picks).await?;
            }
            _ => mirror.need(commit).await?,
        }
        if mirror.file(commit, ".gitmodules").await?.is_some() {
            let sentence = format!("commit {commit} has submodules, which are not supported by this version");
            return Err(BuildProblem::new(sentence));
        }
        let file = mirror.file(commit, SERVICE_FILE).await?;
        let file = file.ok_or_else(|| BuildProblem::new(format!("commit {commit} has no {SERVICE_FILE} on top")))?;
        if begins {
            mirror.check_out(commit, &self.workspace.checkout()).await?;
        }
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
            Ok(File::Releases(_)) => {
                let sentence = format!("{SERVICE_FILE} of commit {commit} is the operator's, and describes no service");
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

    /// Whether nothing but the file that describes the service differs from another commit, and that does.
    pub(crate) async fn only_configuration_since(&mut self, base: &str) -> Result<bool, BuildProblem> {
        let Job { release, source, commit, .. } = self.job;
        let mut mirror = Mirror::open(self.folders, &release.service, source, self.cancel.clone()).await?;
        if mirror.commit_id(base).await?.is_none() {
            return Ok(false);
        }
        let verb = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", "--end-of-options", base, commit];
        let names = mirror.quiet(&verb).await?;
        Ok(names.is_some_and(|names| names == format!("{SERVICE_FILE}\0").into_bytes()))
    }
}
