//! Messages as they come on a raw socket, from either side: heads, chunks and bodies, and what is left behind them.
//!
//! Main trait: [`Reading`], which a connection implements by its buffer and one way to read more.

use crate::recorder::field;

/// A connection that is read from.
pub(crate) trait Reading {
    /// Read and not used yet.
    fn ahead(&mut self) -> &mut Vec<u8>;

    /// Reads once more; false when nothing comes any more.
    async fn more(&mut self) -> bool;

    /// So many bytes; fewer when the connection ends.
    async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.ahead().len() < count && self.more().await {}
        let there = count.min(self.ahead().len());
        self.ahead().drain(..there).collect()
    }

    /// Up to `end` and with it; `None`: the connection ended before.
    async fn until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.ahead().windows(end.len()).position(|window| window == end.as_bytes()) {
                return Some(String::from_utf8_lossy(&self.bytes(at + end.len()).await).into_owned());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// A chunk without its size; empty: the last; `None`: it was cut.
    async fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = usize::from_str_radix(self.until("\r\n").await?.trim_end(), 16).expect("a size");
        let chunk = self.bytes(size).await;
        if size > 0 {
            self.until("\r\n").await?;
        }
        (chunk.len() == size).then_some(chunk)
    }

    /// The body behind a head that says where it ends, and the lines behind that. `None`: it was cut; `Some(None)`: the
    /// head does not say.
    async fn framed(&mut self, head: &str) -> Option<Option<(Vec<u8>, String)>> {
        let (mut body, mut trailers) = (Vec::new(), String::new());
        if let Some(coding) = field(head, "transfer-encoding") {
            assert_eq!((coding.as_str(), field(head, "content-length")), ("chunked", None), "{head}");
            loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    break;
                }
                body.extend_from_slice(&chunk);
            }
            loop {
                let line = self.until("\r\n").await?;
                if line == "\r\n" {
                    break;
                }
                trailers.push_str(&line);
            }
        } else if let Some(length) = field(head, "content-length") {
            let length = length.parse().expect("a length");
            body = self.bytes(length).await;
            if body.len() < length {
                return None;
            }
        } else {
            return Some(None);
        }
        Some(Some((body, trailers)))
    }
}
