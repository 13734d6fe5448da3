//! What the benchmarks share: real processes, a client, loads, and figures.
//!
//! Must not know: which figure is good. Nothing here compares a time with a target; people do, with the README.
//!
//! The rooms: [`process`] (children), [`fleet`] (those of the `pointsman` binary), [`operator`] (the API as the command uses it),
//! [`upstream`] (what the proxies forward to), [`turning`] (the same, but it can turn bad), [`client`] and [`load`] (requests), [`disk`] (what one fsync costs),
//! [`distribution`] and [`report`] (how figures are told).

pub mod client;
pub mod disk;
pub mod distribution;
pub mod fleet;
pub mod load;
pub mod operator;
pub mod process;
pub mod report;
pub mod turning;
pub mod upstream;

/// What went wrong, a sentence: a benchmark has nobody to handle it.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;
