//! The access log: one line of JSON for each request that ends, written by a thread of its own.
//!
//! Must not know: what a request means. A worker only puts bytes together; when the writer is slower than the requests
//! are, whole pieces are dropped and counted: a full disk or a blocked pipe holds up nobody.
//!
//! Main types: [`Log`], a worker's end; [`Entry`], a line in the making; [`writer::start`], the other end.

pub(crate) mod writer;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::time::SystemTime;

use tokio::time::Instant;

/// Lines are handed over in pieces of about this size, or a few times a second.
const PIECE: usize = 32 * 1024;
/// A value that a client chose is cut here.
const VALUE_CHARS: usize = 2048;

/// A worker's end of the log.
#[derive(Debug)]
pub(crate) struct Log {
    lines: RefCell<Vec<u8>>,
    writer: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// A line in the making.
#[derive(Debug)]
pub(crate) struct Entry {
    line: Vec<u8>,
    begun: Instant,
}

impl Log {
    pub(crate) fn new(writer: SyncSender<Vec<u8>>, dropped: Arc<AtomicU64>) -> Self {
        Self { lines: RefCell::default(), writer, dropped }
    }

    /// Adds a line that is complete.
    pub(crate) fn add(&self, entry: Entry) {
        let mut line = entry.line;
        number(&mut line, "us", u64::try_from(entry.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        line.extend_from_slice(b"}\n");
        let mut lines = self.lines.borrow_mut();
        lines.extend_from_slice(&line);
        if lines.len() >= PIECE {
            drop(lines);
            self.hand_over();
        }
    }

    /// Hands over what is there; called a few times a second as well.
    pub(crate) fn hand_over(&self) {
        let lines = self.lines.take();
        if lines.is_empty() {
            return;
        }
        if let Err(std::sync::mpsc::TrySendError::Full(lines)) = self.writer.try_send(lines) {
            self.dropped.fetch_add(lines.iter().filter(|b| **b == b'\n').count() as u64, Relaxed);
        }
    }
}

impl Entry {
    /// A line about a request that begins now.
    pub(crate) fn begin(id: &[u8], client: IpAddr) -> Self {
        // Allocates: a line is kept until its request ends.
        let mut line = Vec::with_capacity(512);
        line.push(b'{');
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        text(&mut line, "time", format!("{now:.3}").as_bytes());
        text(&mut line, "request_id", id);
        text(&mut line, "client", client.to_string().as_bytes());
        Self { line, begun: Instant::now() }
    }

    /// Adds a text, whatever bytes it has.
    pub(crate) fn text(&mut self, name: &str, value: &[u8]) {
        text(&mut self.line, name, value);
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        number(&mut self.line, name, value);
    }
}

fn name_of(line: &mut Vec<u8>, name: &str) {
    if line.len() > 1 {
        line.push(b',');
    }
    line.push(b'"');
    line.extend_from_slice(name.as_bytes());
    line.extend_from_slice(b"\":");
}

fn number(line: &mut Vec<u8>, name: &str, value: u64) {
    name_of(line, name);
    line.extend_from_slice(value.to_string().as_bytes());
}

/// Control characters of both kinds are escaped: a line shown in a terminal stays a line (RFC 8259 §7 asks for the
/// first 32 only).
fn text(line: &mut Vec<u8>, name: &str, value: &[u8]) {
    name_of(line, name);
    line.push(b'"');
    let mut utf8 = [0; 4];
    for (count, letter) in String::from_utf8_lossy(value).chars().enumerate() {
        match letter {
            _ if count >= VALUE_CHARS => {
                line.extend_from_slice("…".as_bytes());
                break;
            }
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            letter if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') => {
                line.extend_from_slice(format!("\\u{:04x}", u32::from(letter)).as_bytes());
            }
            letter => line.extend_from_slice(letter.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    line.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn hostile_h48_whatever_is_logged_stays_one_line_of_json() {
        let (sender, receiver) = sync_channel(4);
        let log = Log::new(sender, Arc::default());
        let hostile = [
            &b"plain"[..],
            b"\x1b[31mred\x1b[0m",
            b"a\r\nb",
            b"\0\x07\x7f",
            "\u{9b}31m\u{2028}\u{85}".as_bytes(),
            b"\xff\xfe broken \xc3",
            b"\"},{\"x\":\"\\",
            "ü 😈".as_bytes(),
        ];
        for value in hostile {
            let mut entry = Entry::begin(b"0123", "192.0.2.1".parse().expect("an address"));
            entry.text("target", value);
            entry.number("status", 200);
            log.add(entry);
        }
        log.hand_over();
        let lines = String::from_utf8(receiver.recv().expect("a piece")).expect("text");
        assert!(!lines.chars().any(|letter| letter.is_control() && letter != '\n'), "{lines:?}");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), hostile.len());
        for (line, value) in lines.iter().zip(hostile) {
            let read: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(read["target"], String::from_utf8_lossy(value).as_ref(), "{line}");
            assert_eq!((&read["status"], &read["request_id"]), (&200.into(), &"0123".into()));
            assert!(read["us"].is_u64() && read["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        }
    }

    #[test]
    fn hostile_h63_a_blocked_writer_drops_lines_and_counts_them() {
        let (sender, receiver) = sync_channel(1);
        let log = Log::new(sender, Arc::default());
        for _ in 0..3 {
            for _ in 0..5 {
                log.add(Entry::begin(b"x", "192.0.2.1".parse().expect("an address")));
            }
            log.hand_over();
        }
        assert_eq!(log.dropped.load(Relaxed), 10);
        let first = receiver.recv().expect("the first piece");
        assert_eq!(first.iter().filter(|b| **b == b'\n').count(), 5);
    }
}
