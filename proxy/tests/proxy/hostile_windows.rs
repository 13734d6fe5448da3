//! Row h22 at its full size: large answers that are asked for and not taken. What the proxy holds of them is bounded by
//! its buffers and not by the answers, and what stands still is given up.

use std::sync::Arc;
use std::time::Duration;

use crate::apart::{Apart, descriptors_for};
use crate::bystander::Bystander;
use crate::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RESET, WINDOW, block, frame, number_of, request,
};
use crate::recorder::{OK, Recorder};
use crate::support::until;

const CONNECTIONS: usize = 20;
const STREAMS: u32 = 100;
/// Much more than the proxy may hold of it.
const ANSWER: usize = 512 * 1024;
/// How long a client may take nothing; long enough for all streams to be there at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes that drip, one at a time.
const DRIPS: u32 = 3;

/// For each stream: 32 KiB that wait for the client (`SEND_BUFFER` of the codec) and a piece that was begun before that
/// was full, the next piece, which has no room yet, and what the stream and its connection to the endpoint are: 64 KiB;
/// and half as much for what the allocator cannot use again. An answer is five times as long.
const MOST_KIB: u64 = CONNECTIONS as u64 * STREAMS as u64 * (64 + 32);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Windows of 0 from the beginning to the end.
    Held,
    /// Windows that grow by a byte.
    Dripped,
    /// Windows wide open, and a socket that nobody reads.
    Unread,
}

/// A large answer to everything but the ordinary request.
async fn upstream() -> Recorder {
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: {ANSWER}\r\n\r\n{}", "x".repeat(ANSWER));
    let large = Arc::new(large);
    Recorder::start(move |mut peer| {
        let large = large.clone();
        async move {
            while let Some(head) = peer.head().await {
                peer.send(if head.contains("/large") { &large } else { OK }).await;
            }
        }
    })
    .await
}

impl Way {
    /// Asks for all answers on one connection.
    async fn asks(self, apart: &Apart) -> Frames {
        const INITIAL_WINDOW: u16 = 4;
        let window = if self == Self::Unread { 0x7fff_ffff } else { 0 };
        let client = Frames::connect(apart.http, &[(INITIAL_WINDOW, window)]).await;
        client.send(WINDOW, 0, 0, &0x3fff_ffff_u32.to_be_bytes()).await;
        let head = block(&request("GET", b"/large"));
        let heads = (0..STREAMS).flat_map(|n| frame(HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, &head));
        // On a socket that takes nothing the library stops to read as well.
        client.send_meanwhile(heads.collect());
        client
    }

    /// What came before all streams of the connection had ended: bytes, and resets.
    async fn ends(client: &mut Frames) -> (usize, u32) {
        let (mut bytes, mut resets) = (0, 0);
        while resets < STREAMS
            && let Some(frame) = client.next().await
        {
            match frame.kind {
                DATA => bytes += frame.payload.len(),
                RESET => resets += 1,
                GOAWAY => panic!("GOAWAY {}", number_of(&frame.payload[4..8])),
                _ => {}
            }
        }
        (bytes, resets)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h22_answers_that_are_not_taken_are_bounded_and_given_up() {
    descriptors_for(2 * CONNECTIONS * STREAMS as usize);
    let mut apart = Apart::with(vec![upstream().await], |how| how.patience = Some(PATIENCE)).await;
    let upstream = apart.upstream(0).clone();
    let open = || upstream.open();
    let mut other = Bystander::at(apart.http).await;
    let quiet = other.served(200).await;
    for (round, way) in [Way::Held, Way::Dripped, Way::Unread, Way::Held].into_iter().enumerate() {
        apart.forget_peak();
        let mut clients = Vec::new();
        // How many of them the library takes up when nobody reads is its own affair.
        let each = if way == Way::Unread { 2 } else { STREAMS as usize };
        for n in 1..=CONNECTIONS {
            clients.push(way.asks(&apart).await);
            // One after the other: their endpoint's queue is not what this is about.
            until(&format!("all are asked for: {way:?}"), || open() >= n * each).await;
        }
        if way == Way::Dripped {
            let one = 1u32.to_be_bytes();
            let drip: Vec<u8> = (0..STREAMS).flat_map(|n| frame(WINDOW, 0, 2 * n + 1, &one)).collect();
            for _ in 0..DRIPS {
                for client in &clients {
                    assert!(client.send_all(drip.clone()).await);
                }
                tokio::time::sleep(PATIENCE / 5).await;
            }
            assert!(open() >= CONNECTIONS * each, "some progress is progress: {} are left", open());
        }
        let meanwhile = other.served(1).await;
        until(&format!("all are given up: {way:?}"), || open() <= 2).await;
        let grown = apart.peak_growth_kib();
        println!("{way:?}: {grown} KiB more at most, {} for each connection", grown / CONNECTIONS as u64);
        meanwhile.show_against(&quiet);
        other.served(1).await.show_against(&quiet);
        assert!(grown <= MOST_KIB, "{way:?}: {grown} KiB more");
        for client in &mut clients {
            match way {
                Way::Held => assert_eq!(Way::ends(client).await, (0, STREAMS)),
                Way::Dripped => assert_eq!(Way::ends(client).await, ((DRIPS * STREAMS) as usize, STREAMS)),
                // What is left in the socket, and its end.
                Way::Unread => while client.next().await.is_some() {},
            }
        }
        drop(clients);
        // What comes back a second time adds nothing to what was left behind.
        if round < 3 {
            apart.is_warm();
        }
        apart.is_as_before_but(1).await;
    }
}
