//! `init`: a commented pointsman.toml to begin with.

use std::io::Write;
use std::path::Path;

use api::ServiceName;
use clap::Args;

use crate::exit::{Ended, Exit, Failure};
use crate::output::print_line;

const FILE: &str = "pointsman.toml";

/// Write a commented pointsman.toml into this folder.
///
/// Never writes over a file. The service is named after the folder where nothing else is said.
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  pointsman init --service hello\n  pointsman apply -f pointsman.toml --plan")]
pub(crate) struct InitArgs {
    /// The service's name.
    #[arg(long, value_name = "NAME")]
    service: Option<ServiceName>,
}

pub(crate) fn run(args: &InitArgs) -> Ended {
    let service = match &args.service {
        Some(service) => service.clone(),
        None => {
            let folder = std::env::current_dir();
            by_folder(&folder.map_err(|error| Failure::system("the folder that this is has no name", &error))?)?
        }
    };
    let path = Path::new(FILE);
    let text = ::controller::files::template(&service);
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::file(path, &error))?;
    println_out(&format!("wrote {FILE} for the service {service}: next `pointsman apply -f {FILE} --plan`"))?;
    Ok(Exit::Done)
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
    fn a_service_is_named_after_its_folder_where_that_is_a_name() {
        for (folder, expected) in
            [("/src/hello", Some("hello")), ("/src/Web-Shop", Some("web-shop")), ("/src/a b", None), ("/", None)]
        {
            assert_eq!(by_folder(Path::new(folder)).ok().as_ref().map(ServiceName::as_str), expected, "{folder}");
        }
    }
}
