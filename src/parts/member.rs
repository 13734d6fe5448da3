//! Who this proxy or agent is: its identity from its folder, or by a one-time token.

use std::path::Path;

use api::JoinToken;
use certs::fleet::{Identity, Role};
use clap::Args;

use super::stay::SOFTWARE;
use crate::exit::Failure;

/// How a member comes into the fleet.
#[derive(Debug, Args)]
pub(crate) struct Joining {
    /// The one-time token that `pointsman join` printed; needed at the first start only.
    ///
    /// Once the data folder has an identity the token is not looked at, so the same command line can start it again.
    /// From the environment it stays out of the list of processes.
    // Text, because the library repeats a value that is not accepted, and this one is a secret.
    #[arg(long = "join", value_name = "TOKEN", env = "POINTSMAN_JOIN", hide_env_values = true)]
    token: Option<String>,
}

impl Joining {
    /// The identity in `data`, made by joining when there is none.
    pub(super) async fn identity(&self, data: &Path, role: Role) -> Result<Identity, Failure> {
        let failed = |error: certs::CertsError| Failure::refused(error.to_string());
        let identity = match (Identity::load(data).map_err(failed)?, &self.token) {
            (Some(identity), _) => identity,
            (None, Some(token)) => {
                let token: JoinToken =
                    token.parse().map_err(|error: api::NotAccepted| Failure::usage(error.to_string()))?;
                certs::fleet::join(&token, data, SOFTWARE).await.map_err(failed)?
            }
            (None, None) => {
                return Err(Failure::refused(format!(
                    "{} has no identity yet: make a one-time token with `pointsman join {role} --name NAME` and give it \
                     with `--join TOKEN`",
                    data.display()
                )));
            }
        };
        if identity.role() != role {
            return Err(Failure::refused(format!(
                "{} belongs to the {} {}: a {role} needs a folder and a token of its own",
                data.display(),
                identity.role(),
                identity.name()
            )));
        }
        Ok(identity)
    }
}
