//! The command `pointsman`: reads the command line, does one verb, ends with a code that scripts can rely on.
//!
//! Must not know: how anything is decided. A verb asks the controller and shows the answer, or starts a part.
//!
//! The rooms: `cli` (what can be written), `verbs` (one file each), `parts` (controller, proxy and agent in this
//! process), `live` (the watch), `render` (what is seen), `operator` and `contexts` (how the controller is reached),
//! `output` and `exit` (how it is told).

mod cli;
mod contexts;
mod demo;
mod exit;
mod live;
mod mistakes;
mod operator;
mod output;
mod parts;
mod render;
mod values;
mod verbs;

use std::process::ExitCode;

use crate::cli::{Cli, Verb};
use crate::exit::{Ended, Failure};
use crate::operator::Session;
use crate::output::Output;

/// What a request or a stream allocates is mostly more than the system's allocator has at hand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    certs::install_provider();
    let cli = match mistakes::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => return answer.give().into(),
    };
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::complain(&failure.message);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Ended {
    let output = Output::from_environment(cli.global.output);
    let session = Session { output, context: cli.global.context };
    match cli.verb {
        Verb::Init(args) => parts::init::run(&args),
        Verb::Controller(args) => parts::controller::run(args, &session),
        Verb::Proxy(args) => parts::proxy::run(args, &session),
        Verb::Agent(args) => parts::agent::run(args),
        Verb::Demo(args) => demo::run(args),
        Verb::Completions(args) => verbs::completions::run(&args),
        Verb::Context(args) => verbs::context::run(args, &session),
        verb => asking()?.block_on(ask(verb, &session)),
    }
}

/// One thread is enough for one question.
fn asking() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("the system gave no thread or descriptor to work with: {error}")))
}

async fn ask(verb: Verb, session: &Session) -> Ended {
    match verb {
        Verb::Join(args) => verbs::join::run(args, session).await,
        Verb::Login(args) => verbs::login::run(args, session).await,
        Verb::Apply(args) => verbs::apply::run(args, session).await,
        Verb::Environment(args) => verbs::environment::run(args, session).await,
        Verb::Repository(args) => verbs::repository::run(args, session).await,
        Verb::Service(args) => verbs::service::run(args, session).await,
        Verb::Status(args) => verbs::status::run(args, session).await,
        Verb::Release(args) => verbs::release::run(args, session).await,
        Verb::Promote(args) => verbs::promote::run(args, session).await,
        Verb::Rollout(args) => verbs::rollout::run(args, session).await,
        Verb::Rollback(args) => verbs::rollback::run(args, session).await,
        Verb::Unhold(args) => verbs::unhold::run(args, session).await,
        Verb::History(args) => verbs::history::run(args, session).await,
        Verb::Token(args) => verbs::token::run(args, session).await,
        Verb::Fleet(args) => verbs::fleet::run(args, session).await,
        Verb::Cert(args) => verbs::cert::run(args, session).await,
        Verb::Access(args) => verbs::access::run(args, session).await,
        Verb::Explain(args) => verbs::explain::run(args, session).await,
        Verb::App(args) => verbs::app::run(args, session).await,
        Verb::Policy(args) => verbs::policy::run(args, session).await,
        Verb::Init(_)
        | Verb::Controller(_)
        | Verb::Proxy(_)
        | Verb::Agent(_)
        | Verb::Demo(_)
        | Verb::Completions(_)
        | Verb::Context(_) => unreachable!("done by `run`, which needs no runtime for them"),
    }
}
