//! The parts of Pointsman in this process: `controller`, `proxy`, `agent`, and what works on their folders.
//!
//! Must not know: what the parts do. It reads their arguments, starts them, tells where they listen and stops them.
//! The only room of the command that calls their crates.

pub(crate) mod agent;
pub(crate) mod controller;
pub(crate) mod init;
mod local;
mod member;
pub(crate) mod proxy;
mod stay;
