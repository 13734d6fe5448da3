//! The control plane: keeps what happened, decides what should be, and tells proxies and agents.
//!
//! Must not know: how a request is forwarded or a process is run; it meets proxies and agents only in the contract.
//!
//! The rooms: [`core`] decides (pure), [`store`] keeps events, `engine` is the one thread where both meet, `fleet` and
//! `measure` hold what proxies report, `server` answers operators, proxies and agents, `sources` looks at repositories, [`build`]
//! makes releases, `shelf` has their artifacts, `retention` removes what nobody needs, [`files`] reads what people wrote, `keys`
//! holds what the whole fleet shares.

pub mod build;
mod builder;
mod certificates;
mod checks;
mod clocks;
pub mod core;
mod engine;
mod explain;
pub mod files;
mod fleet;
pub mod judge;
mod keys;
mod measure;
mod retention;
mod run;
mod secret;
mod selector;
mod server;
mod shelf;
mod sources;
mod status;
pub mod store;
mod trial;

pub use run::{ControllerError, Ready, Settings, run};
