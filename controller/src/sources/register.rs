//! Services that register themselves: what the files of a repository's branch say counts, as if somebody had applied it.
//!
//! Must not know: whether it is accepted; `decide` says so. A mistake leaves what was registered before as it is, and so does a file
//! that is gone.

use std::collections::{BTreeMap, BTreeSet};

use api::{MemberName, ServiceName};
use tracing::info;

use crate::build::BuildProblem;
use crate::build::mirror::{Mirror, Remote};
use crate::core::Command;
use crate::core::spec::{RepositorySpec, ServiceSpec, Source};
use crate::engine::{NotDone, Priority, Submission};
use crate::files::{self, File};
use crate::status::clock_ms;

use super::ask::nobody;
use super::{Around, RepositorySeen};

/// Most problems of one repository that are told.
const TOLD: usize = 50;

/// What was registered already.
#[derive(Debug, Default)]
pub(super) struct Registration {
    /// The commit whose files count without a mistake, and how the repository was listed then.
    done: BTreeMap<MemberName, (String, RepositorySpec)>,
}

// === impl Registration ===

impl Registration {
    /// Registers what a repository's branch says now, unless it said so before.
    pub(super) async fn look(
        &mut self,
        around: &Around,
        name: &MemberName,
        repository: &RepositorySpec,
        remote: &Remote,
    ) -> Result<(), BuildProblem> {
        let head = remote.branches.get(&repository.branch);
        let mut seen = RepositorySeen { commit: head.cloned(), looked_ms: Some(clock_ms()), problems: Vec::new() };
        let done = self.done.get(name);
        match head {
            None => {
                let sentence = format!("the branch {} does not exist in {}", repository.branch, repository.url);
                seen.problems.push(sentence);
            }
            Some(head) if done.is_some_and(|(commit, as_listed)| commit == head && as_listed == repository) => {}
            Some(head) => {
                seen.problems = read_all(around, name, repository, head).await?;
                if seen.problems.is_empty() {
                    info!(repository = %name, commit = head, "its services are registered");
                    self.done.insert(name.clone(), (head.clone(), repository.clone()));
                }
            }
        }
        around.sources.known().repositories.insert(name.clone(), seen);
        Ok(())
    }
}

/// Registers what the files of a commit say, each by itself; what is wrong, a sentence each.
async fn read_all(
    around: &Around,
    name: &MemberName,
    repository: &RepositorySpec,
    head: &str,
) -> Result<Vec<String>, BuildProblem> {
    let source = Source { repository: repository.url.clone(), branch: repository.branch.clone(), tags: None };
    let mut mirror = Mirror::of_repository(&around.folders, name, &source, nobody()).await?;
    mirror.need_newest(head).await?;
    let (mut problems, mut services, mut known) = (Vec::new(), Vec::new(), BTreeSet::new());
    let at = format!("at {}", head.get(..7).unwrap_or(head));
    for file in &repository.files {
        let read = match mirror.file(head, file).await {
            Ok(Some(bytes)) => read(file, &bytes, &source, &mut known),
            Ok(None) => Err(vec![format!("{file} is not there")]),
            Err(problem) => Err(vec![problem.sentence]),
        };
        match read {
            Ok(spec) => services.push(spec),
            Err(wrong) => problems.extend(wrong.into_iter().map(|wrong| format!("{wrong} ({at})"))),
        }
    }
    drop(mirror);
    for spec in services {
        let service = spec.name.clone();
        let command = Command::Register { repository: name.clone(), commit: head.to_owned(), services: vec![spec] };
        match around.engine.submit(Submission::own(command), Priority::Normal).await {
            Ok(_) => {}
            Err(NotDone::Refused(refusal)) => {
                let sentences = refusal.to_string();
                problems.extend(sentences.lines().map(|sentence| format!("{service}: {sentence} ({at})")));
            }
            Err(NotDone::Store(problem)) => problems.push(format!("{service}: {problem}")),
            Err(NotDone::Stopping) => problems.push("the controller is stopping".to_owned()),
        }
    }
    problems.truncate(TOLD);
    Ok(problems)
}

/// What one file says.
fn read(
    file: &str,
    bytes: &[u8],
    source: &Source,
    known: &mut BTreeSet<ServiceName>,
) -> Result<ServiceSpec, Vec<String>> {
    let mut spec = match files::parse_bytes(file, bytes) {
        Ok(File::Service(spec)) => spec,
        Ok(_) => return Err(vec![format!("{file} describes no service: only the operator applies such a file")]),
        Err(mistakes) => return Err(mistakes.iter().map(ToString::to_string).collect()),
    };
    if !known.insert(spec.name.clone()) {
        return Err(vec![format!("{file} describes {}, which another file describes already", spec.name)]);
    }
    let own = spec.source.get_or_insert_with(|| source.clone());
    if own.repository != source.repository {
        // Who may push there says nothing of what else the controller may read.
        return Err(vec![format!(
            "{file}: the `source` of {} is {}: a service that registers itself is built from its own repository, {}",
            spec.name, own.repository, source.repository
        )]);
    }
    Ok(spec)
}
