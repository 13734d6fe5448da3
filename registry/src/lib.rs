//! Artifacts by digest: in a folder on this disk, and in registries.
//!
//! Must not know: services, releases, stages, or what an artifact is for.
//!
//! Main types: [`Layout`], the folder; [`Registry`], a client of registries, with [`Settings`], [`Credentials`] and
//! [`RegistryError`]; [`Place`], where an artifact lies; [`Progress`] of what is on its way.

mod credentials;
mod distribution;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod layout;
mod place;
mod progress;

pub use credentials::Credentials;
pub use distribution::{Again, Found, Pushed, Registry, RegistryError, SILENCE, Settings, Why};
pub use layout::{Artifact, ArtifactError, COMPONENT_TYPE, Layout, PART_ANNOTATION, PART_TYPE, Swept};
pub use place::{Place, Reference, Tag, Wanted};
pub use progress::Progress;
