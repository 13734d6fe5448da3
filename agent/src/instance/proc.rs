//! What the kernel tells of processes, by proc(5): who lives, since when, in which group, with which marks.
//!
//! Must not know: instances or why somebody asks. It reads and never signals; the reads block for some milliseconds.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::process::{Pid, getpid};

/// Marks in a process's environment by which an agent that lost its record finds it.
pub(super) const MARK_INSTANCE: &str = "POINTSMAN_INSTANCE";
pub(super) const MARK_AGENT: &str = "POINTSMAN_AGENT_DATA";

/// A process that lives: neither gone nor a zombie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Living {
    /// Its process group.
    pub(super) group: i32,
    /// Its session.
    pub(super) session: i32,
    /// When it started, in clock ticks since boot: tells it from a later one with the same pid.
    pub(super) start_time: u64,
}

/// A process; `None` when it has ended.
///
/// # Errors
/// The kernel could not be asked (no more open files, say), which says nothing about the process.
pub(super) fn living(pid: Pid) -> io::Result<Option<Living>> {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => Ok(parse(&stat)),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(problem) if problem.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Fields 3, 5, 6 and 22 of stat.
fn parse(stat: &str) -> Option<Living> {
    // The second field is a name in parentheses that may contain anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let state = *fields.first()?;
    let number = |at: usize| fields.get(at)?.parse().ok();
    let living = Living { group: number(2)?, session: number(3)?, start_time: fields.get(19)?.parse().ok()? };
    (state != "Z" && state != "X").then_some(living)
}

/// Whether anybody of a group lives. Signals do not tell: a zombie that nobody reaps still takes them.
pub(super) fn group_lives(group: Pid) -> bool {
    let group = group.as_raw_nonzero().get();
    pids().any(|pid| living(pid).is_ok_and(|living| living.is_some_and(|living| living.group == group)))
}

/// Every living process with the marks of an instance, in whatever group.
pub(super) fn marked(id: &str, data: &Path) -> Vec<(Pid, Living)> {
    let mark = |name: &str, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let marks = [mark(MARK_INSTANCE, id.as_ref()), mark(MARK_AGENT, data.as_os_str())];
    let carries = |pid: &Pid| {
        let environment = environment(*pid);
        marks.iter().all(|mark| environment.split(|byte| *byte == 0).any(|variable| variable == mark))
    };
    // An agent that is itself run as a release must not take itself for one.
    let others = pids().filter(|pid| *pid != getpid() && carries(pid));
    others.filter_map(|pid| Some((pid, living(pid).ok()??))).collect()
}

/// A variable of the environment that a process was started with.
pub(super) fn variable(pid: Pid, name: &str) -> Option<OsString> {
    let prefix = format!("{name}=");
    let environment = environment(pid);
    let mut variables = environment.split(|byte| *byte == 0);
    variables.find_map(|variable| Some(OsString::from_vec(variable.strip_prefix(prefix.as_bytes())?.to_vec())))
}

/// Changes with every boot: pids and start times begin anew then.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Empty for processes that are not ours to read.
fn environment(pid: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default()
}

fn pids() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_reads_stat_whatever_a_process_is_called() {
        let stat =
            |name: &str, state: &str| format!("7 ({name}) {state} 1 42 7 0 -1 4 1 0 0 0 5 6 0 0 20 0 1 0 99 1 2 3");
        let living = Some(Living { group: 42, session: 7, start_time: 99 });
        for (text, expected) in [
            (stat("sh", "S"), living),
            (stat("a ) Z 1 (", "R"), living),
            (stat("sh", "Z"), None),
            (stat("sh", "X"), None),
            ("7 (sh) S 1".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn agent_finds_a_marked_process_and_only_that() {
        let mut child = std::process::Command::new("sleep");
        let data = std::path::PathBuf::from(format!("/no/such/{}", std::process::id()));
        child.arg("1000").env(MARK_INSTANCE, "a/b").env(MARK_AGENT, &data).env("PORT", "7");
        let mut child = child.spawn().expect("started");
        let pid = Pid::from_child(&child);
        // The parent goes on a moment before the kernel has placed the child's environment (execve).
        let placed = (0..1_000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            variable(pid, "PORT").is_some()
        });
        let found: Vec<Pid> = marked("a/b", &data).into_iter().map(|(pid, _)| pid).collect();
        let others = (marked("a", &data).len(), marked("a/b", Path::new("/no/such")).len());
        let port = variable(pid, "PORT");
        child.kill().expect("ended");
        let zombie = living(pid);
        child.wait().expect("reaped");
        assert!(placed, "its environment can be read");
        assert_eq!((found, others), (vec![pid], (0, 0)));
        assert_eq!(port.as_deref(), Some(OsStr::new("7")));
        assert!(living(pid).expect("asked").is_none(), "{zombie:?}");
    }
}
