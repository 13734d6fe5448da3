//! Files to begin with for a service that is built as an image by a tool of somebody else's.
//!
//! Must not know: where they are written. They are those of `examples/recipes`, so that what is written is what is tested.

use api::ServiceName;
use clap::ValueEnum;

/// The service of the examples: its name becomes another one.
const EXAMPLE: &str = "hello";

/// Whose images they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Recipe {
    /// Images by buildah, which needs no daemon.
    Buildah,
    /// Images by docker's daemon.
    Docker,
    /// Images by Bazel and rules_oci; not tested.
    Bazel,
}

/// One of its files.
pub(super) struct RecipeFile {
    pub(super) name: &'static str,
    pub(super) text: String,
    pub(super) is_program: bool,
}

macro_rules! file {
    ($recipe:literal, $name:literal) => {
        ($name, include_str!(concat!("../../../examples/recipes/", $recipe, "/", $name)))
    };
}

impl Recipe {
    /// Its files for a service, `pointsman.toml` first.
    pub(super) fn files(self, service: &ServiceName) -> Vec<RecipeFile> {
        let files: &[(&'static str, &str)] = match self {
            Self::Buildah => {
                &[file!("buildah", "pointsman.toml"), file!("buildah", "build.sh"), file!("buildah", "Containerfile")]
            }
            Self::Docker => {
                &[file!("docker", "pointsman.toml"), file!("docker", "build.sh"), file!("docker", "Containerfile")]
            }
            Self::Bazel => &[file!("bazel", "pointsman.toml"), file!("bazel", "build.sh")],
        };
        let one = |(name, text): &(&'static str, &str)| RecipeFile {
            name,
            text: text.replace(EXAMPLE, service.as_str()),
            is_program: name.ends_with(".sh"),
        };
        files.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use ::controller::files::{File, parse};

    use super::*;

    #[test]
    fn releases_recipes_are_files_that_are_accepted() {
        let service: ServiceName = "web-shop".parse().expect("a name");
        for recipe in Recipe::value_variants() {
            let files = recipe.files(&service);
            let read = parse(files[0].name, &files[0].text);
            let Ok(File::Service(spec)) = read else { panic!("{recipe:?}: {read:?}") };
            assert_eq!(spec.name, service);
            let build = spec.build.expect("it is built");
            assert!(build.registry, "{recipe:?}: it pushes");
            let image = spec.components.values().next().and_then(|one| one.image.clone()).expect("an image");
            let script = files.iter().find(|file| build.command == [format!("./{}", file.name)]).expect("its command");
            assert!(script.is_program && script.text.starts_with("#!"), "{recipe:?}");
            assert!(script.text.contains(&format!("> {}", image.digest_file)), "{recipe:?}: it tells the digest");
            assert!(files.iter().all(|file| !file.text.contains(EXAMPLE)), "{recipe:?}: the example's name");
        }
    }
}
