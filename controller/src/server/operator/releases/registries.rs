//! Registries that artifacts lie in, asked for one answer.

use std::time::Duration;

use registry::{Found, Place, Wanted};

use crate::build;
use crate::server::Shared;

/// Somebody waits for the answer: a registry that needs longer is as good as away.
const ANSWER: Duration = Duration::from_secs(60);

impl Shared {
    /// What a registry has there. The operator's registry is asked as somebody, and so are those that docker's file knows;
    /// without one, as nobody.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn in_registry(&self, at: &Place, wanted: &Wanted) -> Result<Found, String> {
        let spec = self.engine.read(|engine| engine.state.releases.registry.clone()).await;
        let ask = async {
            let registry = match spec.flatten() {
                Some(spec) => self.shelf.registry_of(&spec).await?,
                None => build::anybody(at.clone()),
            };
            Box::pin(registry.manifest(at, wanted)).await.map_err(|problem| problem.why.to_string())
        };
        let late = |_| format!("the registry did not answer within {} s", ANSWER.as_secs());
        tokio::time::timeout(ANSWER, ask).await.map_err(late)?
    }
}
