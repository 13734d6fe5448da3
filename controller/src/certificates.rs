//! The certificates of environments: where they come from, when they are replaced, and what is kept of them.
//!
//! Must not know: how proxies are reached, or what a handshake is. It brings certificates; the engine publishes them.
//!
//! Main types: [`Shelf`], what is kept on disk; [`run`], which looks after every environment's source.

mod acme;
mod bring;
mod keeper;
mod ordering;
mod shelf;
pub(crate) mod told;
mod watched;

pub(crate) use bring::{Bringer, NotBrought, bring};
pub(crate) use keeper::{Order, Standing, names, run, take_lists};
pub(crate) use shelf::{Lists, Shelf, Shelved, read, write};
