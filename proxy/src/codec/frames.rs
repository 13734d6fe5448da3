//! Where the frames of a WebSocket end, on their way from an endpoint to a client: only there something of ours may stand.
//!
//! Must not know: what frames say, or how they are moved. Sees bytes as they pass, and holds at most the 10 of a head.
//!
//! Source: RFC 6455 §5.2 (frames), §5.4 (between the frames of a message there may be control frames), §7.4.2 (4000 to 4999
//! are for private use). Main type: [`Frames`]; [`close`], the frame that ends it.

/// Longest head without a mask: two bytes, and eight of length.
const HEAD: usize = 10;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 0x8;

/// What has passed of a WebSocket.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Frames {
    head: [u8; HEAD],
    /// So much of the head has passed.
    seen: usize,
    /// So much of the payload has not.
    left: u64,
    closed: bool,
    lost: bool,
}

impl Frames {
    /// These bytes have passed.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.lost {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Whether a frame has just ended, or none has begun.
    pub(crate) fn is_between(&self) -> bool {
        self.seen == 0 && self.left == 0 && !self.lost
    }

    /// Whether the endpoint has said that it is over: nothing may follow that.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// What passed is no WebSocket of a server: nobody knows where anything ends.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// How many of these bytes belong to the frame that has begun: those up to its end, or all.
    pub(crate) fn rest(&self, bytes: &[u8]) -> usize {
        let (mut frames, mut used) = (*self, 0);
        while used < bytes.len() && !frames.is_between() && !frames.lost {
            used += frames.step(&bytes[used..]);
        }
        used
    }

    /// Takes at least one byte, and none behind the end of a frame.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return taken;
        }
        self.head[self.seen] = bytes[0];
        self.seen += 1;
        self.read();
        1
    }

    /// Reads the head once all of it is here.
    fn read(&mut self) {
        if self.seen < 2 {
            return;
        }
        let extended = match self.head[1] & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // What a server sends has no mask (§5.1).
        self.lost = self.head[1] & MASKED != 0;
        if self.seen < 2 + extended || self.lost {
            return;
        }
        self.left = match extended {
            0 => self.head[1].into(),
            _ => self.head[2..2 + extended].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        self.lost = self.left >> 63 != 0;
        self.closed |= self.head[0] & 0xf == CLOSE;
        self.seen = 0;
    }
}

/// A frame that closes it, with this code and this reason (§5.5.1): at most 123 bytes.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(2 + reason.len()).unwrap_or(u8::MAX);
    debug_assert!(length <= 125, "a control frame has at most 125 bytes");
    let mut frame = vec![0x80 | CLOSE, length];
    frame.extend(code.to_be_bytes());
    frame.extend(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of a server.
    fn frame(opcode: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![opcode];
        match payload {
            0..126 => frame.push(payload as u8),
            126..65_536 => {
                frame.push(126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + payload, 0x81);
        frame
    }

    #[test]
    fn frames_end_where_their_heads_say() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let bytes = frame(0x82, payload);
            let mut frames = Frames::default();
            for (place, byte) in bytes.iter().enumerate() {
                assert!(frames.is_between() == (place == 0), "{payload}: {place}");
                frames.pass(&[*byte]);
            }
            assert!(frames.is_between() && !frames.is_closed(), "{payload}");
        }
    }

    #[test]
    fn frames_of_clients_and_nonsense_are_told_from_frames_of_servers() {
        for (bytes, lost, closed) in [
            (&[0x81, 0x80, 1, 2, 3, 4][..], true, false),
            (&[0x81, 0xff], true, false),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], true, false),
            (&[0x82, 127, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false, false),
            (&[0x89, 0], false, false),
            (&[0x88, 0], false, true),
            (&[0x88, 2, 3, 0xe8], false, true),
            (b"HTTP/1.1 200 OK\r\n\r\n", false, true),
        ] {
            let mut frames = Frames::default();
            frames.pass(bytes);
            assert_eq!((frames.is_lost(), frames.is_closed()), (lost, closed), "{bytes:?}");
            assert!(!lost || !frames.is_between(), "{bytes:?}");
        }
    }

    #[test]
    fn frames_that_close_are_frames() {
        let frame = close(4401, "no longer allowed");
        assert_eq!(&frame[..4], [0x88, 19, 0x11, 0x31]);
        let mut frames = Frames::default();
        frames.pass(&frame);
        assert!(frames.is_between() && frames.is_closed());
    }

    proptest! {
        #[test]
        fn frames_end_at_the_same_places_however_their_bytes_come(
            sizes in proptest::collection::vec(prop_oneof![0_usize..300, 65_000_usize..70_000], 1..8),
            cuts in proptest::collection::vec(1_usize..40_000, 1..40),
        ) {
            let all: Vec<Vec<u8>> = sizes.iter().map(|size| frame(0x02, *size)).collect();
            let bytes = all.concat();
            let ends: Vec<usize> =
                all.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let (mut frames, mut place) = (Frames::default(), 0);
            for cut in cuts.iter().cycle() {
                let next = (place + cut).min(bytes.len());
                frames.pass(&bytes[place..next]);
                place = next;
                prop_assert_eq!(frames.is_between(), ends.contains(&place));
                // What is left of the frame that has begun is exactly up to its end.
                let end = ends.iter().find(|end| **end >= place).copied().unwrap_or(place);
                let end = if frames.is_between() { place } else { end };
                prop_assert_eq!(frames.rest(&bytes[place..]), end - place);
                if place == bytes.len() {
                    break;
                }
            }
        }

        #[test]
        fn hostile_frames_of_any_bytes_are_survived(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let (mut frames, mut whole) = (Frames::default(), Frames::default());
            for piece in &pieces {
                let rest = frames.rest(piece);
                prop_assert!(rest <= piece.len());
                frames.pass(piece);
            }
            whole.pass(&pieces.concat());
            prop_assert_eq!((frames.is_between(), frames.is_lost()), (whole.is_between(), whole.is_lost()));
        }
    }
}
