//! Releases: asked for, added, built or not, and removed at last.
//!
//! Must not know: which build is next (`core::queue`), or what nobody needs any more (`core::keep`): it asks them.

mod add;
mod build;
mod cancel;
mod request;
mod trim;

use api::{ReleaseName, ReleaseNumber, ServiceName};

pub(super) use add::add;
pub(super) use build::{begin_build, end_build};
pub(super) use cancel::{cancel, overtake};
pub(super) use request::{request, retry};
pub(super) use trim::{forget, trim};

use crate::core::command::Refusal;
use crate::core::state::{Release, Service, State};

fn service<'a>(state: &'a State, name: &ServiceName) -> Result<&'a Service, Refusal> {
    state
        .service(name)
        .ok_or_else(|| Refusal::Unknown(format!("there is no service {name}: apply its pointsman.toml first")))
}

fn release<'a>(state: &'a State, name: &ReleaseName) -> Result<&'a Release, Refusal> {
    state.release(name).ok_or_else(|| Refusal::Unknown(format!("there is no release {name}")))
}

/// The next number: never one that was given before, whatever was forgotten since.
fn next(service: &Service) -> ReleaseNumber {
    service.newest.map_or(ReleaseNumber::FIRST, ReleaseNumber::next)
}

#[cfg(test)]
mod tests;
