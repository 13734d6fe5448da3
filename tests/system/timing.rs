//! Whether unknown and hidden hosts can be told apart by time: measured and told, never asserted. That both are answered alike
//! to the byte is asserted by the proxy's own tests; here only that each is answered, over HTTP/1.1 with 404 and at one length.
//!
//! Each pair is asked in an order drawn beforehand, one request at a time on one connection, by raw bytes of the same
//! length. The two-sample test is Mann and Whitney's, with the normal approximation.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{HOST, House, Issuer, STAFF, Upstream, alone};

/// A host of the zone that does not exist, as long as [`HOST`].
const NOWHERE: &str = "nobdy.production.localhost";
/// Requests to each of both hosts that do not count.
const WARM_UP: usize = 500;

/// How a request is written and its answer read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speech {
    Http1,
    Http2,
    Grpc,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn indistinguishable_unknown_and_hidden_take_the_same_time_as_far_as_this_report_shows() {
    let _alone = alone().await;
    let long = std::env::var_os("POINTSMAN_LONG").is_some();
    let each = if long { 20_000 } else { 500 };
    let mut house = House::with_controller().await;
    let issuer = Issuer::start().await;
    let environment =
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = { kind = \"static\" }\n";
    let service = "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"h2c\"\n\
                   health = { every = \"1h\" }\n[stage.production]\n";
    house.apply(&[("production.toml", environment), ("pointsman.toml", service)]).await;
    house.believes(&issuer, STAFF).await;
    let upstream = Upstream::start("r1").await;
    house.release(&upstream).await;
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    let proxy = house.proxy("p1", 1).await;
    let (key, guest) = (house.application("shop").await, issuer.token("guest", &["guests"]));
    let good = format!("x-api-key: {key}\nauthorization: Bearer {guest}");
    for speech in [Speech::Http1, Speech::Http2, Speech::Grpc] {
        for (who, fields) in [("a stranger", ""), ("a guest with both credentials", &good)] {
            let (address, fields) = (proxy.http, fields.to_owned());
            let measured = tokio::task::spawn_blocking(move || pair(address, speech, &fields, each));
            let [unknown, hidden] = measured.await.expect("measured");
            let (z, p) = mann_whitney(&unknown, &hidden);
            let [u, h] = [&unknown, &hidden].map(|sample| median(sample).as_secs_f64() * 1e6);
            println!(
                "timing: {speech:?}, {who}, n = {each}: unknown {u:.2} us, hidden {h:.2} us, z = {z:.2}, p = {p:.3}"
            );
        }
    }
}

/// Times of answers for the unknown and the hidden host.
fn pair(address: SocketAddr, speech: Speech, fields: &str, each: usize) -> [Vec<Duration>; 2] {
    let mut connection = Connection::open(address, speech);
    let mut taken = [Vec::with_capacity(each), Vec::with_capacity(each)];
    let (mut seed, mut first) = (0x9E37_79B9_7F4A_7C15_u64, [None, None]);
    for number in 0..2 * (WARM_UP + each) {
        // Drawn, as long as both are still short of their number.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let warm = number < 2 * WARM_UP;
        let which = match () {
            () if warm => number % 2,
            () if taken[0].len() == each => 1,
            () if taken[1].len() == each => 0,
            () => (seed >> 63) as usize,
        };
        let begun = Instant::now();
        let answer = connection.ask([NOWHERE, HOST][which], fields);
        let took = begun.elapsed();
        if !warm {
            first[which].get_or_insert(answer);
            taken[which].push(took);
        }
    }
    // Over HTTP/2 an id's length is that of its code (RFC 7541 §5.2), which chance decides.
    assert!(speech != Speech::Http1 || first[0] == first[1], "unknown and hidden differ in length: {first:?}");
    taken
}

/// One connection of raw bytes.
struct Connection {
    stream: TcpStream,
    speech: Speech,
    next_stream: u32,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr, speech: Speech) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("TCP");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("TCP");
        let mut connection = Self { stream, speech, next_stream: 1, buffer: Vec::new() };
        if speech != Speech::Http1 {
            // The preface and empty SETTINGS (RFC 9113 §3.4), and an ACK for the proxy's.
            connection.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("written");
            connection.stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).expect("written");
            // As much room for all bodies together as there can be (§6.9.1).
            connection.stream.write_all(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0, 0]).expect("written");
        }
        connection
    }

    /// Asks and reads the answer to its end: its length.
    fn ask(&mut self, host: &str, fields: &str) -> usize {
        let fields = fields.lines().filter_map(|line| line.split_once(": "));
        match self.speech {
            Speech::Http1 => {
                let lines: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{lines}\r\n");
                self.stream.write_all(request.as_bytes()).expect("written");
                self.read_http1()
            }
            speech => {
                let method = if speech == Speech::Grpc { "POST" } else { "GET" };
                let grpc: &[_] = if speech == Speech::Grpc {
                    &[("content-type", "application/grpc"), ("te", "trailers")]
                } else {
                    &[]
                };
                let pseudo = [(":method", method), (":scheme", "http"), (":path", "/a.B/C"), (":authority", host)];
                let mut block = Vec::new();
                for (name, value) in pseudo.into_iter().chain(grpc.iter().copied()).chain(fields) {
                    literal(name, value, &mut block);
                }
                let stream = self.next_stream;
                self.next_stream += 2;
                let mut frame = (block.len() as u32).to_be_bytes()[1..].to_vec();
                // HEADERS that end both head and stream.
                frame.extend([1, 5]);
                frame.extend(stream.to_be_bytes());
                frame.extend(block);
                self.stream.write_all(&frame).expect("written");
                self.read_http2(stream)
            }
        }
    }

    fn read_http1(&mut self) -> usize {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
                assert!(head.starts_with("http/1.1 404"), "{head}");
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = end + 4 + length.map_or(0, |length| length.parse().expect("a number"));
                if self.buffer.len() >= length {
                    self.buffer.drain(..length);
                    return length;
                }
            }
            self.read();
        }
    }

    fn read_http2(&mut self, stream: u32) -> usize {
        let mut bytes = 0;
        loop {
            while self.buffer.len() >= 9 {
                let length = u32::from_be_bytes([0, self.buffer[0], self.buffer[1], self.buffer[2]]) as usize + 9;
                if self.buffer.len() < length {
                    break;
                }
                let (kind, flags) = (self.buffer[3], self.buffer[4]);
                let of = u32::from_be_bytes(self.buffer[5..9].try_into().expect("four bytes"));
                self.buffer.drain(..length);
                assert!(!matches!(kind, 3 | 7), "RST_STREAM or GOAWAY");
                if of != stream {
                    continue;
                }
                bytes += length;
                // HEADERS or DATA that end the stream; the status is in a table that only they know. Others test it.
                if kind <= 1 && flags & 1 == 1 {
                    return bytes;
                }
            }
            self.read();
        }
    }

    fn read(&mut self) {
        let mut piece = [0; 4096];
        let count = self.stream.read(&mut piece).expect("an answer");
        assert!(count > 0, "the connection was closed");
        self.buffer.extend_from_slice(&piece[..count]);
    }
}

