//! `completions`: for shells.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use crate::exit::{Ended, Exit, Failure};

/// Print the completions for a shell.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman completions bash > /etc/bash_completion.d/pointsman
  pointsman completions zsh > ~/.zfunc/_pointsman
  pointsman completions fish > ~/.config/fish/completions/pointsman.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs) -> Ended {
    // Into memory first: the generator panics when its output is closed.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "pointsman", &mut text);
    std::io::stdout().lock().write_all(&text).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Done)
}
