//! Ports that stay free while a part is away.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Below those that the system gives to outgoing connections (from 32768), so that none of these takes the port of a
/// part that is about to start again.
const FIRST: u16 = 10_000;
const COUNT: u16 = 9_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on now.
pub(crate) fn free_port() -> u16 {
    // Test processes that run at the same time begin at different places.
    let seed = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).expect("below 9,000");
    for _ in 0..COUNT {
        let port = FIRST + (seed + NEXT.fetch_add(1, Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

/// A range of ports for the releases of one agent, as `--ports` takes it.
pub(crate) fn free_range() -> String {
    static RANGES: AtomicU16 = AtomicU16::new(0);
    let seed = u16::try_from(std::process::id() % 100).expect("below 100");
    let first = 20_000 + (seed + RANGES.fetch_add(1, Relaxed)) % 100 * 100;
    format!("{first}-{}", first + 99)
}
