//! The client of registries against Debian's docker-registry and skopeo, and against a registry of our own that keeps to the
//! letter and fails when it is told to. `scripts/setup` installs what is needed.

mod artifact;
mod auth;
mod docker;
mod front;
mod hostile;
mod memory;
mod pushed;
mod resumed;
mod strict;
mod tls;
