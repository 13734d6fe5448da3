//! Row h20: streams that are opened to be reset, by the client or by us. Their work is for nothing, so the connection is
//! ended; whoever comes back on new ones costs neither memory nor others their answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::apart::Apart;
use crate::bystander::Bystander;
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RESET, WINDOW, block, frame, number_of, request,
};
use crate::recorder::Recorder;

/// Codes of RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the row allows on top of what the proxy had before.
const MOST_KIB: u64 = 32 * 1024;
/// Connections at once.
const ATTACKERS: usize = 4;
/// Sent on each connection, whether or not it is ended before: the library makes 1,024 resets itself before it does.
const STREAMS: u32 = 1_300;
/// Streams a second that all attackers together get the proxy to take in, at most: the row's 100,000 within five seconds.
/// Faster ones only show who gets the processor of a machine that has little of it.
const RATE: u32 = 20_000;
/// Taken in at most, if the end of a connection does not say how many: so many may be there at once.
const AT_ONCE: u32 = 100;

/// A way to spoil a stream that was just opened.
struct Spoilt {
    what: &'static str,
    settings: &'static [(u16, u32)],
    by: fn(u32) -> Vec<u8>,
    /// So many streams have to be taken in, over as many connections as that needs.
    streams: u32,
    /// Codes with which it may end a connection.
    codes: &'static [u32],
}

/// What became of connections.
#[derive(Debug, Default)]
struct Ends {
    connections: u32,
    streams: u32,
    /// By code: GOAWAY, and resets of single streams.
    goaways: BTreeMap<u32, u32>,
    resets: BTreeMap<u32, u32>,
    /// Ended without a word: a proxy that closes while more comes may lose its last words (RFC 9113 §9.1).
    silent: u32,
}

fn head(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&request("POST", b"/hostile")))
}

impl Spoilt {
    const WAYS: [Self; 6] = [
        Self {
            what: "reset by the client",
            settings: &[],
            by: |stream| frame(RESET, 0, stream, &CANCEL.to_be_bytes()),
            streams: 100_000,
            codes: &[ENHANCE_YOUR_CALM],
        },
        Self {
            what: "reset by the client, and an answer had no window",
            settings: &[(4, 0)],
            by: |stream| frame(RESET, 0, stream, &CANCEL.to_be_bytes()),
            streams: 10_000,
            codes: &[ENHANCE_YOUR_CALM],
        },
        Self {
            what: "a window that grows by nothing",
            settings: &[],
            by: |stream| frame(WINDOW, 0, stream, &[0; 4]),
            streams: 500,
            codes: &[PROTOCOL_ERROR, ENHANCE_YOUR_CALM],
        },
        Self {
            what: "a window that overflows",
            settings: &[],
            by: |stream| frame(WINDOW, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
            streams: 1_000,
            codes: &[ENHANCE_YOUR_CALM],
        },
        Self {
            what: "a second head behind the end",
            settings: &[],
            by: head,
            streams: 500,
            codes: &[PROTOCOL_ERROR, STREAM_CLOSED, ENHANCE_YOUR_CALM],
        },
        Self {
            what: "data behind the end",
            settings: &[],
            by: |stream| frame(DATA, 0, stream, b"x"),
            streams: 500,
            codes: &[PROTOCOL_ERROR, STREAM_CLOSED, ENHANCE_YOUR_CALM],
        },
    ];

    /// One connection, to its end: the streams that the proxy took in.
    async fn attack(&self, proxy: SocketAddr, frames: Vec<u8>, ends: &mut Ends) -> u32 {
        let mut client = Frames::connect(proxy, self.settings).await;
        let sending = client.send_meanwhile(frames);
        ends.connections += 1;
        let mut taken = None;
        while let Some(frame) = client.next().await {
            match frame.kind {
                RESET => *ends.resets.entry(number_of(&frame.payload)).or_default() += 1,
                GOAWAY => {
                    taken = Some(number_of(&frame.payload[..4]).div_ceil(2));
                    *ends.goaways.entry(number_of(&frame.payload[4..8])).or_default() += 1;
                    break;
                }
                _ => {}
            }
        }
        // Its socket is closed once nothing is sent any more.
        sending.abort();
        ends.silent += u32::from(taken.is_none());
        let taken = taken.unwrap_or(AT_ONCE);
        ends.streams += taken;
        taken
    }

    /// All of them, from several attackers at once.
    async fn flood(&'static self, proxy: SocketAddr) -> Ends {
        let frames: Vec<u8> = (0..STREAMS).flat_map(|n| [head(2 * n + 1), (self.by)(2 * n + 1)].concat()).collect();
        let (taken, mut attackers, begun) = (Arc::<AtomicU32>::default(), JoinSet::new(), Instant::now());
        for _ in 0..ATTACKERS {
            let (frames, taken) = (frames.clone(), taken.clone());
            attackers.spawn(async move {
                let mut ends = Ends::default();
                while taken.load(Relaxed) < self.streams {
                    let so_far = taken.fetch_add(self.attack(proxy, frames.clone(), &mut ends).await, Relaxed);
                    sleep((Duration::from_secs(1) * so_far / RATE).saturating_sub(begun.elapsed())).await;
                }
                ends
            });
        }
        attackers.join_all().await.into_iter().fold(Ends::default(), Ends::with)
    }

    /// The same from a thread that leaves the processor to whoever else wants it: a real attacker brings a machine.
    async fn flood_from_afar(&'static self, proxy: SocketAddr) -> Ends {
        let (told, ends) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            rustix::process::nice(19).expect("of this thread alone (nice(2), on Linux)");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let _ = told.send(runtime.block_on(self.flood(proxy)));
        });
        ends.await.expect("no attacker failed")
    }
}

impl Ends {
    fn with(mut self, other: Self) -> Self {
        self.connections += other.connections;
        self.streams += other.streams;
        self.silent += other.silent;
        for (into, from) in [(&mut self.goaways, other.goaways), (&mut self.resets, other.resets)] {
            for (code, count) in from {
                *into.entry(code).or_default() += count;
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h20_resets_end_their_connection_and_cost_others_nothing() {
    let apart = Apart::start(Recorder::ok().await).await;
    let mut other = Bystander::at(apart.http).await;
    let quiet = other.served(500).await;
    static WAYS: [Spoilt; 6] = Spoilt::WAYS;
    for way in &WAYS {
        apart.forget_peak();
        let ends = way.flood_from_afar(apart.http).await;
        let (grown, what) = (apart.peak_growth_kib(), way.what);
        println!("{what}: {ends:?}, {grown} KiB at most");
        other.served(1).await.show_against(&quiet);
        assert!(ends.goaways.keys().all(|code| way.codes.contains(code)), "{what}: {ends:?}");
        let resets = [FLOW_CONTROL_ERROR, REFUSED_STREAM];
        assert!(ends.resets.keys().all(|code| resets.contains(code)), "{what}: {ends:?}");
        // As many as may wait to be taken up, and those that are answered: it never goes on to the last one.
        let most = ends.connections * STREAMS / 2;
        assert!(ends.streams < most, "{what}: streams were taken in without end: {ends:?}");
        assert!(grown < MOST_KIB, "{what}: {grown} KiB more");
    }
    drop(other);
    apart.is_as_before().await;
}
