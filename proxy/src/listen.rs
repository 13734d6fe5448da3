//! Listening sockets: one per worker on the same address, so that the kernel spreads connections.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::settings::ProxyError;

/// Connections the kernel keeps for us until they are accepted.
const QUEUE: i32 = 1024;

/// `count` sockets on one address, and the address with its real port.
pub(crate) fn listen(address: SocketAddr, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), ProxyError> {
    let failed = |source| ProxyError::Listen { address, source };
    if address.port() != 0 {
        // With SO_REUSEPORT a second proxy of the same user would silently take half of the connections: a socket
        // without it cannot be bound while anybody listens.
        socket(address, false).map_err(failed)?;
    }
    let (mut bound, mut listeners) = (address, Vec::with_capacity(count));
    for _ in 0..count {
        let socket = socket(bound, true).map_err(failed)?;
        socket.listen(QUEUE).map_err(failed)?;
        let listener = TcpListener::from(socket);
        bound = listener.local_addr().map_err(failed)?;
        listeners.push(listener);
    }
    Ok((bound, listeners))
}

fn socket(address: SocketAddr, shared: bool) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_one_clear_sentence() {
        let (address, _held) = listen(SocketAddr::from(([127, 0, 0, 1], 0)), 2).expect("a free port");
        let error = listen(address, 2).expect_err("in use");
        assert_eq!(error.to_string(), format!("cannot listen on {address}: the port is in use by another process"));
    }
}
