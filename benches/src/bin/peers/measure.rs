//! One turn: a work done by one contender that was started for it.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pointsman_benches::Problem;
use pointsman_benches::client::Connection;

use crate::accounting::{Cpu, Memory, Spent};
use crate::contender::Contender;
use crate::credentials::AUTHORIZATION;
use crate::load::{Found, H2load, count_for, wrk};
use crate::origin::Stand;
use crate::work::{HELLO, Task, Work};
use crate::{handshakes, interrupt};

/// Before anything counts: pools fill, code and data come into the caches.
const WARM_UP: Duration = Duration::from_secs(1);
/// Between the last of the idle connections and the look at the memory.
const SETTLE: Duration = Duration::from_secs(2);
/// Idle connections that take longer to open would be closed as too old, by every contender, while others are opened.
const OPENED: Duration = Duration::from_secs(50);
/// The memory of W7 and of all others, in bytes.
const MB: f64 = 1e6;

/// Figures of a turn in the order of the table: name with its unit, value.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// Does the work.
///
/// # Errors
/// Whatever went wrong, were it one request: there are no figures then.
pub(crate) fn measure(
    work: &Work,
    contender: &Contender,
    stand: &Stand,
    folder: &Path,
    time: Duration,
) -> Result<Figures, Problem> {
    let clear = format!("http://{}", contender.http);
    let fields = &contender.fields[..];
    let (clear2, tls) = (format!("http://{}", contender.http2), format!("https://{}", contender.https));
    match work.task {
        Task::Http1 { connections, tls: over_tls, path, body_bytes } => {
            let url = if over_tls { tls } else { clear } + path;
            let load = |time| wrk(folder, &url, (fields, None), connections, body_bytes, time);
            load(WARM_UP)?;
            let (found, books) = with_books(contender.pid, time, || load(time))?;
            Ok(books.figures(found))
        }
        Task::Tokens { connections } => {
            let (url, tokens) = (clear + "/", stand.tokens()?);
            // The script adds the token itself.
            let fields: Vec<_> = fields.iter().filter(|(name, _)| *name != AUTHORIZATION).cloned().collect();
            let load = |time| wrk(folder, &url, (&fields, Some(&tokens)), connections, 100, time);
            load(WARM_UP)?;
            let (found, books) = with_books(contender.pid, time, || load(time))?;
            Ok(books.figures(found))
        }
        Task::Handshakes { at_once } => {
            let load = |time| handshakes::run(contender.https, &stand.tls, fields, at_once, time);
            load(WARM_UP)?;
            let (found, books) = with_books(contender.pid, time, || load(time))?;
            Ok(books.figures(found))
        }
        Task::Http2 { connections, streams, tls: over_tls } => {
            let url = if over_tls { tls } else { clear2 } + "/";
            by_h2load(contender.pid, &H2load::http(folder, &url, fields, connections, streams), time)
        }
        Task::Grpc { connections, streams } => {
            let url = clear2 + "/bench.Echo/Unary";
            by_h2load(contender.pid, &H2load::grpc(folder, &url, fields, connections, streams)?, time)
        }
        Task::Idle { .. } => Err("idle connections have a turn of their own".into()),
    }
}

/// h2load has no percentiles of its own: they come from a shorter load after the one that counts, written line by line.
fn by_h2load(pid: u32, load: &H2load, time: Duration) -> Result<Figures, Problem> {
    let requests = count_for(load.warm_up(WARM_UP)?, time);
    let (per_sec, books) = with_books(pid, time, || load.requests(requests, time))?;
    let (p50_us, p99_us) = load.latencies((requests / 4).max(1), time)?;
    Ok(books.figures(Found { requests, per_sec, p50_us, p99_us }))
}

/// A contender's books over a load.
struct Books {
    spent: Spent,
    wall: Duration,
    /// In the middle of it.
    memory: Memory,
}

impl Books {
    fn figures(&self, found: Found) -> Figures {
        let Self { spent, wall, memory } = self;
        let percent = |time: Duration| time.as_secs_f64() / wall.as_secs_f64() * 100.0;
        vec![
            ("cpu_us", spent.ran.as_secs_f64() * 1e6 / found.requests as f64),
            ("user_us", spent.user.as_secs_f64() * 1e6 / found.requests as f64),
            ("busy_percent", percent(spent.ran)),
            ("waited_percent", percent(spent.waited)),
            ("rps", found.per_sec),
            ("p50_us", found.p50_us),
            ("p99_us", found.p99_us),
            ("rss_mb", memory.rss / MB),
            ("pss_mb", memory.pss / MB),
        ]
    }
}

/// Runs a load between two looks at the contender's books.
fn with_books<T>(pid: u32, time: Duration, load: impl FnOnce() -> Result<T, Problem>) -> Result<(T, Books), Problem> {
    let (before, begun) = (Cpu::of(pid)?, Instant::now());
    let (found, memory) = thread::scope(|scope| {
        let memory = scope.spawn(|| {
            thread::sleep(time / 2);
            Memory::of(pid)
        });
        (load(), memory.join().map_err(|_| "nobody looked at the memory"))
    });
    let (found, wall) = (found?, begun.elapsed());
    let spent = Cpu::of(pid)?.since(&before)?;
    Ok((found, Books { spent, wall, memory: memory?? }))
}

/// W7, of a contender started for each of both kinds: memory that `count` idle connections take, and with them in all.
pub(crate) fn idle(
    count: usize,
    stand: &Stand,
    start: impl Fn(&str) -> Result<Contender, Problem>,
) -> Result<Figures, Problem> {
    let mut figures = Vec::new();
    for (name, names) in
        [("clear", ["clear_mb", "clear_rss_mb", "clear_pss_mb"]), ("tls", ["tls_mb", "tls_rss_mb", "tls_pss_mb"])]
    {
        let contender = start(name)?;
        let open = || match name {
            "clear" => Ok(Connection::open(contender.http)?.with(&contender.fields)),
            _ => Ok(Connection::open_tls(contender.https, &stand.tls, HELLO)?.with(&contender.fields)),
        };
        let [before, after] = hold(count, contender.pid, open)
            .map_err(|problem| format!("{name}: {problem}{}", contender.last_words()))?;
        figures.extend(names.into_iter().zip([(after.pss - before.pss) / MB, after.rss / MB, after.pss / MB]));
    }
    Ok(figures)
}

/// Opens connections one after the other and sends a request on each; memory before and with all of them.
fn hold(count: usize, pid: u32, open: impl Fn() -> std::io::Result<Connection>) -> Result<[Memory; 2], Problem> {
    let (before, begun) = (Memory::of(pid)?, Instant::now());
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        interrupt::check()?;
        let opened = open().map_err(Problem::from).and_then(|mut connection| ask(&mut connection).map(|()| connection));
        held.push(opened.map_err(|problem| format!("connection {} of {count}: {problem}", held.len() + 1))?);
        if begun.elapsed() > OPENED {
            return Err(format!("only {} connections in {OPENED:?}: the first would be closed", held.len()).into());
        }
    }
    thread::sleep(SETTLE);
    let after = Memory::of(pid)?;
    // All of them were really there: each answers once more.
    for (number, connection) in held.iter_mut().enumerate() {
        let idle = || format!("connection {} of {count}, {:?} after the first was opened", number + 1, begun.elapsed());
        ask(connection).map_err(|problem| format!("{}: {problem}", idle()))?;
    }
    Ok([before, after])
}

fn ask(connection: &mut Connection) -> Result<(), Problem> {
    match connection.get(HELLO)? {
        200 => Ok(()),
        status => Err(format!("a request is answered with {status}").into()),
    }
}
