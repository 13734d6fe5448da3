//! `policy`: who may pass, checked and tried before it is applied. Only `explain` asks a controller.

mod cases;
mod check;

use std::path::PathBuf;

use api::operator::File;
use clap::{Args, Subcommand};
use controller::core::spec::AccessSpec;
use controller::files::{self, Attached, Mistake};
use policies::policy::{AttributeTypes, schema};

use crate::exit::{Ended, Exit, Failure};
use crate::operator::Session;
use crate::output::print_line;
use crate::verbs::{apply, explain};

/// Check and try policies before they are applied.
///
/// Policies are written in Cedar (docs.cedarpolicy.com), in files that access.toml names.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    verb: PolicyVerb,
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Tell every mistake in files about who may pass, each with file, line and column.
    ///
    /// Also warns of what is right and never applies. Exit code 1 if there are mistakes; warnings are none.
    ///
    /// Each file is checked by itself, with those that it names. What it takes the controller to know, only `pointsman apply
    /// --plan` tells: stages that ask for less than their environment, environments that are not there, issuers that
    /// applications are known by, and whether a reason is needed.
    #[command(after_long_help = "Examples:
  pointsman policy check -f access.toml
  pointsman policy check -f access.toml -f staging.toml -f production.toml")]
    Check {
        /// access.toml, and files of environments and services to be checked with it; - reads from stdin.
        #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Run cases: who does what, and what is expected.
    ///
    /// A case goes the way of a request: may the caller know of the stage, has it what the stage needs, may it do this.
    /// Cases that end otherwise are shown with the policies that decided; exit code 1 if there are any.
    #[command(after_long_help = "A file of cases:
  schema = 1

  [[case]]
  name = \"staff may read\"
  user = { issuer = \"corp\", subject = \"alice\", groups = [\"staff\"], attributes = { department = \"sales\" } }
  application = { name = \"portal\", groups = [\"partners\"] }
  stage = \"hello/staging\"
  does = \"GET /orders\"
  expect = \"allowed\"

`user` and `application` may be left out: there is none, then. `does` is \"discover\", \"read\", \"write\", \"GET /path\" or
another method in capitals, \"rpc /pkg.Service/Method\", \"upgrade /path\", \"preflight /path\", \"check /path\", or \"use r42\"
(GET / by the release's own host). `expect` is \"allowed\", \"hidden\", \"unauthenticated\" or \"forbidden\". Of the stage:
`public = true`, `credentials = [\"application\", \"user\"]` (what it needs; default both), `denial = \"explicit\"`; of the client:
`client = \"10.0.0.7\"`.

Example:
  pointsman policy test -f access.toml cases.toml")]
    Test {
        /// access.toml.
        #[arg(short, long = "file", value_name = "FILE")]
        file: PathBuf,
        /// Files of cases.
        #[arg(value_name = "CASES", required = true)]
        cases: Vec<PathBuf>,
    },
    Explain(explain::ExplainPolicyArgs),
    /// Print the schema that policies are checked against.
    ///
    /// In Cedar's language; with access.toml, users have the attributes that its issuers give.
    #[command(after_long_help = "Example:\n  pointsman policy schema -f access.toml > pointsman.cedarschema")]
    Schema {
        /// access.toml.
        #[arg(short, long = "file", value_name = "FILE")]
        file: Option<PathBuf>,
    },
}

pub(crate) async fn run(args: PolicyArgs, session: &Session) -> Ended {
    match args.verb {
        PolicyVerb::Explain(args) => explain::policy(args, session).await,
        PolicyVerb::Check { files } => check::run(&files, &session.output),
        PolicyVerb::Test { file, cases } => cases::run(&file, &cases, &session.output),
        PolicyVerb::Schema { file } => {
            let attributes = match file {
                Some(file) => access(&file)?.attribute_types(),
                None => AttributeTypes::new(),
            };
            print_line(schema(&attributes).trim_end())?;
            Ok(Exit::Done)
        }
    }
}

/// A file that was given, with those that it names.
fn parse(file: &File, all: &[File]) -> Result<files::File, Vec<Mistake>> {
    let attached = |written: &str| {
        let found = all.iter().find(|other| other.named_by == file.name && other.written == written)?;
        Some(Attached { name: &found.name, text: &found.text })
    };
    files::parse_with(&file.name, &file.text, &attached)
}

/// Reads access.toml with the files that it names.
fn access(path: &std::path::Path) -> Result<AccessSpec, Failure> {
    let all = apply::with_named(apply::read_all(&[path.to_owned()])?)?;
    let file = all.iter().find(|file| file.named_by.is_empty()).expect("it was read, and nobody names it");
    match parse(file, &all) {
        Ok(files::File::Access(spec)) => Ok(spec),
        Ok(_) => Err(Failure::refused(format!("{}: it does not say who may pass: {IS_ACCESS}", file.name))),
        Err(mistakes) => {
            let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
            Err(Failure::refused(lines.join("\n")))
        }
    }
}

/// What such a file has.
const IS_ACCESS: &str = "accepted is a file with `policies = [...]` or [issuer.NAME], such as access.toml";

#[cfg(test)]
mod tests;
