//! Where commits come from: `source`, and the words in it that are handed to git.
//!
//! Must not know: git's options. What passes here is never taken for one.

use crate::core::spec::Source;
use crate::sources::tags::TagForm;

use super::walk::{Section, Walk, shown};

const REPOSITORY_FORM: &str = "an https, http, ssh or file URL, user@host:path, or an absolute path, such as \
                               \"https://git.example.com/hello.git\"";

/// Branch that counts when nobody says otherwise.
const BRANCH: &str = "main";

/// Reads `source`; `None` without it, or without a repository.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<Source> {
    let section = root.section(walk, "source", "`source`")?;
    section.check_keys(walk, &["repository", "branch", "tags"], &[]);
    let branch = branch(walk, &section);
    let tags = section.text(walk, "tags").map(|(form, at)| {
        if let Err(why) = TagForm::read(Some(&form)) {
            walk.wrong(at, format!("`tags`: {why}"));
        }
        form
    });
    if !section.require(walk, "repository") {
        return None;
    }
    let (repository, at) = section.text(walk, "repository")?;
    if let Err(why) = check_repository(&repository) {
        walk.wrong(at, format!("`repository`: {why}"));
    }
    Some(Source { repository, branch, tags })
}

/// Reads `branch = "main"`.
pub(super) fn branch(walk: &mut Walk<'_>, section: &Section<'_>) -> String {
    let Some((branch, at)) = section.text(walk, "branch") else { return BRANCH.to_owned() };
    if let Err(why) = check_reference(&branch) {
        walk.wrong(at, format!("`branch`: {why}"));
    }
    branch
}

/// Accepts https, http, ssh and file URLs, `user@host:path`, and absolute paths.
///
/// # Errors
/// A sentence with the accepted form. Other forms (`ext::`, `-o...`) would let the text run programs; a password or token
/// in it would end up in events and logs.
pub(crate) fn check_repository(text: &str) -> Result<(), String> {
    let wrong = || Err(format!("\"{}\" is not a repository: accepted is {REPOSITORY_FORM}", shown(text)));
    if text.starts_with('-') || text.len() > 2048 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong();
    }
    if text.starts_with('/') {
        return Ok(());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let (authority, path) = rest.split_once('/').map_or((rest, None), |(authority, path)| (authority, Some(path)));
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        // A host or user that begins with a hyphen would be an option of ssh (CVE-2017-1000117).
        if authority.starts_with('-') || host.starts_with('-') {
            return wrong();
        }
        return match (scheme, user) {
            ("file", None) if authority.is_empty() && path.is_some() => Ok(()),
            ("https" | "http", Some(_)) => {
                Err("a user or token in the address would be kept in events and logs: use a \
                                                credential helper of git instead"
                    .to_owned())
            }
            ("ssh", Some(user)) if user.contains(':') => {
                Err("a password in the address would be kept in events and logs: use an ssh key instead".to_owned())
            }
            ("https" | "http" | "ssh", _) if !host.is_empty() && path.is_some_and(|path| !path.is_empty()) => Ok(()),
            _ => wrong(),
        };
    }
    // The short form of ssh; "ext::sh" has an empty path before its second colon and no user.
    let short =
        text.split_once('@').and_then(|(user, rest)| rest.split_once(':').map(|(host, path)| (user, host, path)));
    match short {
        Some((user, host, path))
            if is_word(user) && is_word(host) && !path.is_empty() && !path.starts_with([':', '-']) =>
        {
            Ok(())
        }
        _ => wrong(),
    }
}

/// Accepts the name of a branch or tag (git-check-ref-format(1)).
///
/// # Errors
/// A sentence with the accepted form.
pub(crate) fn check_reference(text: &str) -> Result<(), String> {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let good = text.len() <= 200
        && !text.starts_with('-')
        && !text.ends_with('.')
        && !text.contains("..")
        && !text.contains("@{")
        && text != "@"
        && !text.contains(forbidden)
        && text.split('/').all(part);
    if good {
        return Ok(());
    }
    let form = "letters, digits, hyphens, dots and slashes as git takes them, such as \"main\" or \"v1.2.3\"";
    Err(format!("\"{}\" is not the name of a branch or tag: accepted are {form}", shown(text)))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_')
}
