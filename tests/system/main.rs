//! The whole system: real processes of this binary, real sockets, one module per behaviour.
//!
//! A test begins with a [`harness::House`], reads as a story, and ends all that it started, also when it fails.

mod certificates;
mod clients;
mod crash;
mod crash_points;
mod differential;
mod endpoint_tls;
mod fleet;
mod harness;
mod hostile_files;
mod hostile_proxy;
mod hostile_store;
mod input;
mod input_access;
mod input_build;
mod membership;
mod regressions;
mod rollout;
mod soak;
mod story;
