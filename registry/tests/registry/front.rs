//! A relay in front of a registry that counts what passes, cuts, and flips bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What the relay does, and what it saw.
pub(crate) struct Told {
    /// Bytes that clients sent and that were passed on.
    pub(crate) sent: AtomicU64,
    /// After so many more bytes of clients all connections are cut, once. Below 0: not at all.
    pub(crate) cut_after: AtomicI64,
    /// Bytes that the registry sent and that were passed on.
    pub(crate) received: AtomicU64,
    /// After so many more bytes of the registry they are cut, once.
    pub(crate) cut_answers_after: AtomicI64,
    /// Of the registry's bytes so many are flipped, one in each so many of a connection.
    pub(crate) flips: AtomicI64,
    pub(crate) flip_each: AtomicU64,
    /// The connection with so many PATCHes from now is cut before anything of it is passed on. Below 1: none.
    pub(crate) refuse_patch: AtomicI64,
    pub(crate) refused: Notify,
    /// Connections for which there was no registry.
    pub(crate) unreachable: AtomicU64,
    /// How often it cut.
    pub(crate) cuts: AtomicU64,
}

pub(crate) struct Front {
    pub(crate) port: u16,
    pub(crate) told: Arc<Told>,
    accepting: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn start(registry: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let told = Arc::new(Told {
            sent: AtomicU64::new(0),
            cut_after: AtomicI64::new(-1),
            received: AtomicU64::new(0),
            cut_answers_after: AtomicI64::new(-1),
            flips: AtomicI64::new(0),
            flip_each: AtomicU64::new(0),
            refuse_patch: AtomicI64::new(0),
            refused: Notify::new(),
            unreachable: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        let shared = told.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(relay(client, SocketAddr::from(([127, 0, 0, 1], registry)), shared.clone()));
            }
        });
        Self { port, told, accepting }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(client: TcpStream, registry: SocketAddr, told: Arc<Told>) {
    let Ok(registry) = TcpStream::connect(registry).await else {
        told.unreachable.fetch_add(1, SeqCst);
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_registry, mut to_registry) = registry.into_split();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            // A request's head is a write of its own: the client waits for an answer before the next.
            if buffer.starts_with(b"PATCH ") && told.refuse_patch.fetch_sub(1, SeqCst) == 1 {
                told.cuts.fetch_add(1, SeqCst);
                told.refused.notify_one();
                return;
            }
            let is_cut = cuts(&told.cut_after, count);
            if to_registry.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            told.sent.fetch_add(count as u64, SeqCst);
            if is_cut {
                told.cuts.fetch_add(1, SeqCst);
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        // Of this connection: the first bytes are a head.
        let mut passed = 0;
        while let Ok(count @ 1..) = from_registry.read(&mut buffer).await {
            let each = told.flip_each.load(SeqCst).max(1);
            let here = usize::try_from((passed / each + 1) * each - passed).expect("small");
            if here < count && told.flips.load(SeqCst) > 0 {
                told.flips.fetch_sub(1, SeqCst);
                buffer[here] ^= 1;
            }
            passed += count as u64;
            let is_cut = cuts(&told.cut_answers_after, count);
            if to_client.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            told.received.fetch_add(count as u64, SeqCst);
            if is_cut {
                told.cuts.fetch_add(1, SeqCst);
                return;
            }
        }
    };
    // Either end ends both.
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

/// Whether these bytes are those after which it is cut.
fn cuts(after: &AtomicI64, count: usize) -> bool {
    let count = i64::try_from(count).expect("small");
    let left = after.fetch_sub(count, SeqCst);
    (0..count).contains(&left)
}
