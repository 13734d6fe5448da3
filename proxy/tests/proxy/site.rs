//! A proxy with one recording upstream behind it, and whether both are as they were.
//!
//! Main type: [`Site`].

use std::net::SocketAddr;

use api::fleet::Protocol;

use crate::recorder::Recorder;
use crate::support::{TestProxy, hello, settings, until};
use crate::wire::{Said, Wire};

/// See the module.
pub(crate) struct Site {
    pub(crate) proxy: TestProxy,
    pub(crate) upstream: Recorder,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) async fn start(upstream: Recorder) -> Self {
        Self::with(upstream, |_| {}).await
    }

    /// With other settings than the default ones.
    pub(crate) async fn with(upstream: Recorder, change: impl FnOnce(&mut proxy::Settings)) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let mut settings = settings(folder.path(), 1);
        change(&mut settings);
        let proxy = TestProxy::with(settings).await;
        proxy.apply(hello(Protocol::H1, &[(1, upstream.address, 1)]));
        Self { proxy, upstream, _folder: folder }
    }

    pub(crate) async fn wire(&self) -> Wire {
        Wire::connect(self.proxy.http).await
    }

    /// Sends bytes on a connection of their own and reads the answer.
    pub(crate) async fn says(&self, bytes: impl AsRef<[u8]>) -> Option<Said> {
        let mut wire = self.wire().await;
        wire.send(bytes).await;
        wire.answer().await
    }

    /// Sends a request with fields and reads the answer.
    pub(crate) async fn asks(&self, line: &str, fields: &str) -> Said {
        let mut wire = self.wire().await;
        wire.ask(line, fields).await;
        wire.answer().await.unwrap_or_else(|| panic!("no answer to {line} {fields:?}"))
    }

    /// A normal request is served.
    pub(crate) async fn serves(&self, after: &str) {
        let answer = self.asks("GET /normal HTTP/1.1", "Connection: close\r\n").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "after {after}: {answer:?}");
    }

    /// Every socket to a client is closed, and of those to the upstream at most two are kept for the next requests: a
    /// client has its answer a moment before its connection is given back.
    pub(crate) async fn settles(&self) {
        self.settles_but(0).await;
    }

    /// The same, with connections of clients that the test still holds.
    pub(crate) async fn settles_but(&self, held: usize) {
        let (clients, upstream) = (self.proxy.http, self.upstream.address);
        until("all descriptors are closed", || sockets(clients, upstream) <= (held, 2)).await;
    }
}

/// Sockets of this process that a proxy has to clients, and to an upstream.
pub(crate) fn sockets(proxy: SocketAddr, upstream: SocketAddr) -> (usize, usize) {
    const LISTENS: &str = "0A";
    let all = std::fs::read_to_string("/proc/self/net/tcp").expect("a table of sockets");
    // `sl local remote state … inode`; without inode nobody has it open.
    let open = all.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let open: Vec<_> = open.filter(|row| row[9] != "0" && row[3] != LISTENS).collect();
    let at = |place: usize, address: SocketAddr| {
        let port = format!(":{:04X}", address.port());
        open.iter().filter(|row| row[place].ends_with(&port)).count()
    };
    (at(1, proxy), at(2, upstream))
}
