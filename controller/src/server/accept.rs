//! TCP and TLS before gRPC: handshakes run beside each other, each with a deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

/// As for the public side (limits by default: TLS handshake 10 s).
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once: a fleet of hundreds that comes back together waits a moment instead of exhausting memory.
const HANDSHAKES: usize = 256;
/// After a failed accept (no descriptors left, say): long enough not to spin, short enough not to be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections whose handshake is done.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(64);
    let (acceptor, permits) = (TlsAcceptor::from(tls), Arc::new(Semaphore::new(HANDSHAKES)));
    tokio::spawn(async move {
        while !sender.is_closed() {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let tcp = match accepted {
                Ok((tcp, _)) => tcp,
                Err(problem) => {
                    warn!(%problem, "a connection could not be accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                let _ = tcp.set_nodelay(true); // Only makes small messages slower when it fails.
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
                    Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                    Ok(Err(problem)) => debug!(%problem, "a TLS handshake failed"),
                    Err(_) => debug!("a TLS handshake took too long"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(receiver)
}
