//! What the kernel tells of processes, by proc(5): who lives, since when, in which group, with which marks.
//!
//! Must not know: instances or why somebody asks. It reads and never signals; the reads block for some milliseconds.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

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
    Ok(stat(pid)?.and_then(|stat| parse(&stat)))
}

fn stat(pid: Pid) -> io::Result<Option<String>> {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => Ok(Some(stat)),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(problem) if problem.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(problem) => Err(problem),
    }
}

/// Fields 3, 5, 6 and 22 of stat.
fn parse(stat: &str) -> Option<Living> {
    let fields = fields(stat)?;
    let number = |at: usize| fields.get(at)?.parse().ok();
    let living = Living { group: number(2)?, session: number(3)?, start_time: fields.get(19)?.parse().ok()? };
    lives(&fields).then_some(living)
}

/// The fields of stat from the third on: the second is a name in parentheses that may contain anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace().collect())
}

fn lives(fields: &[&str]) -> bool {
    fields.first().is_some_and(|state| *state != "Z" && *state != "X")
}

/// What lives of a group whose leader has ended. Signals do not tell: a zombie that nobody reaps still takes them.
///
/// Nobody, when the leader's pid has been given to another process since: then the group is that one's. A group's number
/// is not given again while somebody is in it, and the session tells it from one that a stranger left in turn.
pub(super) fn rest_of_group(leader: Pid, start_time: u64, session: i32) -> Vec<(Pid, Living)> {
    if living(leader).is_ok_and(|living| living.is_some_and(|living| living.start_time != start_time)) {
        return Vec::new();
    }
    let group = leader.as_raw_nonzero().get();
    let all = pids().filter_map(|pid| Some((pid, living(pid).ok()??)));
    all.filter(|(_, living)| (living.group, living.session) == (group, session)).collect()
}

/// What carries an instance's marks.
#[derive(Debug, Default)]
pub(super) struct Marked {
    /// Every living process with the marks, in whatever group.
    pub(super) found: Vec<(Pid, Living)>,
    /// Whether some process has not told in time whether it carries them.
    pub(super) unsettled: bool,
}

/// Whether a process carries marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    Yes,
    /// It is in the middle of execve(2): its environment is empty until the kernel has placed it.
    Unsettled,
}

/// How often a process in the middle of execve(2) is looked at again, and how long after: mostly the first time does.
const LOOKS: u32 = 200;
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What carries the marks of an instance.
pub(super) fn marked(id: &str, data: &Path) -> Marked {
    let mark = |name: &str, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes()].concat();
    let marks = [mark(MARK_INSTANCE, id.as_ref()), mark(MARK_AGENT, data.as_os_str())];
    let (mut marked, mut looks) = (Marked::default(), 0);
    // An agent that is itself run as a release must not take itself for one.
    let mut open: Vec<Pid> = pids().filter(|pid| *pid != getpid()).collect();
    loop {
        open.retain(|pid| {
            let look = look(*pid, &marks);
            if look == Look::Yes {
                marked.found.extend(living(*pid).ok().flatten().map(|living| (*pid, living)));
            }
            look == Look::Unsettled
        });
        looks += 1;
        if open.is_empty() || looks > LOOKS {
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    marked.unsettled = !open.is_empty();
    marked
}

fn look(pid: Pid, marks: &[Vec<u8>]) -> Look {
    let environment = || fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero()));
    let Ok(mut seen) = environment() else { return Look::No };
    if seen.is_empty() {
        if matches!(stat(pid), Ok(Some(stat)) if is_in_exec(&stat)) {
            return Look::Unsettled;
        }
        // It may have got its environment between the two looks.
        seen = environment().unwrap_or_default();
    }
    let carries = |mark: &Vec<u8>| seen.split(|byte| *byte == 0).any(|variable| variable == mark);
    if marks.iter().all(carries) { Look::Yes } else { Look::No }
}

/// Whether a process without an environment has none yet, by fields 3, 23 and 51 of stat: it lives, has memory of its
/// own (a thread of the kernel has none) and no place for an environment so far (a process started without one has).
fn is_in_exec(stat: &str) -> bool {
    let Some(fields) = fields(stat) else { return false };
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
    lives(&fields) && number(20).is_some_and(|memory| memory > 0) && number(48) == Some(0)
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
    fn agent_knows_a_process_whose_environment_is_still_to_come() {
        // Fields 3 to 52; the 23rd is the memory's size, the 51st where the environment ends.
        let stat = |state: &str, memory: &str, end: &str| {
            let mut fields = vec!["0"; 50];
            (fields[0], fields[20], fields[48]) = (state, memory, end);
            format!("7 (a) b) {}", fields.join(" "))
        };
        for (state, memory, end, expected) in [
            ("R", "4096", "0", true),
            ("D", "4096", "0", true),
            ("S", "4096", "140722", false), // Started without any.
            ("S", "0", "0", false),         // A thread of the kernel.
            ("Z", "4096", "0", false),
            ("X", "4096", "0", false),
        ] {
            assert_eq!(is_in_exec(&stat(state, memory, end)), expected, "{state} {memory} {end}");
        }
        assert!(!is_in_exec("7 (sh) R 1") && !is_in_exec(""));
    }

    #[test]
    fn agent_finds_a_marked_process_and_only_that() {
        // At once: the parent goes on a moment before the kernel has placed the child's environment (execve).
        for round in 0..50 {
            let mut child = std::process::Command::new("sleep");
            let data = std::path::PathBuf::from(format!("/no/such/{}", std::process::id()));
            child.arg("1000").env(MARK_INSTANCE, "a/b").env(MARK_AGENT, &data).env("PORT", "7");
            let mut child = child.spawn().expect("started");
            let pid = Pid::from_child(&child);
            let found: Vec<Pid> = marked("a/b", &data).found.into_iter().map(|(pid, _)| pid).collect();
            let others = (marked("a", &data).found.len(), marked("a/b", Path::new("/no/such")).found.len());
            let port = variable(pid, "PORT");
            child.kill().expect("ended");
            let zombie = living(pid);
            child.wait().expect("reaped");
            assert_eq!((found, others), (vec![pid], (0, 0)), "round {round}");
            assert_eq!(port.as_deref(), Some(OsStr::new("7")));
            assert!(living(pid).expect("asked").is_none(), "{zombie:?}");
        }
    }
}
