//! What a build has left: for each component a folder, or a file with the digest of an image, perhaps one for each
//! environment. All of it or none.
//!
//! Must not know: how it was made, or what becomes of it.
//!
//! Main types: [`Output`], [`Found`].

use std::io::Read;
use std::path::{Path, PathBuf};

use api::{ComponentName, Digest, EnvironmentName};
use registry::{Place, Reference, Wanted};

use crate::core::spec::{ComponentSpec, ServiceSpec};

/// Longest digest file: a reference has less than 400 bytes.
const FILE_BYTES: u64 = 4 * 1024;

/// The word that makes a folder or a file one for each environment.
const ENVIRONMENT: &str = "{environment}";

const ACCEPTED: &str = "accepted is \"sha256:\" with 64 hex digits, or HOST/REPOSITORY@ before it";

/// Whether a component has an artifact for each environment.
pub(crate) fn is_for_each(component: &ComponentSpec) -> bool {
    component.image.as_ref().map_or(&component.folder, |image| &image.digest_file).contains(ENVIRONMENT)
}

/// What there is of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) component: ComponentName,
    /// None: for all.
    pub(crate) environment: Option<EnvironmentName>,
    pub(crate) found: Found,
}

/// A folder or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Within the checkout, links followed.
    Folder(PathBuf),
    /// What its digest file says.
    Image(Place, Digest),
}

/// Looks for all outputs. Blocks for as long as it takes to read small files.
///
/// # Errors
/// A sentence for each that is missing, or is not what it should be.
pub(crate) fn find(checkout: &Path, spec: &ServiceSpec) -> Result<Vec<Output>, Vec<String>> {
    let (mut outputs, mut mistakes) = (Vec::new(), Vec::new());
    for (component, one) in &spec.components {
        let path = one.image.as_ref().map_or(&one.folder, |image| &image.digest_file);
        if path.is_empty() {
            // A file that names no source of its own needs none of them. The whole checkout would be kept.
            mistakes.push(format!("the component {component} has neither `folder` nor `image_digest_file`"));
            continue;
        }
        let each = match is_for_each(one) {
            true => spec.stages.keys().cloned().map(Some).collect(),
            false => vec![None],
        };
        if each.is_empty() {
            mistakes
                .push(format!("\"{path}\" of the component {component} is one for each [stage], and there is none"));
        }
        for environment in each {
            let path = of(path, environment.as_ref());
            match find_one(checkout, component, one, &path) {
                Ok(found) => outputs.push(Output { component: component.clone(), environment, found }),
                Err(mistake) => mistakes.push(mistake),
            }
        }
    }
    if mistakes.is_empty() { Ok(outputs) } else { Err(mistakes) }
}

/// The path of a folder or file for an environment.
pub(crate) fn of(path: &str, environment: Option<&EnvironmentName>) -> String {
    environment.map_or(path.to_owned(), |name| path.replace(ENVIRONMENT, name.as_str()))
}

fn find_one(checkout: &Path, name: &ComponentName, spec: &ComponentSpec, path: &str) -> Result<Found, String> {
    let what = if spec.image.is_some() { "digest file" } else { "folder" };
    let missing = || format!("the build left no {what} \"{path}\" for the component {name}");
    let real = checkout.join(path).canonicalize().map_err(|_| missing())?;
    let root = checkout.canonicalize().map_err(|error| format!("opening {}: {error}", checkout.display()))?;
    if !real.starts_with(&root) {
        return Err(format!("the {what} \"{path}\" of the component {name} is a link that points out of the checkout"));
    }
    let Some(image) = &spec.image else {
        return if real.is_dir() { Ok(Found::Folder(real)) } else { Err(missing()) };
    };
    let wrong = |why: String| format!("the digest file \"{path}\" of the component {name} {why}");
    if !real.is_file() {
        return Err(missing());
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::open(&real).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(wrong(format!("has more than {FILE_BYTES} bytes: {ACCEPTED}")));
    }
    let (place, digest) = parse(&bytes, image.repository.as_ref()).map_err(wrong)?;
    Ok(Found::Image(place, digest))
}

