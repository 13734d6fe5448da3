//! The part of a URL after `?`: names with values, each once, and all mistakes at once.
//!
//! Must not know: what a parameter stands for. Pure.
//!
//! Main type: [`Parameters`].

use std::fmt::Display;
use std::str::FromStr;

/// Mistakes that are told; whoever makes more has those to mend first.
const TOLD: usize = 20;
/// Characters of a mistake that are shown.
const SHOWN: usize = 64;

/// What was given, until it is taken out.
#[derive(Debug)]
pub(super) struct Parameters {
    given: Vec<(String, String)>,
    known: &'static [&'static str],
    mistakes: Vec<String>,
}

impl Parameters {
    /// Reads `name=value&name=value`, percent-encoded (`application/x-www-form-urlencoded`). One without a value counts as
    /// not given, as dashboards leave it. `known`: all that there are.
    pub(super) fn read(query: &str, known: &'static [&'static str]) -> Self {
        let mut parameters = Self { given: Vec::new(), known, mistakes: Vec::new() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (decode(name), decode(value)) else {
                parameters.mistake(format!("{} is not percent-encoded UTF-8", cut(pair)));
                continue;
            };
            if !known.contains(&name.as_str()) {
                parameters.mistake(format!("{} is no parameter: accepted are {}", cut(&name), known.join(", ")));
            } else if parameters.given.iter().any(|(other, _)| *other == name) {
                parameters.mistake(format!("{name} is given twice"));
            } else {
                parameters.given.push((name, value));
            }
        }
        parameters
    }

    /// Takes a parameter out; none: it was not given, or is a mistake.
    pub(super) fn take<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        debug_assert!(self.known.contains(&name), "{name}");
        let (_, value) = self.given.iter().find(|(given, value)| given == name && !value.is_empty())?;
        match value.parse() {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(format!("{name}: {problem}"));
                None
            }
        }
    }

    /// Notes a mistake.
    pub(super) fn mistake(&mut self, sentence: String) {
        if self.mistakes.len() < TOLD {
            self.mistakes.push(sentence);
        }
    }

    /// The value that was made of them, unless there were mistakes.
    pub(super) fn end<T>(self, value: T) -> Result<T, Vec<String>> {
        if self.mistakes.is_empty() { Ok(value) } else { Err(self.mistakes) }
    }
}

/// As it can be shown, whatever it is.
pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

/// Without percent-encoding; `None` when it is none, or no UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use api::{ServiceName, StageName};

    use super::*;

    type Read = Result<(Option<ServiceName>, Option<StageName>), Vec<String>>;

    fn read(query: &str) -> Read {
        let mut parameters = Parameters::read(query, &["service", "stage"]);
        let value = (parameters.take("service"), parameters.take("stage"));
        parameters.end(value)
    }

    #[test]
    fn parameters_are_read_however_they_are_written() {
        let (service, stage) = (|| "hello".parse().ok(), || "hello/production".parse().ok());
        for (query, expected) in [
            ("", (None, None)),
            ("&&", (None, None)),
            ("service=", (None, None)),
            ("stage", (None, None)),
            ("service=hello", (service(), None)),
            ("&stage=hello/production&service=hello", (service(), stage())),
            ("%73ervice=%68ello&stage=hello%2Fproduction", (service(), stage())),
            ("stage=hello%2fproduction&", (None, stage())),
        ] {
            assert_eq!(read(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn parameters_all_mistakes_are_told_at_once() {
        let told =
            read("service=He%20llo&colour=red&stage=production&service=hello&x=%zz&%ff=1&y=%4").expect_err("wrong");
        for (told, expected) in told.iter().zip([
            "\"colour\" is no parameter: accepted are service, stage",
            "service is given twice",
            "\"x=%zz\" is not percent-encoded UTF-8",
            "\"%ff=1\" is not percent-encoded UTF-8",
            "\"y=%4\" is not percent-encoded UTF-8",
            "service: \"He llo\" is not a service name: accepted is ",
            "stage: \"production\" is not a stage: accepted is ",
        ]) {
            assert!(told.starts_with(expected), "{told} is not {expected}");
        }
        assert_eq!(told.len(), 7, "{told:?}");
    }

    #[test]
    fn hostile_parameters_make_no_long_answer() {
        let query = format!("{}&{}=1&stage={}", "a&".repeat(15_000), "é".repeat(5_000), "b".repeat(5_000));
        let told = read(&query).expect_err("wrong");
        assert_eq!(told.len(), TOLD);
        for query in [format!("{}=1", "\u{1b}é".repeat(5_000)), format!("stage={}", "b".repeat(5_000))] {
            let told = read(&query).expect_err("wrong").concat();
            assert!(told.chars().count() < 1_000 && !told.chars().any(char::is_control), "{told}");
        }
    }
}
