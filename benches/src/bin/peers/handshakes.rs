//! W3: a connection, a full handshake and one request, again and again, on some threads at once.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pointsman_benches::Problem;
use pointsman_benches::client::{Connection, Fields, Tls};
use pointsman_benches::distribution::Samples;

use crate::interrupt;
use crate::load::Found;
use crate::work::HELLO;

/// For a time; every request must be answered with 200.
pub(crate) fn run(
    address: SocketAddr,
    tls: &Tls,
    fields: &Fields,
    at_once: usize,
    time: Duration,
) -> Result<Found, Problem> {
    let (begun, samples) = (Instant::now(), Mutex::new(Samples::default()));
    let one_by_one = || -> Result<u64, Problem> {
        let mut count = 0;
        while begun.elapsed() < time {
            interrupt::check()?;
            let sent = Instant::now();
            let mut connection = Connection::open_tls(address, tls, HELLO)?.with(fields);
            let status = connection.get(HELLO)?;
            if status != 200 {
                return Err(format!("a request is answered with {status}").into());
            }
            let took = sent.elapsed();
            connection.close()?;
            samples.lock().map_err(|_| "another thread failed")?.push(took);
            count += 1;
        }
        Ok(count)
    };
    let requests = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(one_by_one)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a client failed")?).sum::<Result<u64, Problem>>()
    })?;
    let per_sec = requests as f64 / begun.elapsed().as_secs_f64();
    let samples = samples.into_inner().map_err(|_| "a client failed")?;
    let found = samples.distribution().ok_or("there was no request")?;
    Ok(Found { requests, per_sec, p50_us: found.p50_us as f64, p99_us: found.p99_us as f64 })
}
