//! Requests at a steady pace through every proxy while something else is measured.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Connection;

/// A load at work until it is ended.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Written by the threads, read at the end.
#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Sends `per_sec` requests a second to `host`, in equal parts over the proxies, a connection each.
    pub fn start(proxies: &[SocketAddr], host: &str, per_sec: u32) -> Self {
        let shared = Arc::<Shared>::default();
        let pause = Duration::from_secs_f64(proxies.len() as f64 / f64::from(per_sec.max(1)));
        let thread = |proxy: &SocketAddr| {
            let (shared, proxy, host) = (shared.clone(), *proxy, host.to_owned());
            std::thread::spawn(move || shared.run(proxy, &host, pause))
        };
        let threads = if per_sec == 0 { Vec::new() } else { proxies.iter().map(thread).collect() };
        Self { shared, threads }
    }

    /// Ends it; how many requests had an answer below 500, and how many had none or another.
    pub fn end(self) -> (u64, u64) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A thread that panicked has printed why.
            let _ = thread.join();
        }
        (self.shared.answered.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn run(&self, proxy: SocketAddr, host: &str, pause: Duration) {
        let (mut connection, mut next) = (None, Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            if connection.is_none() {
                connection = Connection::open(proxy).ok();
            }
            let status = connection.as_mut().map(|connection| connection.get(host));
            let good = matches!(status, Some(Ok(200..500)));
            if !good {
                connection = None;
            }
            let count = if good { &self.answered } else { &self.failed };
            count.fetch_add(1, Ordering::Relaxed);
            next += pause;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}
