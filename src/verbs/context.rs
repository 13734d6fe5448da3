//! `context`: which controllers are known, and which one counts.

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::contexts::{self, Contexts};
use crate::exit::{Ended, Exit};
use crate::operator::Session;
use crate::render::{Line, Style, Table};

/// List the known controllers and choose one.
#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    verb: ContextVerb,
}

#[derive(Debug, Subcommand)]
enum ContextVerb {
    /// List the contexts.
    #[command(after_long_help = "Example:\n  pointsman context list")]
    List,
    /// Make a context the current one.
    #[command(after_long_help = "Example:\n  pointsman context use prod")]
    Use {
        /// Its name.
        name: String,
    },
    /// Show the context that counts here.
    #[command(after_long_help = "Example:\n  pointsman context show --context prod")]
    Show,
}

/// A context without its secret.
#[derive(Serialize)]
struct Shown {
    name: String,
    controller: String,
    current: bool,
}

pub(crate) fn run(args: ContextArgs, session: &Session) -> Ended {
    let output = &session.output;
    match args.verb {
        ContextVerb::List => {
            let contexts = Contexts::load(&contexts::path()?)?;
            let shown: Vec<Shown> = contexts
                .all
                .iter()
                .map(|(name, context)| Shown {
                    name: name.clone(),
                    controller: context.controller.clone(),
                    current: contexts.current.as_ref() == Some(name),
                })
                .collect();
            output.show(&shown, |_| table(&shown))?;
        }
        ContextVerb::Use { name } => {
            let path = contexts::path()?;
            let mut contexts = Contexts::load(&path)?;
            let name = contexts.choose(Some(&name))?.0.to_owned();
            contexts.current = Some(name.clone());
            contexts.save(&path)?;
            output.aside(&Line::plain(format!("{name} is the current context")));
        }
        ContextVerb::Show => {
            let (name, context) = contexts::chosen(session.context.as_deref())?;
            let shown = Shown { name, controller: context.controller, current: session.context.is_none() };
            output.show(&shown, |_| {
                let line = Line::of(Style::Bold, &shown.name);
                vec![line.with(Style::Plain, format!("  the controller at {}", shown.controller))]
            })?;
        }
    }
    Ok(Exit::Done)
}

fn table(contexts: &[Shown]) -> Vec<Line> {
    let mut table = Table::new(&["context", "controller", ""]);
    for context in contexts {
        table.row(vec![
            Line::of(Style::Bold, &context.name),
            Line::plain(&context.controller),
            if context.current { Line::of(Style::Good, "current") } else { Line::default() },
        ]);
    }
    table.lines("no contexts yet: `pointsman login --from FILE` makes the first")
}
