//! Somebody else's service that tells of changes: curl brings what it signed.

use base64::Engine;
use jsonwebtoken::{Algorithm, EncodingKey};
use tokio::process::Command;

use super::{House, now_ms};

/// Tells a controller of one repository.
pub(crate) struct Webhook {
    pub(crate) secret: String,
    url: String,
    authority: String,
}

impl Webhook {
    pub(crate) fn new(house: &House, repository: &str, secret: &str) -> Self {
        let url = format!("https://{}/v1/hooks/{repository}", house.controller_address());
        let authority = house.path("controller/ca.pem").display().to_string();
        Self { secret: secret.to_owned(), url, authority }
    }

    /// Signs a delivery now and brings it; the status of the answer.
    pub(crate) async fn tells(&self) -> String {
        let (now, body) = (now_ms() / 1000, "{\"something\":\"was pushed\"}");
        let signature = hmac(self.secret.as_bytes(), format!("{now}.{body}").as_bytes());
        self.brings(&[&format!("X-Pointsman-Signature: t={now},v1={signature}")], body).await
    }

    /// The same as GitHub does it.
    pub(crate) async fn tells_as_github(&self, event: &str) -> String {
        let body = "{\"ref\":\"refs/heads/main\"}";
        let signature = format!("X-Hub-Signature-256: sha256={}", hmac(self.secret.as_bytes(), body.as_bytes()));
        self.brings(&[&format!("X-GitHub-Event: {event}"), &signature], body).await
    }

    async fn brings(&self, headers: &[&str], body: &str) -> String {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--cacert", &self.authority, "--data-binary", body]);
        command.args(["--output", "/dev/null", "--write-out", "%{http_code}"]);
        command.args(headers.iter().flat_map(|header| ["--header", header])).arg(&self.url).kill_on_drop(true);
        let done = command.output().await.expect("curl is installed (scripts/setup)");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }
}

/// HMAC with SHA-256, in hex.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let signed = jsonwebtoken::crypto::sign(message, &EncodingKey::from_secret(key), Algorithm::HS256).expect("signed");
    let bytes = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(signed).expect("base64");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
