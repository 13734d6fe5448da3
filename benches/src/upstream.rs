//! What the proxies forward to: a server in this process that answers everything with 200 and its name.
//!
//! It listens on all of this machine's loopback addresses, so that each of thousands of services can have an endpoint
//! of its own at one port.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted: thousands of health checks come within seconds.
const BACKLOG: u32 = 4096;

/// Starts a server on a free port, on a thread of its own, for as long as this process lives.
///
/// # Errors
/// A system without free ports or threads.
pub fn start(name: &'static str) -> io::Result<u16> {
    let answer: Arc<str> = words("200 OK", name).into();
    start_with(name, move || answer.clone())
}

/// The same with answers of one's own, a whole one for each request.
///
/// # Errors
/// A system without free ports or threads.
pub fn start_with(name: &'static str, answer: impl Fn() -> Arc<str> + Clone + Send + 'static) -> io::Result<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
    let entered = runtime.enter();
    let listener = socket.listen(BACKLOG)?;
    drop(entered);
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name(format!("upstream {name}")).spawn(move || {
        runtime.block_on(async {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(serve(stream, answer.clone()))),
                    Err(error) => eprintln!("upstream {name}: a connection could not be accepted: {error}"),
                }
            }
        })
    })?;
    Ok(port)
}

/// The loopback address of the `number`th endpoint (up to 250 * 250 * 250): 127.1.0.1, 127.1.0.2, ...
pub fn address(number: usize, port: u16) -> SocketAddr {
    let part = |by: usize| u8::try_from(number / by % 250).expect("below 250");
    SocketAddr::from(([127, 1 + part(62_500), part(250), 1 + part(1)], port))
}

/// A whole answer with the name of who gives it.
pub(crate) fn words(status: &str, name: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nx-release: {name}\r\n\r\n{name}", name.len())
}

/// Answers one request after the other. Nobody sends it a body.
async fn serve(mut stream: TcpStream, answer: impl Fn() -> Arc<str>) -> io::Result<()> {
    let (mut seen, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => seen.extend_from_slice(&piece[..read]),
        }
        while let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            seen.drain(..end + 4);
            stream.write_all(answer().as_bytes()).await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_addresses_of_their_own() {
        let text = |number| address(number, 80).to_string();
        assert_eq!(
            [text(0), text(249), text(250), text(62_500)],
            ["127.1.0.1:80", "127.1.0.250:80", "127.1.1.1:80", "127.2.0.1:80"]
        );
    }
}
