//! What holds together all that a program starts: a PID namespace, where the machine gives one. It ends with the program,
//! and with it everything within, whatever that did to its session, its process group or its environment.
//!
//! Must not know: what runs, or why.
//!
//! Main type: [`Containment`]. Source: pid_namespaces(7), unshare(1).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::io::Errno;
use tokio::sync::watch;

use super::DEFAULT_PATH;
use super::process::{Ended, Kept, Output, Program};

/// A machine that takes longer to start a program gives no namespaces.
const TRY: Duration = Duration::from_secs(20);

/// Keeps the program from being the first process of its namespace, which gets no SIGTERM that it does not wait for. What the
/// shell itself would say of the program's end goes nowhere: exit statuses say it.
const SCRIPT: &str = "exec 3>&2 2>/dev/null; (exec \"$@\" 2>&3 3>&-); exit $?";

/// How the processes of a program are kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Containment {
    /// In a PID namespace, with a `/proc` of its own.
    Namespace {
        /// util-linux's program.
        unshare: Arc<Path>,
        /// Within a user namespace, too, because we are not root.
        user: bool,
    },
    /// In a process group that they may leave: why there is nothing better.
    GroupOnly(Arc<str>),
}

// === impl Containment ===

impl Containment {
    /// What this machine gives us; warns when that is not enough. `path` is where programs are looked for.
    pub(crate) async fn find_out(path: &str) -> Self {
        let found = match find("unshare", Path::new("/"), path) {
            Ok(unshare) => Self::best(unshare.into(), rustix::process::geteuid().is_root()).await,
            Err(_) => Self::GroupOnly("there is no program \"unshare\" (util-linux)".into()),
        };
        if let Self::GroupOnly(why) = &found {
            tracing::warn!(%why, "there are no namespaces for builds: a process that leaves its group may outlive its build");
        }
        found
    }

    async fn best(unshare: Arc<Path>, is_root: bool) -> Self {
        let mut why = String::new();
        for user in if is_root { &[false][..] } else { &[false, true] } {
            let tried = Self::Namespace { unshare: unshare.clone(), user: *user };
            match tried.try_out().await {
                Ok(()) => return tried,
                Err(refused) => why = refused,
            }
        }
        Self::GroupOnly(why.into())
    }

    /// # Errors
    /// What the system says against it.
    async fn try_out(&self) -> Result<(), String> {
        let program = Program {
            words: vec!["true".to_owned()],
            folder: "/".into(),
            environment: [("PATH".to_owned(), DEFAULT_PATH.to_owned())].into(),
            timeout: TRY,
            grace: Duration::ZERO,
            record: None,
        };
        let (_canceller, mut cancel) = watch::channel(false);
        let mut kept = Kept { most: 1024, ..Kept::default() };
        match program.within(self).run(&mut cancel, Output::Keep(&mut kept)).await {
            Ok(Ended::Exit(0)) => Ok(()),
            Ok(ended) => {
                let said = String::from_utf8_lossy(&kept.errors);
                let line = said.lines().next().filter(|line| !line.trim().is_empty());
                Err(line.map_or_else(|| ended.to_string(), |line| line.escape_debug().to_string()))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// The words that run `program` (a path) with these arguments.
    pub(crate) fn wrap(&self, program: PathBuf, arguments: &[String]) -> Vec<OsString> {
        let arguments = arguments.iter().map(OsString::from);
        let Self::Namespace { unshare, user } = self else {
            return [program.into()].into_iter().chain(arguments).collect();
        };
        let user = user.then_some(["--user", "--map-current-user"]).into_iter().flatten();
        let namespace = ["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", "/bin/sh", "-c", SCRIPT, "sh"];
        let before = [unshare.as_os_str().to_owned()].into_iter().chain(user.chain(namespace).map(OsString::from));
        before.chain([program.into()]).chain(arguments).collect()
    }

    pub(crate) fn is_namespace(&self) -> bool {
        matches!(self, Self::Namespace { .. })
    }
}

/// Where a program is: one with a slash is relative to `folder`, others are looked for in `path` as execvp(3) does.
///
/// # Errors
/// It is not there, or cannot be run.
pub(crate) fn find(program: &str, folder: &Path, path: &str) -> io::Result<PathBuf> {
    if program.contains('/') {
        return runnable(folder.join(program));
    }
    let mut missing = Errno::NOENT.into();
    for place in path.split(':').filter(|_| !program.is_empty()) {
        match runnable(folder.join(place).join(program)) {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => missing = error,
            Err(_) => {}
        }
    }
    Err(missing)
}

fn runnable(path: PathBuf) -> io::Result<PathBuf> {
    if path.metadata()?.is_dir() {
        return Err(Errno::ACCESS.into());
    }
    access(&path, Access::EXEC_OK)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ours() -> Containment {
        Containment::find_out(&std::env::var("PATH").expect("PATH")).await
    }

    /// Tests of containment would show nothing where there is none.
    #[tokio::test]
    async fn root_has_namespaces() {
        if rustix::process::geteuid().is_root() {
            assert!(matches!(ours().await, Containment::Namespace { user: false, .. }), "{:?}", ours().await);
        }
    }

    #[tokio::test]
    async fn a_machine_without_namespaces_says_why() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().to_str().expect("text");
        let Containment::GroupOnly(why) = Containment::find_out(path).await else { panic!("there is no such program") };
        assert_eq!(&*why, "there is no program \"unshare\" (util-linux)");
        let unshare = folder.path().join("unshare");
        std::fs::write(&unshare, "#!/bin/sh\necho 'unshare: failed: Operation not permitted' >&2\nexit 1\n")
            .expect("written");
        assert_eq!(
            find("unshare", Path::new("/"), path).expect_err("not to be run").kind(),
            io::ErrorKind::PermissionDenied
        );
        std::fs::set_permissions(&unshare, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        let Containment::GroupOnly(why) = Containment::find_out(path).await else { panic!("it refuses") };
        assert_eq!(&*why, "unshare: failed: Operation not permitted");
    }

    #[test]
    fn programs_are_found_where_the_system_would_find_them() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            std::fs::create_dir(at(name)).expect("folder");
        }
        std::fs::create_dir(at("a/tool")).expect("a folder is no program");
        std::fs::write(at("b/tool"), "").expect("written");
        std::fs::set_permissions(at("b/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
        let path = format!("{}:/nowhere:{}", at("a").display(), at("b").display());
        assert_eq!(find("tool", Path::new("/"), &path).expect("found"), at("b/tool"));
        assert_eq!(find("./b/tool", folder.path(), "").expect("found"), folder.path().join("./b/tool"));
        for (name, kind) in [
            ("none", io::ErrorKind::NotFound),
            ("", io::ErrorKind::NotFound),
            ("./none", io::ErrorKind::NotFound),
            ("./a/tool", io::ErrorKind::PermissionDenied),
        ] {
            assert_eq!(find(name, folder.path(), &path).expect_err(name).kind(), kind, "{name}");
        }
    }
}
