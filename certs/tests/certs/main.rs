//! The room against what it has to get on with: a real ACME server (Pebble), real commands, real listeners.

mod answers;
mod front;
mod hook;
mod issue;
mod pebble;
mod renewal;
mod response;
