//! A real git repository, made from the example that is embedded in this binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::exit::Failure;

/// The example's files with their modes.
const FILES: [(&str, &str, u32); 10] = [
    ("Cargo.toml", include_str!("../../examples/hello/Cargo.toml"), 0o644),
    ("Cargo.lock", include_str!("../../examples/hello/Cargo.lock"), 0o644),
    ("build.sh", include_str!("../../examples/hello/build.sh"), 0o755),
    ("hello.proto", include_str!("../../examples/hello/hello.proto"), 0o644),
    ("pointsman.toml", include_str!("../../examples/hello/pointsman.toml"), 0o644),
    ("README.md", include_str!("../../examples/hello/README.md"), 0o644),
    ("src/main.rs", include_str!("../../examples/hello/src/main.rs"), 0o644),
    ("src/caller.rs", include_str!("../../examples/hello/src/caller.rs"), 0o644),
    ("src/grpc.rs", include_str!("../../examples/hello/src/grpc.rs"), 0o644),
    ("src/settings.rs", include_str!("../../examples/hello/src/settings.rs"), 0o644),
];

/// What each commit changes in `src/settings.rs`, and what it says about it.
const COMMITS: [(&str, &str, &str); 3] = [
    ("", "", "greet the world"),
    ("\"Hello\"", "\"Good day\"", "greet more politely"),
    ("ERRORS_PER_THOUSAND: u32 = 0", "ERRORS_PER_THOUSAND: u32 = 50", "tidy up"),
];

/// A repository with a commit for each release of the tour, oldest first.
pub(super) struct Repository {
    pub(super) folder: PathBuf,
    pub(super) commits: Vec<String>,
}

impl Repository {
    /// Makes it in `folder`.
    pub(super) fn make(folder: &Path) -> Result<Self, Failure> {
        let mut repository = Self { folder: folder.to_owned(), commits: Vec::new() };
        for (name, text, mode) in FILES {
            let path = folder.join(name);
            let above = path.parent().unwrap_or(folder);
            fs::create_dir_all(above).map_err(|error| Failure::file(above, &error))?;
            let text = text.replace("https://git.example.com/hello.git", &folder.display().to_string());
            let mode = fs::Permissions::from_mode(mode);
            let written = fs::write(&path, text).and_then(|()| fs::set_permissions(&path, mode));
            written.map_err(|error| Failure::file(&path, &error))?;
        }
        repository.git(&["init", "--quiet", "--initial-branch=main"])?;
        for (before, after, subject) in COMMITS {
            let settings = folder.join("src/settings.rs");
            let text = fs::read_to_string(&settings).map_err(|error| Failure::file(&settings, &error))?;
            if !text.contains(before) {
                return Err(Failure::refused(format!("the example no longer contains {before}")));
            }
            fs::write(&settings, text.replacen(before, after, 1)).map_err(|error| Failure::file(&settings, &error))?;
            repository.git(&["add", "--all"])?;
            repository.git(&["commit", "--quiet", "--message", subject])?;
            let commit = repository.git(&["rev-parse", "HEAD"])?.trim().to_owned();
            repository.commits.push(commit);
        }
        Ok(repository)
    }

    /// Git with an author of its own, whatever is configured here.
    fn git(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.folder)
            .args([
                "-c",
                "user.name=demo",
                "-c",
                "user.email=demo@example.com",
                "-c",
                "commit.gpgsign=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(arguments)
            .output()
            .map_err(|error| Failure::refused(format!("git cannot be run: {error}; the demo needs it")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Failure::refused(format!("git {}: {}", arguments.join(" "), said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_commit_of_the_demo_changes_something() {
        let folder = tempfile::tempdir().expect("folder");
        let repository = Repository::make(folder.path()).expect("made");
        assert_eq!(repository.commits.len(), 3);
        let changed =
            repository.git(&["diff", "--stat", &repository.commits[1], &repository.commits[2]]).expect("git diff");
        assert!(changed.contains("settings.rs"), "{changed}");
    }

    #[test]
    fn the_example_needs_nothing_that_building_pointsman_has_not_fetched() {
        fn packages(lock: &str) -> std::collections::BTreeSet<(String, String)> {
            let table: toml::Table = lock.parse().expect("a lock file");
            let text = |package: &toml::Value, key: &str| package[key].as_str().expect("text").to_owned();
            table["package"]
                .as_array()
                .expect("packages")
                .iter()
                .map(|package| (text(package, "name"), text(package, "version")))
                .collect()
        }
        let ours = packages(include_str!("../../Cargo.lock"));
        let missing: Vec<_> = packages(FILES[1].1)
            .into_iter()
            .filter(|(name, _)| name != "hello")
            .filter(|package| !ours.contains(package))
            .collect();
        assert_eq!(missing, []);
    }
}
