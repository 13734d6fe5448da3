//! One connection of a client, from the socket to its protocol: TLS, and which protocol it is.
//!
//! Main function: [`serve`].

use std::rc::Rc;
use std::sync::Arc;

use certs::client::Client;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{LazyConfigAcceptor, TlsStream, server};

use super::connection::Connection;
use super::stream::Stream;
use super::{Exchange, http1, http2};
use crate::handshake::{self, Way};
use crate::proxy_protocol;
use crate::totals::Cut;

/// What a client sends first on HTTP/2 (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that were read before the protocol was known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ahead {
    bytes: [u8; PREFACE.len()],
    start: usize,
    end: usize,
}

impl Ahead {
    /// Takes at most `most` of them away.
    pub(super) fn take(&mut self, most: usize) -> &[u8] {
        let start = self.start;
        self.start = self.end.min(start + most);
        &self.bytes[start..self.start]
    }
}

/// Serves a connection until it ends. `tls`: how hands are shaken with everybody; `None`: it is in clear. `exchange` answers
/// each request.
pub(crate) async fn serve(
    mut stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    connection: Rc<Connection>,
    exchange: impl Exchange,
) {
    // It only fails on a socket that is dead already.
    let _ = stream.set_nodelay(true);
    if connection.listener.proxy_protocol && !introduce(&mut stream, &connection).await {
        return;
    }
    let opened = match tls {
        // On the heap, and gone once it is done: an idle connection is as large as the largest thing it may wait for.
        Some(common) => Box::pin(handshake(stream, common, &connection, &exchange)).await,
        None => look_ahead(stream, &connection).await,
    };
    let Some((stream, mut ahead, is_http_2)) = opened else { return };
    if is_http_2 {
        Box::pin(http2::server::serve(stream, ahead, connection, exchange)).await;
    } else {
        let ahead = ahead.take(usize::MAX);
        connection.run(http1::server::serve(stream, ahead, connection.clone(), exchange)).await;
    }
}

/// Reads whose connection it is; false: nobody's that is served.
async fn introduce(stream: &mut TcpStream, connection: &Connection) -> bool {
    let peer = connection.peer();
    if !peer.is_trusted {
        tracing::debug!(peer = %peer.text, "closed: only trusted peers may use a listener with PROXY protocol");
        connection.count(Cut::ProxyProtocol);
        return false;
    }
    let header = tokio::select! {
        header = tokio::time::timeout(connection.limits().first_bytes, proxy_protocol::read(stream)) => header,
        () = connection.leaving() => return false,
    };
    match header {
        Ok(Ok(Some(client))) => connection.speaks_for(client.ip()),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::debug!(peer = %peer.text, %error, "closed");
            connection.count(Cut::ProxyProtocol);
            return false;
        }
        Err(_) => {
            connection.count(Cut::FirstBytes);
            return false;
        }
    }
    true
}

async fn handshake(
    stream: TcpStream,
    common: Arc<ServerConfig>,
    connection: &Connection,
    exchange: &impl Exchange,
) -> Option<(Stream, Ahead, bool)> {
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(connection.limits().handshake, shake(stream, common, connection, exchange)) => shaken,
        () = connection.leaving() => return None,
    };
    let Ok(shaken) = shaken else {
        connection.count(Cut::Handshake);
        return None;
    };
    let stream = match shaken {
        Ok(stream) => stream?,
        Err(error) => {
            match handshake::reason(&error) {
                Some(reason) => connection.count_unshaken(reason, &error),
                None => tracing::debug!(%error, "TLS handshake failed"),
            }
            return None;
        }
    };
    let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Some((Stream::Tls(Box::new(TlsStream::Server(stream))), Ahead::default(), is_http_2))
}

/// Shakes hands in the way that the client's first words ask for; `None`: and that was all.
async fn shake(
    stream: TcpStream,
    common: Arc<ServerConfig>,
    connection: &Connection,
    exchange: &impl Exchange,
) -> std::io::Result<Option<server::TlsStream<TcpStream>>> {
    let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let way = {
        let hello = begun.client_hello();
        if let Some(name) = hello.server_name() {
            connection.set_sni(name);
        }
        exchange.way(&hello)
    };
    match way {
        Way::Common => begun.into_stream(common).await.map(Some),
        Way::Asking(clients) => {
            let stream = begun.into_stream(clients.config().clone()).await?;
            // Allocates: what was shown is kept, to be looked at again when those who are trusted change.
            let client = stream.get_ref().1.peer_certificates().and_then(Client::read);
            connection.admission.admit(clients, client);
            Ok(Some(stream))
        }
        Way::Proof(config) => {
            // The authority has seen what it came for (RFC 8737 §3).
            begun.into_stream(config).await?.shutdown().await?;
            Ok(None)
        }
    }
}

/// Reads until the bytes are the preface or cannot become it. Nothing of a protocol's state exists before that: a
/// connection that only waits stays small.
async fn look_ahead(mut stream: TcpStream, connection: &Connection) -> Option<(Stream, Ahead, bool)> {
    let mut ahead = Ahead::default();
    let reading = async {
        while ahead.end < PREFACE.len() && ahead.bytes[..ahead.end] == PREFACE[..ahead.end] {
            match stream.read(&mut ahead.bytes[ahead.end..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => {
                    connection.begin();
                    ahead.end += read;
                }
            }
        }
        ahead.end > 0
    };
    let came = tokio::select! {
        came = tokio::time::timeout(connection.limits().first_bytes, reading) => came,
        () = connection.leaving() => return None,
    };
    let Ok(came) = came else {
        connection.count(Cut::FirstBytes);
        return None;
    };
    let is_http_2 = ahead.bytes == *PREFACE;
    came.then_some((Stream::Clear(stream), ahead, is_http_2))
}
