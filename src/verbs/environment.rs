//! `environment`: the places there are.

use api::EnvironmentName;
use api::operator::ListRequest;
use clap::{Args, Subcommand};

use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Session, asking};
use crate::render;

/// Show the environments.
#[derive(Debug, Args)]
pub(crate) struct EnvironmentArgs {
    #[command(subcommand)]
    verb: EnvironmentVerb,
}

#[derive(Debug, Subcommand)]
enum EnvironmentVerb {
    /// List the environments.
    #[command(after_long_help = "Example:\n  pointsman environment list")]
    List,
    /// Show one environment.
    #[command(after_long_help = "Example:\n  pointsman environment show staging")]
    Show {
        /// Its name.
        name: EnvironmentName,
    },
}

pub(crate) async fn run(args: EnvironmentArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    let reply = client.calls.list_environments(asking(ListRequest {})).await;
    let list = reply.map_err(|status| client.failure(&status))?.into_inner();
    match args.verb {
        EnvironmentVerb::List => session.output.show(&list, |_| render::environments(&list))?,
        EnvironmentVerb::Show { name } => {
            let one = list.environments.iter().find(|environment| environment.name == name.as_str());
            let one = one.ok_or_else(|| {
                unknown("environment", name.as_str(), list.environments.iter().map(|one| one.name.as_str()))
            })?;
            session.output.show(one, |_| render::environment(one))?;
        }
    }
    Ok(Exit::Done)
}

/// A name that is not among those there are.
pub(super) fn unknown<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.collect();
    match known.as_slice() {
        [] => Failure::refused(format!("there is no {what} {name}, nor any other yet")),
        known => Failure::refused(format!("there is no {what} {name}: there are {}", known.join(", "))),
    }
}