/// A literal field without indexing and without Huffman (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str, block: &mut Vec<u8>) {
    block.push(0);
    for text in [name, value] {
        // An integer with a prefix of 7 bits (§5.1).
        match text.len() {
            short @ 0..127 => block.push(short as u8),
            long => {
                block.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    block.push((rest % 128 + 128) as u8);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
        }
        block.extend_from_slice(text.as_bytes());
    }
}

fn median(sample: &[Duration]) -> Duration {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// How far the ranks of two samples are apart: the standardised U, and how often chance alone is as far (two-sided).
fn mann_whitney(a: &[Duration], b: &[Duration]) -> (f64, f64) {
    let mut all: Vec<(Duration, bool)> =
        a.iter().map(|time| (*time, true)).chain(b.iter().map(|time| (*time, false))).collect();
    all.sort_unstable();
    let (mut ranks, mut ties, mut place) = (0.0, 0.0, 0);
    while place < all.len() {
        let same = all[place..].iter().take_while(|(time, _)| *time == all[place].0).count();
        // Equal times share the mean of their ranks.
        let rank = place as f64 + (same as f64 + 1.0) / 2.0;
        ranks += all[place..place + same].iter().filter(|(_, of_a)| *of_a).count() as f64 * rank;
        ties += (same as f64).powi(3) - same as f64;
        place += same;
    }
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (sum, u) = (n + m, ranks - n * (n + 1.0) / 2.0);
    let deviation = (n * m / 12.0 * ((sum + 1.0) - ties / (sum * (sum - 1.0)))).sqrt();
    let z = (u - n * m / 2.0) / deviation;
    (z, erfc(z.abs() / std::f64::consts::SQRT_2))
}

/// Abramowitz and Stegun 7.1.26: off by less than 1.5e-7.
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    polynomial.iter().fold(0.0, |sum, factor| (sum + factor) * t) * (-x * x).exp()
}

#[test]
fn two_samples_that_differ_are_told_apart_and_equal_ones_are_not() {
    let sample = |shift: u64| -> Vec<Duration> {
        (0..2_000_u64).map(|n| Duration::from_nanos(60_000 + n.wrapping_mul(2_654_435_761) % 10_000 + shift)).collect()
    };
    let (z, p) = mann_whitney(&sample(0), &sample(0));
    assert!(z.abs() < 0.01 && p > 0.99, "{z} {p}");
    // A fiftieth of the spread.
    let (z, p) = mann_whitney(&sample(0), &sample(500));
    assert!(z < -3.0 && p < 0.003, "{z} {p}");
    let known = [(0.0, 1.0), (1.0, 0.157_299), (2.0, 0.004_678)];
    for (x, expected) in known {
        assert!((erfc(x) - expected).abs() < 1e-5, "{x}");
    }
}
