//! HTTP/1.0 and HTTP/1.1, ours on both sides (RFC 9110, RFC 9112): strict where the libraries forgive, because what two
//! servers read differently is how requests are smuggled past the one that decides.
//!
//! The rooms in the order in which bytes meet them: [`buffer`] holds what was read, [`head`] makes names and values of
//! it, [`framing`] says where the message ends, [`chunked`] and [`body`] read it to there, [`write`] sends on.
//! [`client`] and [`endpoint`] are the two kinds of connection; [`server`] answers a client request by request;
//! [`tunnel`] is what is left of HTTP after a 101.

mod body;
mod buffer;
pub(crate) mod chunked;
pub(crate) mod client;
pub(crate) mod endpoint;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod server;
pub(crate) mod target;
pub(super) mod tunnel;
pub(crate) mod write;
