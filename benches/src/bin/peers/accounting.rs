//! What a contender takes of the processor and of memory, by the kernel's own books: `/proc`, over its whole tree of
//! processes and all of their threads.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use pointsman_benches::Problem;

/// `sysconf(_SC_CLK_TCK)`, which Linux has fixed for programs.
const TICK: Duration = Duration::from_millis(10);
/// The two books may differ by this, beyond a share of the whole: ticks are cut off per process.
const TICKS_APART: Duration = Duration::from_millis(50);

/// Time on a processor until now, of every thread.
#[derive(Debug)]
pub(crate) struct Cpu {
    /// By process and thread, from `schedstat`, in nanoseconds: how long it ran, and how long it waited to.
    threads: HashMap<(u32, u32), [u64; 2]>,
    /// The same by process in clock ticks, with threads that have ended: user and system.
    processes: HashMap<u32, [u64; 2]>,
}

/// What a contender took between two looks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// User and system time of all threads.
    pub(crate) ran: Duration,
    /// The user's part of it, as the kernel divides it.
    pub(crate) user: Duration,
    /// Threads were ready while others had the core, be it each other.
    pub(crate) waited: Duration,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What processes share is counted in each.
    pub(crate) rss: f64,
    /// What processes share is counted once, in parts.
    pub(crate) pss: f64,
}

impl Cpu {
    /// Of a process and its descendants.
    pub(crate) fn of(root: u32) -> Result<Self, Problem> {
        let (mut threads, mut processes) = (HashMap::new(), HashMap::new());
        for pid in tree(root)? {
            processes.insert(pid, stat(pid)?.ticks);
            for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
                let thread: u32 = thread?.file_name().to_string_lossy().parse()?;
                // A thread may end in between.
                let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else { continue };
                let times: Vec<u64> = text.split(' ').map_while(|time| time.trim().parse().ok()).collect();
                let [ran, waited, ..] = times[..] else { return Err("schedstat says no times".into()) };
                threads.insert((pid, thread), [ran, waited]);
            }
        }
        Ok(Self { threads, processes })
    }

    /// Time since an earlier look.
    ///
    /// # Errors
    /// A process ended, or threads took away with them what they had used: the figure would be too small.
    pub(crate) fn since(&self, before: &Self) -> Result<Spent, Problem> {
        if let Some(gone) = before.processes.keys().find(|pid| !self.processes.contains_key(pid)) {
            return Err(format!("process {gone} of the contender has ended").into());
        }
        let sum = |which: usize| {
            let earlier = |thread| before.threads.get(thread).map_or(0, |times: &[u64; 2]| times[which]);
            Duration::from_nanos(self.threads.iter().map(|(thread, times)| times[which] - earlier(thread)).sum())
        };
        let (ran, waited) = (sum(0), sum(1));
        let ticks = |which: usize| {
            let earlier = |pid| before.processes.get(pid).map_or(0, |ticks| ticks[which]);
            self.processes.iter().map(|(pid, ticks)| ticks[which] - earlier(pid)).sum::<u64>()
        };
        let (user, system) = (ticks(0), ticks(1));
        let ticked = TICK * u32::try_from(user + system)?;
        if ran.abs_diff(ticked) > TICKS_APART + ran / 50 {
            return Err(format!("the kernel's books differ: threads ran {ran:?}, processes {ticked:?}").into());
        }
        Ok(Spent { ran, user: ran.mul_f64(user as f64 / (user + system).max(1) as f64), waited })
    }
}

impl Memory {
    /// Of a process and its descendants.
    pub(crate) fn of(root: u32) -> Result<Self, Problem> {
        let (mut rss, mut pss) = (0, 0);
        for pid in tree(root)? {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            rss += kib(&text, "Rss:")?;
            pss += kib(&text, "Pss:")?;
        }
        let bytes = |kib: u32| f64::from(kib) * 1024.0;
        Ok(Self { rss: bytes(rss), pss: bytes(pss) })
    }
}

fn kib(text: &str, key: &str) -> Result<u32, Problem> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
    number.ok_or_else(|| format!("smaps_rollup has no {key}").into())
}

struct Stat {
    parent: u32,
    /// User and system time, with threads that have ended.
    ticks: [u64; 2],
}

fn stat(pid: u32) -> Result<Stat, Problem> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?).ok_or_else(|| "cannot read stat".into())
}

/// Fields are counted from behind the name, which may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    Some(Stat { parent: number(1)?.try_into().ok()?, ticks: [number(11)?, number(12)?] })
}

/// A process and its descendants.
fn tree(root: u32) -> Result<Vec<u32>, Problem> {
    let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // Others come and go all the time.
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid: u32| Some((pid, stat(pid).ok()?.parent))).collect();
    if !parents.iter().any(|(pid, _)| *pid == root) {
        return Err("the contender has ended".into());
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, above)| *above == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_brackets() {
        let text = "7 (a) b (c)) S 3 7 7 0 -1 4194560 1 0 0 0 12 5 0 0 20 0 1 0 9 9 9";
        let stat = parse_stat(text).expect("fields");
        assert_eq!((stat.parent, stat.ticks), (3, [12, 5]));
    }

    #[test]
    fn this_process_has_run() {
        let before = Cpu::of(std::process::id()).expect("books");
        let begun = std::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(50) {}
        let after = Cpu::of(std::process::id()).expect("books");
        assert!(after.since(&before).expect("they agree").ran > Duration::ZERO);
    }
}
