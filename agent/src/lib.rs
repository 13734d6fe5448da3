//! Runs releases on a host: fetches an artifact by digest, checks it, unpacks it, and keeps its process running.
//!
//! Must not know: services, weights or why something should run. The controller says what; the agent makes it so and
//! reports. It connects outwards only, and what it started goes on when agent or controller die.
//!
//! The rooms: `link` talks to the controller, `keeper` holds the wanted set, `instance` looks after one process,
//! `artifact` fetches and unpacks.

mod artifact;
mod file;
mod instance;
mod keeper;
mod link;
mod ports;
mod run;

pub use run::{AgentError, Settings, run};
