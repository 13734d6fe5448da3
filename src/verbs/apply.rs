//! `apply`: files become what the controller keeps to.

use std::io::Read;
use std::path::{Path, PathBuf};

use api::operator::{ApplyReply, ApplyRequest, File, Mistake};
use clap::Args;

use crate::cli::Reason;
use crate::exit::{Ended, Exit, Failure};
use crate::operator::{Session, asking};
use crate::render::{Line, Style};

/// Larger files are a mistake, not a description of a service.
const LARGEST: u64 = 1024 * 1024;

/// Describe services and environments by their files.
///
/// All files count together or not at all: with a mistake in any of them, each mistake is told with its file, line and
/// column, and nothing is changed.
///
/// A file with [issuer.NAME] and `policies = ["staff.cedar"]` says who may pass, for the whole fleet, in place of what was
/// applied before. The files that it names are read from beside it and sent along.
///
/// A file with `builders`, `[registry]`, `[repository.NAME]`, `[secret.NAME]` or `[keep]` says how releases are made, for the
/// whole controller, in place of what was applied before; it takes a token that may do everything.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman apply -f pointsman.toml
  pointsman apply -f staging.toml -f production.toml --plan
  pointsman apply -f access.toml
  pointsman apply -f releases.toml
  generate | pointsman apply -f -")]
pub(crate) struct ApplyArgs {
    /// The files; - reads from stdin.
    #[arg(short, long = "file", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Say what would change, change nothing.
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    reason: Reason,
}

pub(crate) async fn run(args: ApplyArgs, session: &Session) -> Ended {
    let files = with_named(read_all(&args.files)?)?;
    let mut client = session.client()?;
    let request = ApplyRequest { files, reason: args.reason.text(), plan: args.plan };
    let reply = client.calls.apply(asking(request)).await.map_err(|status| client.failure(&status))?.into_inner();
    let output = &session.output;
    if output.is_json() {
        output.json(&reply)?;
    } else {
        reply.mistakes.iter().for_each(|mistake| output.aside(&line_of(mistake)));
        if reply.mistakes.is_empty() {
            output.lines(&lines_of(&reply, args.plan))?;
        }
    }
    Ok(if reply.mistakes.is_empty() { Exit::Done } else { Exit::Refused })
}

/// Reads every file, and tells of all that cannot be read.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<File>, Failure> {
    if paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        return Err(Failure::usage("`-f -` can be given once: stdin can be read only once"));
    }
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match read(path) {
            Ok(file) => files.push(file),
            Err(failure) => problems.push(failure.message),
        }
    }
    if problems.is_empty() { Ok(files) } else { Err(Failure::refused(problems.join("\n"))) }
}

/// Adds the files that they name, such as policies. Those of stdin are looked for in the current folder.
pub(super) fn with_named(files: Vec<File>) -> Result<Vec<File>, Failure> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        let folder = Path::new(&file.name).parent().unwrap_or(Path::new("")).to_owned();
        for written in controller::files::named(&file.text) {
            let path = folder.join(&written);
            if matches!(path.try_exists(), Ok(false)) {
                // Whoever reads the file for good tells of it with its place, together with all other mistakes.
                continue;
            }
            match read(&path) {
                Ok(named) => all.push(File { named_by: file.name.clone(), written, ..named }),
                Err(failure) => problems.push(format!("{}: it names {}", file.name, failure.message)),
            }
        }
        all.push(file);
    }
    if problems.is_empty() { Ok(all) } else { Err(Failure::refused(problems.join("\n"))) }
}

fn read(path: &Path) -> Result<File, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let source: Box<dyn Read> = if is_stdin {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?)
    };
    let mut text = String::new();
    source.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| Failure::file(Path::new(&name), &error))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::refused(format!("{name}: it is larger than 1 MiB, which no such file is")));
    }
    Ok(File { name, text, ..File::default() })
}

/// `file:line:column: message`, as editors and other tools read it.
pub(super) fn line_of(mistake: &Mistake) -> Line {
    let place = match (mistake.line, mistake.column) {
        (0, _) => mistake.file.clone(),
        (line, 0) => format!("{}:{line}", mistake.file),
        (line, column) => format!("{}:{line}:{column}", mistake.file),
    };
    if place.is_empty() {
        // About all files together: it stands in none of them.
        return Line::plain(&mistake.message);
    }
    Line::of(Style::Bold, place).with(Style::Plain, format!(": {}", mistake.message))
}

fn lines_of(reply: &ApplyReply, plan: bool) -> Vec<Line> {
    if reply.changes.is_empty() {
        return vec![Line::of(Style::Dim, "nothing to change: all is so already")];
    }
    let head = plan.then(|| Line::of(Style::Dim, "plan: nothing is changed; this would be:"));
    let indent = if plan { "  " } else { "" };
    head.into_iter().chain(reply.changes.iter().map(|change| Line::plain(format!("{indent}{change}")))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_their_place() {
        for (line, column, expected) in
            [(3, 7, "a.toml:3:7: no\\n"), (3, 0, "a.toml:3: no\\n"), (0, 0, "a.toml: no\\n")]
        {
            let mistake = Mistake { file: "a.toml".into(), line, column, message: "no\n".into() };
            assert_eq!(line_of(&mistake).text(), expected);
        }
        let all = Mistake { message: "there is no environment dev".into(), ..Mistake::default() };
        assert_eq!(line_of(&all).text(), "there is no environment dev");
    }

    #[test]
    fn hostile_h83_a_named_file_that_is_not_there_is_left_to_who_knows_its_place() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let text = "schema = 1\npolicies = [\"a.cedar\", \"none.cedar\"]\nentities = \"huge.json\"\n";
        std::fs::write(path("access.toml"), text).expect("written");
        std::fs::write(path("a.cedar"), "permit (principal, action, resource);").expect("written");
        let all = || with_named(read_all(&[path("access.toml")]).expect("read"));
        let written = |files: Vec<File>| files.into_iter().map(|file| file.written).collect::<Vec<_>>();
        assert_eq!(written(all().expect("those that are there")), ["a.cedar", ""]);
        std::fs::write(path("huge.json"), vec![b' '; 2_000_000]).expect("written");
        let message = all().expect_err("it cannot be sent").message;
        assert!(message.contains("access.toml: it names") && message.contains("larger than 1 MiB"), "{message}");
    }

    #[test]
    fn hostile_h83_files_are_read_all_or_none() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "schema = 1").expect("written");
        std::fs::write(path("huge"), vec![b'#'; 10_000_000]).expect("written");
        std::fs::write(path("binary"), [0xff, 0xfe]).expect("written");
        assert_eq!(read_all(&[path("good")]).expect("read").len(), 1);
        let message = read_all(&[path("good"), path("none"), path("huge"), path("binary")]).expect_err("bad").message;
        let lines: Vec<&str> = message.lines().collect();
        assert!(lines[0].ends_with("there is no such file or folder"), "{message}");
        assert!(lines[1].contains("larger than 1 MiB") && lines[2].contains("UTF-8"), "{message}");
        assert_eq!(read_all(&["-".into(), "-".into()]).expect_err("twice").exit, Exit::Usage);
    }
}
