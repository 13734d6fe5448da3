//! HTTP/2 from clients that keep to its letter and break its spirit: floods, and windows that stay shut.

use std::time::Duration;

use api::fleet::Protocol;

use crate::apart::Apart;
use crate::frames::{
    DATA, END_STREAM, Ended, Frames, GOAWAY, HEADERS, PING, RESET, SETTINGS, WINDOW, frame, number_of, request,
};
use crate::reading::Reading;
use crate::recorder::Recorder;
use crate::site::Site;
use crate::support::{Client, HOST, hello, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h22_streams_that_are_not_read_are_reset_and_others_served() {
    const STREAMS: u32 = 30;
    let large = |head: &str| {
        let body = if head.contains("/normal") { "ok".to_owned() } else { "x".repeat(1024 * 1024) };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let site =
        Site::with(Recorder::answering(large).await, |settings| settings.limits.body = Duration::from_secs(1)).await;
    // A window of 0 for each stream; and one wide open, on a socket that nobody reads.
    for (windows, least) in [(&[(4u16, 0u32)][..], STREAMS as usize), (&[(4, 0x7fff_ffff)], 2)] {
        let mut frames = Frames::connect(site.proxy.http, windows).await;
        frames.send(WINDOW, 0, 0, &0x3fff_ffff_u32.to_be_bytes()).await;
        let get = request("GET", b"/large");
        for stream in 0..STREAMS {
            frames.open(2 * stream + 1, END_STREAM, &get).await;
        }
        // On a socket that takes nothing the library stops to read as well.
        until("they are asked for", || site.upstream.open() >= least).await;
        site.serves("streams that nobody reads").await;
        until("they are given up", || site.upstream.open() <= 1).await;
        if windows == [(4, 0)] {
            let mut reset = 0;
            while reset < STREAMS {
                let frame = frames.next().await.expect("the connection goes on");
                reset += u32::from(frame.kind == RESET);
                assert_ne!((frame.kind, frame.payload.is_empty()), (DATA, false), "there is no window");
            }
            // The connection itself did nothing wrong, and serves.
            let normal = request("HEAD", b"/normal");
            frames.open(2 * STREAMS + 1, END_STREAM, &normal).await;
            assert_eq!(frames.ended(2 * STREAMS + 1).await, Ended::Answered(200));
        }
        drop(frames);
        site.is_as_before().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h22_streams_that_drip_are_served_meanwhile() {
    let site = Site::start(
        Recorder::answering(|_| format!("HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n{}", "x".repeat(40))).await,
    )
    .await;
    let mut frames = Frames::connect(site.proxy.http, &[(4, 0)]).await;
    frames.open(1, END_STREAM, &request("POST", b"/hostile")).await;
    let mut got = 0;
    frames.send(WINDOW, 0, 1, &1u32.to_be_bytes()).await;
    while got < 40 {
        let frame = frames.next().await.expect("a frame");
        if frame.kind == DATA {
            got += frame.payload.len();
            frames.send(WINDOW, 0, 1, &1u32.to_be_bytes()).await;
        }
    }
    assert_eq!(got, 40);
    drop(frames);
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h20_a_rapid_reset_is_cut_short() {
    let site = Site::start(Recorder::ok().await).await;
    let mut victim = Client::http2(site.proxy.http).await;
    let mut frames = Frames::connect(site.proxy.http, &[]).await;
    for n in 0..20_000u32 {
        frames.open(2 * n + 1, END_STREAM, &request("POST", b"/hostile")).await;
        frames.send(RESET, 0, 2 * n + 1, &8u32.to_be_bytes()).await;
    }
    while let Some(frame) = frames.next().await {
        if frame.kind == GOAWAY {
            assert_eq!(frame.payload[4..8], 11u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
        }
    }
    assert_eq!(victim.get(HOST, "/normal").await.body, "ok");
    site.is_as_before_but(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h21_heads_without_end_are_cut_off() {
    const CONTINUATION: u8 = 9;
    let site = Site::start(Recorder::ok().await).await;
    // Empty pieces, pieces of a large head, and references to one large field again and again.
    let large = crate::frames::block(&[(b"x", &[b'v'; 4_000])]);
    for piece in [&[][..], &large] {
        let mut frames = Frames::connect(site.proxy.http, &[]).await;
        frames.send(HEADERS, END_STREAM, 1, &crate::frames::block(&request("POST", b"/hostile"))).await;
        for _ in 0..5_000 {
            frames.send(CONTINUATION, 0, 1, piece).await;
        }
        let ended = frames.ended(1).await;
        assert!(matches!(ended, Ended::Closed | Ended::Reset | Ended::Answered(431)), "{ended:?}");
        site.serves("a head without end").await;
    }
    let mut frames = Frames::connect(site.proxy.http, &[]).await;
    let mut bomb = crate::frames::block(&request("POST", b"/hostile"));
    // A field that is added to the table (0x40), and then the table's newest entry, 16,000 times.
    let field = crate::frames::block(&[(b"x", &[b'v'; 3_000])]);
    bomb.push(0x40);
    bomb.extend_from_slice(&field[1..]);
    bomb.extend(std::iter::repeat_n(0x80 | 62, 12_000));
    frames.send(HEADERS, END_STREAM | 4, 1, &bomb).await;
    let ended = frames.ended(1).await;
    assert!(matches!(ended, Ended::Closed | Ended::Reset | Ended::Answered(431)), "{ended:?}");
    drop(frames);
    assert!(!site.upstream.all().contains("hostile"));
    site.serves("a bomb").await;
    site.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h23_floods_of_small_frames_hold_up_nobody() {
    let site = Site::start(Recorder::ok().await).await;
    for (kind, stream, payload) in [
        (PING, 0, &[0u8; 8][..]),
        (SETTINGS, 0, &[]),
        (2, 1, &[0, 0, 0, 0, 0]),
        (DATA, 1, &[]),
        (0x42, 0, b"unknown"),
        (WINDOW, 0, &[0, 0, 0, 1]),
    ] {
        let frames = Frames::connect(site.proxy.http, &[]).await;
        frames.open(1, 0, &request("POST", b"/hostile")).await;
        for _ in 0..5_000 {
            frames.send(kind, 0, stream, payload).await;
        }
        site.serves("a flood").await;
    }
    site.is_as_before().await;
}

/// A body of padding alone takes room in the windows and none anywhere else (RFC 9113 §6.1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h23_a_body_of_padding_alone_is_held_nowhere() {
    const PADDED: u8 = 8;
    const FRAMES: usize = 50_000;
    let padding = frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat());
    let apart = Apart::start(Recorder::ok().await).await;
    let mut frames = Frames::connect(apart.http, &[]).await;
    frames.open(1, 0, &request("POST", b"/hostile")).await;
    apart.forget_peak();
    let (mut windows, mut sent, mut over) = ([65_535usize; 2], 0, false);
    while sent < FRAMES && !over {
        let room = (windows[0].min(windows[1]) / 256).min(FRAMES - sent);
        windows = windows.map(|window| window - 256 * room);
        sent += room;
        frames.send_all(padding.repeat(room)).await;
        frames.send(PING, 0, 0, b"are you?").await;
        // Its answer comes when all before it was worked on.
        while let Some(frame) = frames.next().await {
            match frame.kind {
                PING => break,
                SETTINGS if frame.flags == 0 => {
                    let window = frame.payload.chunks(6).find(|setting| setting[..2] == [0, 4]);
                    windows[1] += number_of(&window.expect("more than the least")[2..]) as usize - 65_535;
                }
                WINDOW => windows[usize::from(frame.stream == 1)] += number_of(&frame.payload) as usize,
                GOAWAY => over = true,
                _ => {}
            }
        }
        apart.serves("padding").await;
    }
    println!("{sent} frames, {} KiB more at most, cut off: {over}", apart.peak_growth_kib());
    assert!(apart.peak_growth_kib() < 4 * 1024, "{} KiB", apart.peak_growth_kib());
    if !over {
        frames.send(DATA, END_STREAM, 1, b"").await;
        assert_eq!(frames.ended(1).await, Ended::Answered(200));
    }
    drop(frames);
    apart.is_as_before().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_of_streams_and_idle_connections_in_http_2() {
    let change = |settings: &mut proxy::Settings| {
        settings.limits.stream_idle = Duration::from_secs(1);
        settings.limits.body = Duration::from_secs(1);
    };
    let site = Site::with(Recorder::start(|mut peer| async move { peer.ended().await }).await, change).await;
    let mut frames = Frames::connect(site.proxy.http, &[]).await;
    // SETTINGS_MAX_CONCURRENT_STREAMS, and one stream more than that.
    let settings = frames.next().await.expect("a frame");
    let most = settings.payload.chunks(6).find(|setting| setting[..2] == [0, 3]).expect("the setting");
    assert_eq!((settings.kind, &most[2..]), (SETTINGS, &100u32.to_be_bytes()[..]));
    for n in 0..101 {
        frames.open(2 * n + 1, END_STREAM, &request("POST", b"/hostile")).await;
    }
    assert_eq!(frames.ended(201).await, Ended::Reset);
    drop(frames);
    until("the other streams are given up", || site.upstream.open() == 0).await;
    // Nothing asked for: told to leave, then closed.
    let mut idle = Frames::connect(site.proxy.http, &[]).await;
    let mut told = false;
    while let Some(frame) = idle.next().await {
        told |= frame.kind == GOAWAY;
    }
    assert!(told);
    // A preface that is cut and one that goes wrong.
    for bytes in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n"] {
        let mut wire = site.wire().await;
        wire.send(bytes).await;
        wire.rest().await;
    }
    site.settles().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_h26_a_goaway_in_the_middle_costs_one_request_at_most() {
    // Answers the first request of each connection, and says at the second that it takes no more.
    let upstream = Recorder::start(|mut peer| async move {
        peer.bytes(24).await;
        peer.send([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]).await;
        loop {
            let head = peer.bytes(9).await;
            let [_, high, low, kind, _, _, _, _, stream] = head[..] else { return };
            peer.bytes(256 * usize::from(high) + usize::from(low)).await;
            match (kind, stream) {
                // 0x88 is the status 200.
                (HEADERS, 1) => peer.send([0, 0, 1, HEADERS, 5, 0, 0, 0, 1, 0x88]).await,
                (HEADERS, _) => {
                    peer.send([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).await;
                    return peer.ended().await;
                }
                _ => {}
            }
        }
    })
    .await;
    let site = Site::start(Recorder::ok().await).await;
    site.proxy.apply(hello(Protocol::H2c, &[(1, upstream.address, 1)]));
    let mut client = Client::http2(site.proxy.http).await;
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(client.get(HOST, "/").await.status);
    }
    assert!(statuses.iter().all(|status| matches!(status, 200 | 502)), "{statuses:?}");
    assert!(statuses.windows(2).all(|pair| pair.contains(&200)), "{statuses:?}");
    drop(client);
    let mut client = Client::http1(site.proxy.http).await;
    assert!(matches!(client.get(HOST, "/").await.status, 200 | 502));
    drop(client);
    site.proxy.apply(hello(Protocol::H1, &[(1, site.upstream.address, 1)]));
    site.is_as_before().await;
}
