//! Loads by Debian's generators: wrk for HTTP/1.1, h2load for HTTP/2 and gRPC. Closed loop, on the load's core.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use pointsman_benches::Problem;
use pointsman_benches::client::Fields;
use pointsman_benches::distribution::Samples;
use pointsman_benches::process::{Running, last_words, pinned};
use serde::Deserialize;

use crate::work::{GREETER, HELLO};
use crate::{LOAD_CORE, interrupt};

/// How much longer than planned a generator may take.
const LATE: Duration = Duration::from_secs(30);
/// Fewest requests of an interval: below it the opening of connections would count.
const FEWEST: u64 = 10_000;

/// What a generator found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) requests: u64,
    pub(crate) per_sec: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// What the script says; every error counts.
#[derive(Deserialize)]
struct Wrk {
    requests: u64,
    us: u64,
    bytes: u64,
    errors: u64,
    p50_us: f64,
    p99_us: f64,
}

/// HTTP/1.1 for a time. `tokens`: a file of them, a line each, of which every request takes the next.
pub(crate) fn wrk(
    folder: &Path,
    url: &str,
    (fields, tokens): (&Fields, Option<&Path>),
    connections: usize,
    body_bytes: u64,
    time: Duration,
) -> Result<Found, Problem> {
    let mut command = pinned("wrk", LOAD_CORE);
    command.args(["-t1", "--timeout", "10s", "-H", &format!("Host: {HELLO}")]);
    command.args(["-c", &connections.to_string(), "-d", &format!("{}s", time.as_secs())]);
    command.arg("-s").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/latency.lua")).arg(url);
    for (name, value) in fields {
        command.args(["-H", &format!("{name}: {value}")]);
    }
    if let Some(tokens) = tokens {
        command.arg("--").arg(tokens);
    }
    let said = run(command, &folder.join("wrk.log"), time)?;
    let line = said.lines().find(|line| line.starts_with('{')).ok_or_else(|| format!("wrk says nothing: {said}"))?;
    let Wrk { requests, us, bytes, errors, p50_us, p99_us } = serde_json::from_str(line)?;
    if errors > 0 || requests == 0 || bytes < requests * body_bytes {
        return Err(format!("wrk: {errors} errors, {requests} requests, {bytes} bytes\n{said}").into());
    }
    Ok(Found { requests, per_sec: requests as f64 / us as f64 * 1e6, p50_us, p99_us })
}

/// What h2load is asked for.
#[derive(Debug, Clone)]
pub(crate) struct H2load {
    folder: PathBuf,
    arguments: Vec<String>,
    /// Bytes of an answer's body.
    body_bytes: u64,
    tls: bool,
}

impl H2load {
    /// `GET /` from the HTTP/1.1 origin.
    pub(crate) fn http(folder: &Path, url: &str, fields: &Fields, connections: usize, streams: usize) -> Self {
        Self::new(folder, url, fields, [connections, streams], (HELLO, 100))
    }

    /// A call of the gRPC origin.
    pub(crate) fn grpc(
        folder: &Path,
        url: &str,
        fields: &Fields,
        connections: usize,
        streams: usize,
    ) -> Result<Self, Problem> {
        let message = folder.join("message");
        fs::write(&message, [0; 5])?;
        let mut load = Self::new(folder, url, fields, [connections, streams], (GREETER, 5));
        let fields = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"].map(str::to_owned);
        load.arguments.extend(fields);
        load.arguments.push(message.display().to_string());
        Ok(load)
    }

    fn new(
        folder: &Path,
        url: &str,
        fields: &Fields,
        [connections, streams]: [usize; 2],
        (host, body_bytes): (&str, u64),
    ) -> Self {
        let arguments = ["-t1", &format!("-c{connections}"), &format!("-m{streams}"), url, "-H"].map(str::to_owned);
        let mut arguments = Vec::from(arguments);
        arguments.push(format!(":authority: {host}"));
        for (name, value) in fields {
            arguments.extend(["-H".to_owned(), format!("{name}: {value}")]);
        }
        Self { folder: folder.to_owned(), arguments, body_bytes, tls: url.starts_with("https") }
    }

    /// Requests for a time; how many there were per second.
    pub(crate) fn warm_up(&self, time: Duration) -> Result<f64, Problem> {
        let said = self.run(&["-D", &time.as_secs().to_string()], time)?;
        per_sec(&said).ok_or_else(|| format!("h2load says no rate: {said}").into())
    }