/// What a digest file says: `buildah push --digestfile` writes the digest alone, others a whole reference.
fn parse(bytes: &[u8], repository: Option<&Place>) -> Result<(Place, Digest), String> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_ascii();
    let wrong = || {
        let shown: String = text.chars().take(100).collect();
        format!("says {shown:?}: {ACCEPTED}")
    };
    if !text.contains('@') {
        let digest = text.parse().map_err(|_| wrong())?;
        let place = repository.ok_or("says a digest, and not of which image: [component.NAME] image does")?;
        return Ok((place.clone(), digest));
    }
    match text.parse() {
        Ok(Reference { place, wanted: Wanted::Digest(digest) }) => Ok((place, digest)),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, File};

    fn spec(components: &str) -> ServiceSpec {
        let text = format!("schema = 1\nservice = \"shop\"\n[build]\ncommand = [\"./build.sh\"]\n{components}");
        match files::parse("pointsman.toml", &text) {
            Ok(File::Service(spec)) => spec,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn digest_files_in_every_form() {
        let digest = Digest::of(b"an image");
        let (place, other): (Place, Place) =
            ("r.example.com/web".parse().expect("place"), "o.example.com:5000/x/y".parse().expect("place"));
        for (text, repository, expected) in [
            (format!("{digest}"), Some(&place), Ok((&place, digest))),
            (format!("{digest}\n"), Some(&place), Ok((&place, digest))),
            (format!("  {digest}\r\n\r\n"), Some(&place), Ok((&place, digest))),
            (format!("{other}@{digest}\n"), None, Ok((&other, digest))),
            (format!("{other}:v1@{digest}"), Some(&place), Ok((&other, digest))),
            (format!("{digest}"), None, Err("of which image")),
            (String::new(), Some(&place), Err("says \"\": accepted is")),
            (format!("{digest}\n{digest}\n"), Some(&place), Err("accepted is")),
            (format!("{other}:v1"), None, Err("accepted is")),
            (format!("{other}@sha512:{}", "a".repeat(128)), None, Err("accepted is")),
            (format!("sha512:{}", "a".repeat(128)), Some(&place), Err("accepted is")),
            (format!("sha256:{}", "a".repeat(63)), Some(&place), Err("accepted is")),
            (format!("@{digest}"), Some(&place), Err("accepted is")),
            ("\u{1b}[31m\u{0}".into(), Some(&place), Err("says \"\\u{1b}[31m\\0\"")),
        ] {
            match (parse(text.as_bytes(), repository), expected) {
                (Ok((place, digest)), Ok(expected)) => assert_eq!((&place, digest), expected, "{text:?}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text:?}: {why}"),
                (found, _) => panic!("{text:?}: {found:?}"),
            }
        }
        assert!(parse(b"\xff\xfe", Some(&place)).is_err());
    }

    #[test]
    fn all_outputs_are_there_or_none() {
        let folder = tempfile::tempdir().expect("folder");
        let at = |name: &str| folder.path().join(name);
        let spec = spec(
            "[component.api]\nfolder = \"dist/api\"\nprotocol = \"h1\"\nrun = [\"./api\", \"{port}\"]\n\
             [component.ui]\nfolder = \"dist/ui-{environment}\"\n\
             [component.web]\nimage_digest_file = \"web.digest\"\nimage = \"r.example.com/web\"\n\
             [stage.dev]\n[stage.qa]\nfrom = \"dev\"\n",
        );
        let all = find(folder.path(), &spec).expect_err("nothing is there");
        assert_eq!(
            all,
            [
                "the build left no folder \"dist/api\" for the component api",
                "the build left no folder \"dist/ui-dev\" for the component ui",
                "the build left no folder \"dist/ui-qa\" for the component ui",
                "the build left no digest file \"web.digest\" for the component web",
            ]
        );
        for name in ["dist/api", "dist/ui-dev"] {
            std::fs::create_dir_all(at(name)).expect("folder");
        }
        let digest = Digest::of(b"an image");
        std::fs::write(at("web.digest"), digest.to_string()).expect("written");
        assert_eq!(find(folder.path(), &spec).expect_err("one is missing").len(), 1);
        std::fs::create_dir_all(at("dist/ui-qa")).expect("folder");
        let found = find(folder.path(), &spec).expect("all are there");
        let names: Vec<_> = found
            .iter()
            .map(|one| format!("{} {}", one.component, one.environment.as_ref().map_or("all", EnvironmentName::as_str)))
            .collect();
        assert_eq!(names, ["api all", "ui dev", "ui qa", "web all"]);
        assert_eq!(found[3].found, Found::Image("r.example.com/web".parse().expect("place"), digest));

        let nowhere = ServiceSpec { stages: Default::default(), ..spec };
        let all = find(folder.path(), &nowhere).expect_err("for nobody");
        assert_eq!(all, ["\"dist/ui-{environment}\" of the component ui is one for each [stage], and there is none"]);

        let mut nothing = nowhere;
        nothing.components.values_mut().for_each(|one| one.folder.clear());
        let all = find(folder.path(), &nothing).expect_err("not the whole checkout");
        assert_eq!(all[0], "the component api has neither `folder` nor `image_digest_file`");
    }

    #[test]
    fn hostile_h84_digest_files_are_small_plain_files_of_the_checkout() {
        let folder = tempfile::tempdir().expect("folder");
        let checkout = folder.path().join("checkout");
        std::fs::create_dir(&checkout).expect("folder");
        let digest = Digest::of(b"an image").to_string();
        std::fs::write(folder.path().join("outside"), &digest).expect("written");
        std::os::unix::fs::symlink("../outside", checkout.join("link")).expect("linked");
        std::fs::write(checkout.join("long"), digest + &" ".repeat(1 << 20)).expect("written");
        std::fs::create_dir(checkout.join("folder")).expect("folder");
        rustix::fs::mknodat(rustix::fs::CWD, checkout.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("pipe");
        for (file, why) in [
            ("link", "is a link that points out of the checkout"),
            ("long", "has more than 4096 bytes"),
            ("folder", "the build left no digest file \"folder\""),
            ("pipe", "the build left no digest file \"pipe\""),
        ] {
            let image = "image = \"r.example.com/web\"\nprotocol = \"h1\"\n";
            let spec = spec(&format!("[component.web]\nimage_digest_file = \"{file}\"\n{image}"));
            let all = find(&checkout, &spec).expect_err(file);
            assert!(all.len() == 1 && all[0].contains(why), "{file}: {all:?}");
        }
    }
}
