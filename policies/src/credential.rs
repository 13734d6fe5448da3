//! What a request presents, and who that is.
//!
//! Must not know: policies, stages, or where keys come from.
//!
//! The rooms, in the order in which a request meets them: `identity` (fields to standings), `application` with [`api_key`],
//! `issuer` with `token` (its form), `keys`, `algorithm` and `claims` (what it says, by the issuer's rules). [`assertion`] is
//! what endpoints are told, [`denial`] what operators are; `fault` has every reason why a credential may be refused.
//!
//! INVARIANT: no check has a way round it. A token is a user only after its signature, by a key of the issuer that it names,
//! with an algorithm that fits the key and is accepted from that issuer.
//!
//! Sources: RFC 7519 (JWT), RFC 7515 (JWS), RFC 7517 (JWK), RFC 8725 (best practices), RFC 6750 (bearer tokens).
//!
//! Main types: [`Access`], [`Presented`], [`Identity`].

mod algorithm;
pub mod api_key;
mod application;
pub mod assertion;
mod claims;
pub mod denial;
mod fault;
mod identity;
mod issuer;
mod json;
mod keys;
mod self_test;
#[cfg(test)]
mod tests;
mod token;
mod user;

use std::sync::Arc;

pub use application::{Application, Applications};
pub use fault::Fault;
pub use identity::{Given, Identity, Presented, Standing, bearer};
pub use issuer::Issuers;
pub use keys::{KeyRing, KeySet, SET_BYTES};
pub use self_test::self_test;
pub use token::TOKEN_BYTES;
pub use user::{Attribute, User};

/// Who may be known, compiled: issuers and applications. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Shared by all snapshots in which no issuer changed.
    pub issuers: Arc<Issuers>,
    /// Shared by all snapshots in which no application changed.
    pub applications: Arc<Applications>,
}
