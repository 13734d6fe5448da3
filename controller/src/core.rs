//! The control plane's decisions: state is the fold of events, commands become events or a refusal, and what is due
//! follows from state and observations.
//!
//! Must not know: clocks, files, sockets, randomness, TOML. `now_ms` and secrets' hashes are arguments; equal arguments
//! give equal answers, so that `--plan`, a replay and a simulation are the same code.
//!
//! Main functions: [`rollout::next`] (what a rollout does by itself), [`back::back`] (where a rollback goes), [`decide()`] (command -> events | refusal), [`State::evolve`] (event -> state), [`due()`] (what time and
//! observations ask for), [`resources::of_stage`] and [`desired::of_agent`] (what proxies and agents should have).

pub mod back;
pub mod command;
pub mod decide;
pub mod desired;
pub mod due;
pub mod event;
mod evolve;
pub mod keep;
pub mod observe;
pub mod queue;
pub mod resources;
pub mod rollout;
pub mod spec;
pub mod state;

pub use command::{Command, Context, Decision, NewApplication, Refusal};
pub use decide::decide;
pub use due::{Due, due};
pub use event::{EVENT_SCHEMA, Event, KeyMade};
pub use evolve::Mark;
pub use observe::Observations;
pub use state::State;

#[cfg(test)]
pub(crate) mod evolve_test;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
