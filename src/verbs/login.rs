//! `login`: makes a context.

use std::io::Read;
use std::path::{Path, PathBuf};

use api::MemberName;
use api::operator::ListRequest;
use clap::Args;
use tonic::Code;

use crate::contexts::{self, Context, Contexts};
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Client, Session, asking};
use crate::render::Line;
use crate::values::HostPort;

/// Remember a controller, and the token or certificate for it.
///
/// The controller is asked once, so that a wrong address or token is found out now. The context becomes the current one
/// and is kept in a file that only you can read.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman login --from ./controller/operator.toml
  pointsman login controller.example.com:7400 --ca ca.pem --token-file ci.token
  pass show pointsman | pointsman login controller.example.com:7400 --ca ca.pem --token-file -")]
pub(crate) struct LoginArgs {
    /// The controller's address.
    #[arg(value_name = "ADDRESS", required_unless_present = "from", requires_all = ["ca", "token_file"])]
    address: Option<HostPort>,
    /// An operator file: operator.toml in the controller's data folder, or one of `token create --certificate`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["address", "ca", "token_file"])]
    from: Option<PathBuf>,
    /// The certificate of the controller's authority (PEM).
    #[arg(long, value_name = "FILE", requires = "address")]
    ca: Option<PathBuf>,
    /// A file with the token; - reads it from stdin.
    #[arg(long, value_name = "FILE|-", requires = "address")]
    token_file: Option<PathBuf>,
    /// The context's name; without it `local`, or the first part of the controller's host.
    #[arg(long, value_name = "NAME")]
    name: Option<MemberName>,
}

pub(crate) async fn run(args: LoginArgs, session: &Session) -> Ended {
    let context = match (&args.from, args.address, &args.ca, &args.token_file) {
        (Some(file), ..) => contexts::operator_file(file)?,
        (None, Some(address), Some(ca), Some(token)) => {
            let token = text(token)?.trim().to_owned();
            Context { controller: address.0, ca: text(ca)?, token, ..Context::default() }
        }
        _ => {
            return Err(Failure::usage(
                "accepted is `login --from FILE` or `login ADDRESS --ca FILE --token-file FILE`",
            ));
        }
    };
    let name = args.name.unwrap_or_else(|| contexts::name_for(&context.controller));
    let path = contexts::path()?;
    let mut contexts = Contexts::load(&path)?;
    let controller = context.controller.clone();
    check(&name, &context).await?;
    contexts.add(&name, context)?;
    contexts.save(&path)?;
    session.output.aside(&Line::plain(format!("{name} is the current context: the controller at {controller}")));
    Ok(Exit::Done)
}

/// Asks for something that every token may or may not see: only whether the token is known matters.
async fn check(name: &MemberName, context: &Context) -> Result<(), Failure> {
    let mut client = Client::new(name.as_str(), context)?;
    match client.calls.list_services(asking(ListRequest {})).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::PermissionDenied => Ok(()),
        Err(status) if status.code() == Code::Unauthenticated && context.certificate.is_empty() => {
            Err(Failure::refused(format!("the controller at {} does not accept this token", context.controller)))
        }
        Err(status) => Err(client.failure(&status)),
    }
}

fn text(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| Failure::file(Path::new("stdin"), &error))?;
    Ok(text)
}
