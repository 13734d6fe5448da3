//! `service`: what is built and serves.

use api::ServiceName;
use api::operator::{ListRequest, ResolveStageRequest};
use clap::{Args, Subcommand};

use super::environment::unknown;
use crate::exit::{Ended, Exit};
use crate::operator::{Client, Session, asking};
use crate::render;
use crate::values::Selector;

/// Show the services.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    verb: ServiceVerb,
}

#[derive(Debug, Subcommand)]
enum ServiceVerb {
    /// List the services.
    #[command(after_long_help = "Example:\n  pointsman service list")]
    List,
    /// Show one service with its stages.
    #[command(after_long_help = "Example:\n  pointsman service show hello")]
    Show {
        /// Its name.
        name: ServiceName,
    },
    /// Show what a service's file comes to in each stage, or where one stage is reached and by what.
    #[command(
        after_long_help = "Examples:\n  pointsman service resolve hello\n  pointsman service resolve hello/staging -o json"
    )]
    Resolve {
        /// A service, or one of its stages, such as hello/staging.
        #[arg(value_name = "SERVICE[/ENVIRONMENT]")]
        name: Selector,
    },
}

pub(crate) async fn run(args: ServiceArgs, session: &Session) -> Ended {
    let mut client = session.client()?;
    match args.verb {
        ServiceVerb::List => {
            let reply = client.calls.list_services(asking(ListRequest {})).await;
            let list = reply.map_err(|status| client.failure(&status))?.into_inner();
            session.output.show(&list, |_| render::services(&list))?;
        }
        ServiceVerb::Show { name } => {
            let service = one(&mut client, name.as_str()).await?;
            session.output.show(&service, |_| render::service(&service))?;
        }
        ServiceVerb::Resolve { name: Selector(name) } if name.contains('/') => {
            let request = ResolveStageRequest { stage: name };
            let reply = client.calls.resolve_stage(asking(request)).await;
            let stage = reply.map_err(|status| client.failure(&status))?.into_inner();
            session.output.show(&stage, |_| render::stage_resolved(&stage))?;
        }
        ServiceVerb::Resolve { name: Selector(name) } => {
            let service = one(&mut client, &name).await?;
            let reply = client.calls.list_environments(asking(ListRequest {})).await;
            let mut all = reply.map_err(|status| client.failure(&status))?.into_inner().environments;
            all.retain(|environment| service.stages.iter().any(|stage| stage.environment == environment.name));
            let resolved = Resolved { service: &service, environments: &all };
            session.output.show(&resolved, |_| render::resolved(&service, &all))?;
        }
    }
    Ok(Exit::Done)
}

/// A service with the environments of its stages.
#[derive(serde::Serialize)]
struct Resolved<'a> {
    service: &'a api::operator::Service,
    environments: &'a [api::operator::Environment],
}

async fn one(client: &mut Client, name: &str) -> Result<api::operator::Service, crate::exit::Failure> {
    let reply = client.calls.list_services(asking(ListRequest {})).await;
    let services = reply.map_err(|status| client.failure(&status))?.into_inner().services;
    let names: Vec<String> = services.iter().map(|service| service.name.clone()).collect();
    let found = services.into_iter().find(|service| service.name == name);
    found.ok_or_else(|| unknown("service", name, names.iter().map(String::as_str)))
}
