//! Releases and where they come from, as a person says it.

use super::{Event, short};

impl Event {
    pub(super) fn sentence_of_release(&self) -> String {
        match self {
            Self::ReleaseRequested { release, wanted } => {
                format!("{release} was asked for from {} ({})", short(&wanted.commit), wanted.subject)
            }
            Self::ReleaseAdded { release, version, .. } => format!("{release} {version} was added").replace("  ", " "),
            Self::BuildStarted { release } => format!("the build of {release} began"),
            Self::ReleaseBuilt { release, artifacts, for_environments, .. } => {
                let own = for_environments.iter();
                let own = own.flat_map(|(at, all)| all.iter().map(move |one| (format!(" for {at}"), one)));
                let all = artifacts.iter().map(|one| (String::new(), one)).chain(own);
                let digests = all.map(|(at, (name, artifact))| format!("{name}{at} {}", artifact.digest.short()));
                format!("{release} was built: {}", digests.collect::<Vec<_>>().join(", "))
            }
            Self::ReleaseFailed { release, problem, .. } => format!("{release} failed: {problem}"),
            Self::BuildCancelAsked { release } => format!("the build of {release} is to end"),
            Self::ReleaseCancelled { release } => format!("{release} was cancelled"),
            Self::ReleaseOvertaken { release, by } => format!("{release} was overtaken by {by}"),
            Self::TagsSeen { service, tags } => format!("{} of {service} were seen first", counted(tags.len(), "tag")),
            Self::ReleaseTrimmed { release, log, artifacts } => {
                let what = [log.then_some("log"), artifacts.then_some("artifacts")];
                let what = what.into_iter().flatten().collect::<Vec<_>>().join(" and ");
                format!("the {what} of {release} were removed, which nothing needs any more")
            }
            Self::ReleaseForgotten { release } => format!("{release} is no longer listed"),
            Self::ReleasesApplied { spec } => {
                let registry = spec.registry.as_ref().map_or("this disk".to_owned(), |one| one.address.to_string());
                let repositories = counted(spec.repositories.len(), "repository");
                format!(
                    "what is said of releases was applied: {} builders, artifacts to {registry}, {repositories}",
                    spec.builders
                )
            }
            Self::ServiceRegistered { repository, commit, spec } => {
                format!("service {} is as commit {} of repository {repository} says", spec.name, short(commit))
            }
            // INVARIANT: `sentence` words all others.
            other => other.kind().replace('_', " "),
        }
    }
}

fn counted(count: usize, what: &str) -> String {
    match (count, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use api::Digest;

    use crate::core::evolve_test::artifact;
    use crate::core::state::{ArtifactKind, Trigger};

    use super::*;

    /// What was written before releases knew what asked for them, where they are and what was checked.
    #[test]
    fn events_of_before_are_read() {
        let digest = Digest::of(b"x");
        let read = |text: &str| serde_json::from_str::<Event>(&text.replace("DIGEST", &digest.to_string()));
        let requested =
            r#"{"kind":"release_requested","release":"hello@r7","version":"v1.2.0","commit":"abc","subject":"one"}"#;
        let Ok(Event::ReleaseRequested { release, wanted }) = read(requested) else { panic!("requested") };
        assert_eq!((release.to_string().as_str(), wanted.version.as_str()), ("hello@r7", "v1.2.0"));
        assert_eq!(
            (wanted.commit.as_str(), wanted.subject.as_str(), &wanted.trigger),
            ("abc", "one", &Trigger::ByHand)
        );
        let added =
            r#"{"kind":"release_added","release":"hello@r8","version":"","commit":"","components":{},"addresses":[]}"#;
        assert!(matches!(read(added), Ok(Event::ReleaseAdded { artifacts, .. }) if artifacts.is_empty()));
        assert!(matches!(read(r#"{"kind":"build_started","release":"hello@r7"}"#), Ok(Event::BuildStarted { .. })));
        let built = r#"{"kind":"release_built","release":"hello@r7","components":{"web":{"folder":"dist","run":["./hello"],
            "protocol":"h1","health":{"http":null,"every":"2s","timeout":"1s","fall":3,"rise":1},"environment":{},"stop":"30s"}},
            "artifacts":{"web":{"digest":"DIGEST","bytes":12}}}"#;
        let Ok(Event::ReleaseBuilt { components, artifacts, build: None, .. }) = read(built) else {
            panic!("{:?}", read(built))
        };
        let web = "web".parse().expect("name");
        assert!(components[&web].image.is_none());
        assert_eq!((artifacts[&web].digest, artifacts[&web].kind), (digest, ArtifactKind::Folder));
        let failed = r#"{"kind":"release_failed","release":"hello@r7","problem":"exit status 1"}"#;
        assert!(matches!(read(failed), Ok(Event::ReleaseFailed { step: None, exit: None, .. })));
        let applied = r#"{"kind":"service_applied","spec":{"name":"hello","source":{"repository":"/srv/hello.git","branch":"main"},
            "build":{"command":["./build.sh"],"timeout":"15m","environment":{},"pass":[]},"components":{},"stages":{}}}"#;
        let Ok(Event::ServiceApplied { spec }) = read(applied) else { panic!("{:?}", read(applied)) };
        let build = spec.build.expect("there");
        assert!(build.contain && !build.registry && build.size_bytes == crate::core::spec::WORKSPACE_BYTES);
        assert!(!spec.trigger.is_any());
    }

    #[test]
    fn what_was_asked_for_is_written_as_it_is_read() {
        let mut wanted = crate::core::evolve_test::wanted("abc");
        wanted.trigger = Trigger::Commit { branch: "main".into() };
        wanted.retry_of = "r3".parse().ok();
        let event = Event::ReleaseRequested { release: "hello@r7".parse().expect("name"), wanted };
        let text = serde_json::to_string(&event).expect("written");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("read"), event);
        let one = artifact(b"x");
        let text = serde_json::to_string(&one).expect("written");
        assert_eq!(serde_json::from_str::<crate::core::state::Artifact>(&text).expect("read"), one);
    }
}
