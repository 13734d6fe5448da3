//! The whole system: real processes of this binary, real sockets, one module per behaviour.
//!
//! A test begins with a [`harness::House`], reads as a story, and ends all that it started, also when it fails.

// As the tests of that crate call it, whose Pebble is used here too.
extern crate certs as pointsman_certs;

mod access;
mod acme;
mod certificates;
mod checks;
mod clients;
mod crash;
mod crash_builds;
mod crash_points;
mod credentials;
mod differential;
mod endpoint_tls;
mod fleet;
mod guides;
mod handshakes;
mod harness;
mod hostile_files;
mod hostile_git;
mod hostile_proxy;
mod hostile_registry;
mod hostile_store;
mod input;
mod input_access;
mod input_build;
mod marks;
mod membership;
mod monitoring;
#[path = "../../certs/tests/certs/pebble.rs"]
#[allow(dead_code, reason = "the tests of certs use all of it")]
mod pebble;
mod regressions;
mod releases_fixes;
mod releases_images;
mod releases_queue;
mod releases_recipes;
mod releases_retention;
mod releases_triggers;
mod rollback;
mod rollout;
mod rollout_many;
mod rollout_steps;
mod soak;
mod story;
mod timing;
