//! Row h62: clients that keep the proxy waiting, one by one and in crowds. All are closed on time, and nobody else notices.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::apart::{Apart, descriptors_for};
use crate::bystander::Bystander;
use crate::reading::Reading;
use crate::recorder::{OK, Recorder};
use crate::support::{HOST, until};
use crate::wire::Wire;

/// Half of them have never said anything, the others were answered once.
const IDLE: usize = 10_000;
/// Half of them within a TLS handshake, the others within a head.
const HALF_OPEN: usize = 1_000;
/// Of each kind that is slow.
const SLOW: usize = 50;
/// Long enough for all of them to be there at once.
const PATIENCE: Duration = Duration::from_secs(15);
/// An answer that fills every buffer on its way.
const MUCH: usize = 8 * 1024 * 1024;
/// Connections are opened by so many at once.
const OPENERS: usize = 4;

/// Who comes, in this order.
const CROWD: [(Kind, usize); 7] = [
    (Kind::SlowReader, SLOW),
    (Kind::SlowBody, SLOW),
    (Kind::SlowHead, SLOW),
    (Kind::Silent, IDLE / 2),
    (Kind::Answered, IDLE / 2),
    (Kind::Handshake, HALF_OPEN / 2),
    (Kind::Head, HALF_OPEN / 2),
];

/// What a client does before it does nothing.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Silent,
    Answered,
    Handshake,
    Head,
    SlowHead,
    SlowBody,
    SlowReader,
}

impl Kind {
    async fn begin(self, http: SocketAddr, https: SocketAddr) -> Wire {
        let address = if matches!(self, Self::Handshake) { https } else { http };
        let narrow = matches!(self, Self::SlowReader);
        let mut wire = if narrow { Wire::narrow(address).await } else { Wire::connect(address).await };
        match self {
            Self::Silent => {}
            Self::Answered => {
                wire.ask("GET /normal HTTP/1.1", "").await;
                assert_eq!(wire.answer().await.expect("an answer").status, 200);
            }
            // The first half of a ClientHello of 512 bytes.
            Self::Handshake => {
                assert!(wire.send([&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 200]].concat()).await)
            }
            Self::Head => assert!(wire.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX: ")).await),
            // It would take longer than anybody waits, though never long for the next byte.
            Self::SlowHead => drop(wire.drip([b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 30_000]].concat())),
            Self::SlowBody => {
                wire.ask("POST /slow HTTP/1.1", "Content-Length: 100\r\n").await;
                assert!(wire.send("half of it").await);
            }
            Self::SlowReader => {
                wire.ask("GET /much HTTP/1.1", "").await;
                assert!(wire.bytes(100).await.starts_with(b"HTTP/1.1 200"));
            }
        }
        wire
    }
}

/// So many of a kind, all connected.
async fn crowd(apart: &Apart, kind: Kind, count: usize) -> Vec<Wire> {
    let (http, https) = (apart.http, apart.https);
    let mut opening = JoinSet::new();
    for opener in 0..OPENERS {
        opening.spawn(async move {
            let mut wires = Vec::new();
            for _ in (opener..count).step_by(OPENERS) {
                wires.push(kind.begin(http, https).await);
            }
            wires
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h62_crowds_that_wait_are_closed_on_time_and_others_served() {
    descriptors_for(IDLE + HALF_OPEN + 3 * SLOW + 1_000);
    let upstream = Recorder::answering(|head| match head.contains("/much") {
        true => format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n{}", "x".repeat(MUCH)),
        false => OK.to_owned(),
    });
    let mut apart = Apart::with(vec![upstream.await], |how| how.patience = Some(PATIENCE)).await;
    let mut other = Bystander::at(apart.http).await;
    let quiet = other.served(200).await;
    let before = apart.fresh;
    // All of them once, and then a fifth: that adds nothing to what the first have left behind.
    for part in [1, 5] {
        let mut all = Vec::new();
        for (kind, count) in CROWD {
            all.extend(crowd(&apart, kind, count / part).await);
        }
        let there = before.descriptors + all.len();
        until("all of them are there at once", || apart.descriptors() >= there).await;
        let held = apart.held();
        let each = 1024 * held.kib.saturating_sub(before.kib) / all.len() as u64;
        println!("{} connections: {held:?}, {before:?} before: {each} B each", all.len());
        other.served(1).await.show_against(&quiet);

        // None of them does anything: it is the proxy that ends them.
        until("all of them are closed", || apart.descriptors() <= before.descriptors + 4).await;
        other.served(1).await.show_against(&quiet);
        if part == 1 {
            apart.is_warm();
        }
        apart.is_as_before_but(1).await;
    }
}
