//! Reads the command line and tells all of its mistakes at once, where the library stops at the first.
//!
//! After a value that is not accepted, the line is read again with any value accepted in that place, until nothing new
//! is found. The last of the mistakes may be of another kind (a missing argument), which the library reports whole.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error, FromArgMatches};

use crate::cli::{self, Cli};
use crate::exit::Exit;

/// A line that is wrong in more places than this gets a part of its mistakes.
const MOST: usize = 20;

/// Said instead of doing something: help, the version, or what is wrong with the line.
#[derive(Debug)]
pub(crate) struct Answer(Vec<Error>);

/// The command line, understood.
///
/// # Errors
/// An [`Answer`] to give instead.
pub(crate) fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, Answer> {
    let line: Vec<OsString> = line.into_iter().collect();
    let mut command = cli::command();
    let first = match command.try_get_matches_from_mut(&line) {
        Ok(matches) => {
            return Cli::from_arg_matches(&matches).map_err(|error| Answer(vec![error.format(&mut command)]));
        }
        Err(error) => error,
    };
    let mut errors = vec![first];
    while errors.len() < MOST {
        let Some(place) = errors.last().and_then(place_of_bad_value) else { break };
        command = cli::command();
        // Only a built command can write its arguments as errors name them.
        command.build();
        command = accepting(command, &errors, &place);
        match command.try_get_matches_from_mut(&line) {
            // The same place again: it could not be made to accept anything.
            Err(error) if place_of_bad_value(&error).is_some_and(|next| is_known(&errors, &next)) => break,
            Err(error) => errors.push(error),
            Ok(_) => break,
        }
    }
    Err(Answer(errors))
}

fn is_known(errors: &[Error], place: &str) -> bool {
    errors.iter().filter_map(place_of_bad_value).any(|known| known == place)
}

/// The argument whose value was not accepted, as the library writes it: `--weight <SHARE>`.
fn place_of_bad_value(error: &Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(place) => Some(place.clone()),
        _ => None,
    }
}

/// The command with any value accepted in the places of these mistakes.
fn accepting(command: Command, errors: &[Error], place: &str) -> Command {
    let loosen = |argument: clap::Arg| {
        let name = argument.to_string();
        let is_bad = name == place || is_known(errors, &name);
        // A flag takes no value, and giving it a parser of texts is a mistake of its own.
        if is_bad && argument.get_action().takes_values() {
            argument.value_parser(clap::value_parser!(String))
        } else {
            argument
        }
    };
    let names: Vec<String> = command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    let command = command.mut_args(loosen);
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |verb| accepting(verb, errors, place)))
}

impl Answer {
    /// Prints it: help on stdout, mistakes on stderr.
    pub(crate) fn give(self) -> Exit {
        let is_help = self.0.iter().all(|error| !error.use_stderr());
        match self.0.as_slice() {
            [only] => drop(only.print()),
            many => eprint!("{}", crate::render::clean_lines(&together(many))),
        }
        if is_help { Exit::Done } else { Exit::Usage }
    }
}

/// Several mistakes as one text: what is wrong of each, then the usage once.
fn together(errors: &[Error]) -> String {
    let (mut text, mut tail) = (String::new(), String::new());
    for error in errors {
        let whole = error.to_string();
        let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| whole.find(mark)).min();
        let (what, rest) = whole.split_at(end.unwrap_or(whole.len()));
        text.push_str(what.trim_end());
        text.push('\n');
        tail = rest.trim().to_owned();
    }
    format!("{text}\n{tail}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(line: &str) -> String {
        let line = std::iter::once("pointsman").chain(line.split(' ')).map(OsString::from);
        together(&parse(line).expect_err("wrong").0)
    }

    #[test]
    fn hostile_h83_all_mistakes_of_a_line_at_once() {
        let text = wrong("promote hello@42 --to Production --weight 150%");
        for part in [
            "SERVICE@rNUMBER, such as",
            "1 to 40 lower-case letters",
            "0% to 100%",
            "'hello@42'",
            "'Production'",
            "'150%'",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("For more information").count(), 1, "{text}");
    }

    #[test]
    fn a_bad_value_and_a_missing_one_are_told_together() {
        let text = wrong("promote hello@42");
        assert!(text.contains("such as \"hello@r42\"") && text.contains("--to <ENVIRONMENT>"), "{text}");
    }

    #[test]
    fn one_mistake_is_told_once() {
        let text = wrong("rollout weight hello/production 50");
        assert_eq!(text.matches("error:").count(), 1, "{text}");
        let text = wrong("release add hello --version 1 --address web --address web=x");
        assert_eq!(text.matches("error:").count(), 1, "{text}");
    }

    #[test]
    fn bad_choices_count_as_mistakes_too() {
        let text = wrong("status Hello -o xml");
        assert!(text.contains("[possible values: text, json]") && text.contains("a service or a stage"), "{text}");
    }
}
