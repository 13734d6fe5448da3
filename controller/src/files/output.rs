//! What is kept of a build as a component: a folder of the checkout, or an image that the build has pushed.

use registry::Place;

use crate::core::spec::ImageSpec;

use super::value::stays_within;
use super::walk::{Section, Walk, nearest, shown};

/// Stands for the name of each stage's environment.
const WORD: &str = "environment";

/// Reads `folder` or `image_digest_file`, of which a service with a source needs one; the folder is empty where it has none.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>, component: &Section<'_>) -> (String, Option<ImageSpec>) {
    let (is_folder, is_image) = (component.has("folder"), component.has("image_digest_file"));
    if is_folder && is_image {
        let message = "a component is a folder or an image: `image_digest_file` stands beside `folder`";
        walk.wrong(component.place("image_digest_file"), message);
    }
    // Without a source nothing is built: releases are added.
    if !is_folder && !is_image && root.has("source") {
        let message = "needs `folder`, or `image_digest_file` where the build pushes an image: it says what to keep";
        walk.missing(component.at, format!("{} {message}", component.title));
    }
    if component.has("image") && !is_image {
        let message = "`image` says where the digest of `image_digest_file` was pushed to: it needs that key";
        walk.missing(component.place("image"), message);
    }
    let folder = path(walk, root, component, "folder", "a folder", "dist").unwrap_or_default();
    let digest_file = path(walk, root, component, "image_digest_file", "a file", "web.digest");
    let repository: Option<Place> = component.parsed(walk, "image");
    (folder, digest_file.map(|digest_file| ImageSpec { digest_file, repository }))
}

/// A path of the checkout, in which `{environment}` may stand.
fn path(
    walk: &mut Walk<'_>,
    root: &Section<'_>,
    component: &Section<'_>,
    key: &str,
    what: &str,
    example: &str,
) -> Option<String> {
    let (path, at) = component.text(walk, key)?;
    if !stays_within(&path) {
        let message = format!("accepted is a relative path without \"..\", such as \"{example}\"");
        walk.wrong(at, format!("\"{}\" is not {what} of the checkout: {message}", shown(&path)));
    } else if let Some(strange) = strange_word(&path) {
        let near = nearest(&strange, &[WORD]).map(|near| format!(", did you mean {{{near}}}?")).unwrap_or_default();
        let message = format!("`{key}`: {{{}}} is no word{near}", shown(&strange));
        walk.wrong(at, format!("{message} (accepted: {{{WORD}}}, which makes one for each stage)"));
    } else if is_per_environment(&path) && !root.has("stage") {
        let message = format!("`{key}` makes one of each stage, and the file has no [stage.NAME]");
        walk.missing(at, message);
    }
    Some(path)
}

/// Whether a path holds the word.
fn is_per_environment(path: &str) -> bool {
    path.contains("{environment}")
}

/// The first word in braces that is none, or what follows a brace that has no other.
fn strange_word(path: &str) -> Option<String> {
    let rest = path.replace("{environment}", "");
    let at = rest.find(['{', '}'])?;
    let word = rest[at..].trim_start_matches(['{', '}']);
    Some(word.split(['{', '}', '/']).next().unwrap_or_default().to_owned())
}
