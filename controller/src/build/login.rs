//! The right to push to the operator's registry, for a build that asks for it: files as docker, buildah and skopeo read them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::core::spec::RegistryCredentials;

use super::BuildProblem;
use super::command::keep;
use super::mask::{LEAST, SecretValue};
use super::secrets;
use super::steps::Build;

/// How it is shown in a log.
const SHOWN: &str = "registry";

/// Makes the files, and returns variables that name them; what is secret in them is added to `values`.
pub(crate) async fn make(
    build: &mut Build<'_>,
    values: &mut Vec<SecretValue>,
) -> Result<Vec<(String, String)>, BuildProblem> {
    let Some(registry) = &build.job.registry else {
        let sentence = "[build] registry needs the operator's: [registry] in releases.toml, and there is none";
        return Err(BuildProblem::new(sentence));
    };
    let folder = build.workspace.login();
    build.workspace.private(&folder).await?;
    let host = registry.address.host();
    let problem = |why: String| BuildProblem::new(format!("the credentials of the registry {host}: {why}"));
    let mut secret = async |from| {
        let text = secrets::value(from, build.folders, &build.workspace.home(), &mut build.cancel).await;
        text.map_err(|why| problem(format!("their secret {why}")))
    };
    let config = match &registry.credentials {
        RegistryCredentials::None => json!({}),
        RegistryCredentials::Docker { file } => {
            let text = std::fs::read(file).map_err(|error| problem(format!("cannot be read: {error}")))?;
            serde_json::from_slice(&text).map_err(|error| problem(format!("cannot be read: {error}")))?
        }
        RegistryCredentials::Basic { user, password } => {
            let auth = STANDARD.encode(format!("{user}:{}", secret(password).await?));
            json!({ "auths": { host: { "auth": auth } } })
        }
        RegistryCredentials::Token(from) => json!({ "auths": { host: { "registrytoken": secret(from).await? } } }),
        RegistryCredentials::Identity(from) => json!({ "auths": { host: { "identitytoken": secret(from).await? } } }),
    };
    values.extend(hidden(&config));
    let written = keep(&folder.join("config.json"), config.to_string().as_bytes());
    written.map_err(|error| BuildProblem::io("writing into", &folder, &error))?;
    let place = registry.address.below(&[build.job.release.service.as_str()]);
    let place = place.map_err(|error| BuildProblem::new(error.to_string()))?;
    let text = |name: &str| folder.join(name).display().to_string();
    let mut all = vec![
        ("POINTSMAN_REGISTRY".to_owned(), place.to_string()),
        ("DOCKER_CONFIG".to_owned(), folder.display().to_string()),
        ("REGISTRY_AUTH_FILE".to_owned(), text("config.json")),
    ];
    if let Some(ca) = &registry.ca_file {
        // As `--cert-dir` of buildah and skopeo takes it.
        let certs = folder.join("certs");
        let copied = std::fs::create_dir(&certs).and_then(|()| std::fs::copy(ca, certs.join("ca.crt")));
        copied.map_err(|error| problem(format!("its authority cannot be read: {error}")))?;
        all.push(("POINTSMAN_REGISTRY_CERTS".to_owned(), certs.display().to_string()));
    }
    Ok(all)
}

/// What is secret in a `config.json`.
fn hidden(config: &Value) -> Vec<SecretValue> {
    let logins = config["auths"].as_object().into_iter().flat_map(|all| all.values());
    let mut texts = Vec::new();
    for login in logins {
        let text = |name: &str| login[name].as_str().map(str::to_owned);
        texts.extend(["auth", "password", "registrytoken", "identitytoken"].into_iter().filter_map(text));
        let auth = text("auth").and_then(|auth| String::from_utf8(STANDARD.decode(auth).ok()?).ok());
        texts.extend(auth.and_then(|auth| Some(auth.split_once(':')?.1.to_owned())));
    }
    texts.into_iter().filter(|text| text.len() >= LEAST).map(|text| SecretValue { name: SHOWN.into(), text }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h84_what_is_secret_of_a_login_is_hidden() {
        let auth = STANDARD.encode("ci:pass:word");
        let config = json!({ "auths": {
            "a": { "auth": auth }, "b": { "identitytoken": "identity", "auth": "not base64" }, "c": { "registrytoken": "a-token" },
        }, "credHelpers": { "d": "helper" } });
        let texts: Vec<_> = hidden(&config).into_iter().map(|secret| secret.text).collect();
        assert_eq!(texts, [&auth, "pass:word", "not base64", "identity", "a-token"]);
        for config in [json!({}), json!([]), json!({ "auths": 3 }), json!({ "auths": { "a": null } })] {
            assert!(hidden(&config).is_empty(), "{config}");
        }
    }
}
