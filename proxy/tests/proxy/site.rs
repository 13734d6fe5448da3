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

    /// See [`is_as_before`].
    pub(crate) async fn is_as_before(&self) {
        self.is_as_before_but(0).await;
    }

    /// The same, with connections of clients that the test still holds.
    pub(crate) async fn is_as_before_but(&self, held: usize) {
        serves(&self.proxy).await;
        self.settles_but(held).await;
    }

    /// Every socket to a client is closed, and of those to the upstream at most two are kept for the next requests: a
    /// client has its answer a moment before its connection is given back.
    pub(crate) async fn settles(&self) {
        self.settles_but(0).await;
    }

    /// The same, with connections of clients that the test still holds.
    pub(crate) async fn settles_but(&self, held: usize) {
        settles(&self.proxy, self.upstream.address, held).await;
    }
}

/// What holds after every hostile case: the proxy serves a normal request, and then its sockets are as before.
///
/// The kernel says so, whose table has the proxy's ports. Of memory nothing can be said in a process that many tests
/// share: proxies apart show that.
pub(crate) async fn is_as_before(proxy: &TestProxy, upstream: SocketAddr) {
    serves(proxy).await;
    settles(proxy, upstream, 0).await;
}

async fn serves(proxy: &TestProxy) {
    let mut wire = Wire::connect(proxy.http).await;
    wire.ask(&format!("{}GET /normal HTTP/1.1", proxy.introduction), "Connection: close\r\n").await;
    assert_eq!(wire.answer().await.expect("a normal request is served").status, 200);
}

pub(crate) async fn settles(proxy: &TestProxy, upstream: SocketAddr, held: usize) {
    until("all descriptors are closed", || {
        let (clients, kept) = sockets(proxy.http, upstream);
        let tls = proxy.engine.bound().https.map_or(0, |https| sockets(https, upstream).0);
        clients + tls <= held && kept <= 2
    })
    .await;
}

/// Sockets of this process that a proxy has to clients, and to an upstream.
fn sockets(proxy: SocketAddr, upstream: SocketAddr) -> (usize, usize) {
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