    /// So many requests, all of which must succeed; how many per second.
    pub(crate) fn requests(&self, count: u64, time: Duration) -> Result<f64, Problem> {
        let said = self.run(&["-n", &count.to_string()], time)?;
        self.check(&said, count)?;
        per_sec(&said).ok_or_else(|| format!("h2load says no rate: {said}").into())
    }

    /// So many requests with a line in a file for each: half take no longer than the first of the two, 99 % no longer
    /// than the second. In microseconds.
    pub(crate) fn latencies(&self, count: u64, time: Duration) -> Result<(f64, f64), Problem> {
        let path = self.folder.join("requests.tsv");
        let said = self.run(&["-n", &count.to_string(), "--log-file", &path.display().to_string()], time)?;
        self.check(&said, count)?;
        let mut samples = Samples::default();
        for line in fs::read_to_string(&path)?.lines() {
            let us = line.split('\t').nth(2).and_then(|us| us.parse().ok());
            samples.push_us(us.ok_or_else(|| format!("h2load writes {line:?}"))?);
        }
        fs::remove_file(&path)?;
        let found = samples.distribution().ok_or("h2load writes nothing")?;
        Ok((found.p50_us as f64, found.p99_us as f64))
    }

    fn run(&self, more: &[&str], time: Duration) -> Result<String, Problem> {
        let mut command = pinned("h2load", LOAD_CORE);
        command.args(&self.arguments).args(more);
        run(command, &self.folder.join("h2load.log"), time)
    }

    fn check(&self, said: &str, count: u64) -> Result<(), Problem> {
        let statuses = format!("status codes: {count} 2xx, 0 3xx, 0 4xx, 0 5xx");
        let requests = format!("{count} succeeded, 0 failed, 0 errored, 0 timeout");
        let tls = !self.tls || said.contains("TLS Protocol: TLSv1.3");
        if said.contains(&statuses)
            && said.contains(&requests)
            && tls
            && body_bytes(said) == Some(count * self.body_bytes)
        {
            return Ok(());
        }
        Err(format!("h2load: not all of {count} requests were answered as they should\n{said}").into())
    }
}

/// How many requests an interval of `time` needs at a rate.
pub(crate) fn count_for(per_sec: f64, time: Duration) -> u64 {
    ((per_sec * time.as_secs_f64()) as u64).max(FEWEST)
}

/// "finished in 1.02s, 48949.59 req/s, 1.2MB/s"
fn per_sec(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.strip_prefix("finished in "))?;
    line.split(", ").nth(1)?.strip_suffix(" req/s")?.parse().ok()
}

/// "traffic: 8.58MB (9000000) total, 1.14MB (1200000) headers (space savings 90%), 4.77MB (5000000) data"
fn body_bytes(said: &str) -> Option<u64> {
    let line = said.lines().find_map(|line| line.strip_prefix("traffic: "))?;
    line.strip_suffix(") data")?.rsplit_once('(')?.1.parse().ok()
}

/// Runs a generator to its end; what it said.
fn run(command: Command, log: &Path, time: Duration) -> Result<String, Problem> {
    let mut running = Running::start(command, log)?;
    let deadline = Instant::now() + time * 3 + LATE;
    let status = loop {
        interrupt::check()?;
        if let Some(status) = running.ended()? {
            break status;
        }
        if Instant::now() > deadline {
            return Err(format!("the load does not end{}", last_words(log)).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    if !status.success() {
        return Err(format!("the load ended with {status}{}", last_words(log)).into());
    }
    Ok(fs::read_to_string(log)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_h2load_says_is_understood() {
        let said = "finished in 102.15ms, 48949.59 req/s, 8.58MB/s\n\
                    requests: 2 total, 2 started, 2 done, 2 succeeded, 0 failed, 0 errored, 0 timeout\n\
                    status codes: 2 2xx, 0 3xx, 0 4xx, 0 5xx\n\
                    traffic: 8.58MB (9000000) total, 1.14MB (120) headers (space savings 90.00%), 10B (10) data\n";
        assert_eq!(per_sec(said), Some(48949.59));
        assert_eq!(body_bytes(said), Some(10));
        let load = |bytes| H2load::new(Path::new("/"), "http://a", &[], [1, 1], ("a", bytes));
        assert!(load(5).check(said, 2).is_ok());
        assert!(load(4).check(said, 2).is_err());
        assert!(load(5).check(said, 3).is_err());
    }
}
