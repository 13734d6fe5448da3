//! Where artifacts go: `[registry]`.

use crate::core::spec::{RegistryCredentials, RegistrySpec, UPLOADS};
use crate::files::walk::{Section, Walk};

use super::secret::{basic, reference};

/// Most uploads at once.
const UPLOADS_MOST: u32 = 16;
const FORMS: [&str; 4] = ["docker", "user", "token", "identity"];
const EXAMPLE: &str = "{ docker = \"/path/of/config.json\" }, { user = \"ci\", password = { file = \"/path\" } }, { token = { file = \
                       \"/path\" } } or { identity = { file = \"/path\" } }";

/// Reads it; without the section artifacts stay on the controller's disk.
pub(super) fn read(walk: &mut Walk<'_>, root: &Section<'_>) -> Option<RegistrySpec> {
    let section = root.section(walk, "registry", "[registry]")?;
    section.check_keys(walk, &["address", "ca", "credentials", "uploads"], &[]);
    let address = section.required(walk, "address");
    let ca_file = ca(walk, &section);
    let credentials = credentials(walk, &section);
    let uploads = section.number(walk, "uploads", 1..=UPLOADS_MOST).and_then(|number| u8::try_from(number).ok());
    Some(RegistrySpec { address: address?, ca_file, credentials, uploads: uploads.unwrap_or(UPLOADS) })
}

/// `ca = { file = "/path" }`.
fn ca(walk: &mut Walk<'_>, section: &Section<'_>) -> Option<String> {
    let section = section.section(walk, "ca", "`ca`")?;
    section.check_keys(walk, &["file"], &[]);
    if !section.require(walk, "file") {
        return None;
    }
    section.machine_path(walk, "file")
}

fn credentials(walk: &mut Walk<'_>, registry: &Section<'_>) -> RegistryCredentials {
    let Some(section) = registry.section(walk, "credentials", "`credentials`") else {
        return RegistryCredentials::None;
    };
    section.check_keys(walk, &["docker", "user", "password", "token", "identity"], &[]);
    let given: Vec<&str> = FORMS.into_iter().filter(|form| section.has(form)).collect();
    match given[..] {
        // `password` alone, or a key that was told, with those that are accepted.
        [] if section.entries().next().is_some() => {}
        [] => walk.missing(section.at, format!("`credentials` say nothing: accepted is {EXAMPLE}")),
        [_] => {}
        [first, ..] => {
            for form in &given[1..] {
                let message = format!("we are one to a registry: `{form}` stands beside `{first}`");
                walk.wrong(section.place(form), message);
            }
        }
    }
    let docker = section.machine_path(walk, "docker").map(|file| RegistryCredentials::Docker { file });
    let basic = basic(walk, &section).map(|(user, password)| RegistryCredentials::Basic { user, password });
    let token = reference(walk, &section, "token").map(RegistryCredentials::Token);
    let identity = reference(walk, &section, "identity").map(RegistryCredentials::Identity);
    docker.or(basic).or(token).or(identity).unwrap_or_default()
}
