//! `init`: a commented pointsman.toml to begin with, and what builds an image beside it.

mod recipe;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use api::ServiceName;
use clap::Args;

use crate::exit::{Ended, Exit, Failure};
use crate::output::print_line;
use recipe::{Recipe, RecipeFile};

const FILE: &str = "pointsman.toml";

/// Write a commented pointsman.toml into this folder.
///
/// Never writes over a file: it writes all that it has to, or nothing. The service is named after the folder where nothing else is
/// said. With a recipe it also writes the script that builds an image, pushes it, and tells its digest.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  pointsman init --service hello
  pointsman init --recipe buildah
  pointsman apply -f pointsman.toml --plan")]
pub(crate) struct InitArgs {
    /// The service's name.
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
    /// What builds it as an image; without, a folder of the build is the artifact.
    #[arg(long, value_enum)]
    recipe: Option<Recipe>,
}

pub(crate) fn run(args: &InitArgs) -> Ended {
    let service = match &args.service {
        Some(service) => service.clone(),
        None => {
            let folder = std::env::current_dir();
            by_folder(&folder.map_err(|error| Failure::system("the folder that this is has no name", &error))?)?
        }
    };
    let files = match args.recipe {
        Some(recipe) => recipe.files(&service),
        None => {
            let text = ::controller::files::template(&service);
            vec![RecipeFile { name: FILE, text, is_program: false }]
        }
    };
    write_all(Path::new(""), &files)?;
    let names: Vec<&str> = files.iter().map(|file| file.name).collect();
    let names = names.join(", ");
    println_out(&format!("wrote {names} for the service {service}: next `pointsman apply -f {FILE} --plan`"))?;
    Ok(Exit::Done)
}

/// Writes new files into a folder: all, or none.
fn write_all(folder: &Path, files: &[RecipeFile]) -> Result<(), Failure> {
    let there = files.iter().map(|file| folder.join(file.name)).filter(|path| path.symlink_metadata().is_ok());
    let there: Vec<String> = there.map(|path| path.display().to_string()).collect();
    if !there.is_empty() {
        return Err(Failure::refused(format!("{}: there already; nothing was written", there.join(", "))));
    }
    let mut written: Vec<PathBuf> = Vec::new();
    for file in files {
        let path = folder.join(file.name);
        let mode = if file.is_program { 0o777 } else { 0o666 };
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        // From here on it is ours to take away again.
        written.extend(opened.is_ok().then(|| path.clone()));
        if let Err(error) = opened.and_then(|mut opened| opened.write_all(file.text.as_bytes())) {
            written.iter().for_each(|path| drop(fs::remove_file(path)));
            return Err(Failure::file(&path, &error));
        }
    }
    Ok(())
}

/// The folder's name as a service's.
fn by_folder(folder: &Path) -> Result<ServiceName, Failure> {
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    name.parse().map_err(|_| {
        Failure::refused("the folder's name cannot be a service's: name the service with `--service NAME`")
    })
}

/// Prints a line, and takes a closed pipe for no failure.
pub(super) fn println_out(text: &str) -> Result<(), Failure> {
    print_line(crate::render::clean(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_recipes_are_written_whole_and_over_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let files = Recipe::Buildah.files(&"shop".parse().expect("a name"));
        fs::write(at("Containerfile"), "FROM mine").expect("written");
        std::os::unix::fs::symlink("nowhere", at("build.sh")).expect("a link");
        let message = write_all(folder.path(), &files).expect_err("two are there").message;
        assert!(message.contains("build.sh, ") && message.contains("Containerfile: there already"), "{message}");
        assert_eq!(fs::read_to_string(at("Containerfile")).expect("as it was"), "FROM mine");
        assert!(!at("pointsman.toml").exists(), "nothing was written");
        for name in ["Containerfile", "build.sh"] {
            fs::remove_file(at(name)).expect("removed");
        }
        write_all(folder.path(), &files).expect("written");
        let is_program = |name: &str| {
            let mode = std::os::unix::fs::PermissionsExt::mode(&at(name).metadata().expect("there").permissions());
            mode & 0o100 != 0
        };
        assert!(is_program("build.sh") && !is_program("pointsman.toml") && at("Containerfile").exists());
        // What cannot be written takes away what was.
        let other = tempfile::tempdir().expect("a folder");
        let mut files = files;
        files[2].name = "none/Containerfile";
        write_all(other.path(), &files).expect_err("there is no such folder");
        assert_eq!(other.path().read_dir().expect("a folder").count(), 0);
    }

    #[test]
    fn a_service_is_named_after_its_folder_where_that_is_a_name() {
        for (folder, expected) in
            [("/src/hello", Some("hello")), ("/src/Web-Shop", Some("web-shop")), ("/src/a b", None), ("/", None)]
        {
            assert_eq!(by_folder(Path::new(folder)).ok().as_ref().map(ServiceName::as_str), expected, "{folder}");
        }
    }
}
