//! What can be written on the command line. Each verb's own arguments stand in its file under `verbs` or `parts`.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::output::Format;
use crate::{parts, verbs};

/// Decides who may pass and which release serves them; moves releases through environments.
#[derive(Debug, Parser)]
#[command(name = "pointsman", version, disable_help_subcommand = true, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  refused or failed, nothing was changed
  2  the command line was not understood
  3  committed, but some proxies lag (they are named)
  4  on its way, not yet done; or nobody could tell whether it was done";

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Which controller: the name of a context, or an operator file.
    ///
    /// A name as `pointsman context list` shows it, or the path of an operator file (with a slash in it, or ending in
    /// .toml), such as the operator.toml in the controller's data folder. Without it the current context counts.
    #[arg(long, global = true, value_name = "NAME|FILE", env = "POINTSMAN_CONTEXT", help_heading = "Everywhere")]
    pub(crate) context: Option<String>,

    /// Form of the result.
    #[arg(short, long, global = true, value_enum, default_value = "text", help_heading = "Everywhere")]
    pub(crate) output: Format,
}

/// Why something is done; kept on record with it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reason {
    /// Why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Reason {
    /// As requests carry it.
    pub(crate) fn text(self) -> String {
        self.reason.unwrap_or_default()
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Init(parts::init::InitArgs),
    Controller(parts::controller::ControllerArgs),
    Proxy(parts::proxy::ProxyArgs),
    Agent(parts::agent::AgentArgs),
    Join(verbs::join::JoinArgs),
    Login(verbs::login::LoginArgs),
    Context(verbs::context::ContextArgs),
    Demo(DemoArgs),
    Completions(verbs::completions::CompletionsArgs),

    Apply(verbs::apply::ApplyArgs),
    Environment(verbs::environment::EnvironmentArgs),
    Service(verbs::service::ServiceArgs),
    Repository(verbs::repository::RepositoryArgs),
    Status(verbs::status::StatusArgs),

    Release(verbs::release::ReleaseArgs),

    Promote(verbs::promote::PromoteArgs),
    Rollout(verbs::rollout::RolloutArgs),
    Rollback(verbs::rollback::RollbackArgs),
    Unhold(verbs::unhold::UnholdArgs),

    History(verbs::history::HistoryArgs),
    Token(verbs::token::TokenArgs),
    Fleet(verbs::fleet::FleetArgs),
    Cert(verbs::cert::CertArgs),
    App(verbs::app::AppArgs),
    Access(verbs::access::AccessArgs),
    Policy(verbs::policy::PolicyArgs),
    Explain(verbs::explain::ExplainArgs),
}

/// Show all of it at work on this machine, with nothing to set up.
///
/// Makes a git repository with an example service, starts a controller, two proxies and an agent of its own, builds three
/// releases, moves the second into production in steps under load, rolls it back and forth, has the controller find out that
/// the third is bad and stop it, and stays up with lines to copy until Ctrl-C. Nothing is left behind.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  pointsman demo\n  pointsman demo --tour --json tour.json")]
pub(crate) struct DemoArgs {
    /// End after the tour; exit code 1 if a request failed that the bad release did not cause, or if that was not stopped.
    #[arg(long)]
    pub(crate) tour: bool,
    /// Write the figures of the tour to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keep the demo's folder afterwards and say where it is.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// The verbs as `pointsman --help` lists them.
const GROUPS: &[(&str, &[&str])] = &[
    ("Set up", &["init", "controller", "proxy", "agent", "join", "login", "context", "demo", "completions"]),
    ("Describe", &["apply", "environment", "service", "repository", "status"]),
    ("Releases", &["release"]),
    ("Traffic", &["promote", "rollout", "rollback", "unhold"]),
    ("Who may pass", &["app", "access", "policy", "explain"]),
    ("Records and access", &["history", "token", "fleet", "cert"]),
];

/// The command with its verbs listed in groups, which the library cannot do by itself.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command();
    let mut list = String::new();
    for (heading, verbs) in GROUPS {
        list.push_str(&format!("{heading}:\n"));
        for verb in *verbs {
            let about = command.find_subcommand(verb).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            list.push_str(&format!("  {verb:<12} {about}\n"));
        }
        list.push('\n');
    }
    list.push_str("`pointsman VERB --help` explains a verb with examples.\n");
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}\n{{options}}{{after-help}}"
    ))
}

#[cfg(test)]
mod tests;
