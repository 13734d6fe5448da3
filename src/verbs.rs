//! The verbs that ask the controller, one file each: its arguments, its question, its answer.
//!
//! Must not know: how anything is drawn (`render`) or reached (`operator`).

pub(crate) mod access;
pub(crate) mod app;
pub(crate) mod apply;
pub(crate) mod cert;
mod change;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod environment;
pub(crate) mod explain;
pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod join;
pub(crate) mod login;
mod past;
pub(crate) mod policy;
pub(crate) mod promote;
pub(crate) mod release;
pub(crate) mod repository;
pub(crate) mod rollback;
pub(crate) mod rollout;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod unhold;
