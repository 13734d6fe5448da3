//! The account with an ACME server: kept in a file, made when there is none or when the server has forgotten it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Digest;
use instant_acme::{CertificateIdentifier, Error, ExternalAccountKey, NewAccount};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::error::plain;
use super::http::{Client, DEADLINE, Failure, https};
use super::{AcmeError, Problem, Settings, Window, validity};
use crate::{CertsError, keep};

/// Renewal is asked about no more and no less often than this, whatever the server says (RFC 9773 §4.3.2).
const ASK_AGAIN: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(86_400);
/// Opening or making an account: two requests, and a few more where nonces are refused.
const OPENING: Duration = Duration::from_secs(120);
/// How often a step is repeated whose nonces the server refuses (RFC 8555 §6.5), each time with the three that the library
/// tries.
pub(super) const NONCES: usize = 10;

/// An account with an ACME server.
pub struct Account {
    pub(super) settings: Settings,
    path: PathBuf,
    // Read by each order; replaced, under the lock, by the first that the server tells it has forgotten it.
    current: Mutex<instant_acme::Account>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// Its URL.
    id: String,
    key_pkcs8: Vec<u8>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("path", &self.path).finish_non_exhaustive()
    }
}

// === impl Account ===

impl Account {
    /// Opens the account kept in `folder`, or makes one, which agrees to the server's terms. There is one for each
    /// directory, in `acme-<hash>.json`, mode 0600; it holds the account's key.
    ///
    /// The server's directory is read now and not again, and whether the server still knows the account shows with the
    /// first order. At most 30 s for each request and 2 minutes in all.
    ///
    /// # Errors
    /// A directory that is no https URL, a folder that cannot be used, a file that is not what was written there, a server
    /// that cannot be reached or refuses: without an external account where it asks for one, for example.
    ///
    /// # Cancel safety
    /// An account that the server has made may be lost; the next call makes another.
    pub async fn open(folder: &Path, settings: &Settings) -> Result<Self, AcmeError> {
        https(&settings.directory).map_err(|why| AcmeError::Asked(format!("the ACME directory: {why}")))?;
        keep::folder(folder)?;
        let hash = Digest::of(settings.directory.as_bytes()).hex();
        let path = folder.join(format!("acme-{}.json", &hash[..16]));
        let current = match keep::read::<Kept>(&path)? {
            Some(kept) => in_time(restore(settings, kept, &path)).await?,
            None => in_time(register(settings, &path)).await?,
        };
        Ok(Self { settings: settings.clone(), path, current: Mutex::new(current) })
    }

    /// The account's URL at the server (RFC 8555 §7.3): what its operators know it by.
    pub async fn id(&self) -> String {
        self.current.lock().await.id().to_owned()
    }

    pub(super) async fn current(&self) -> instant_acme::Account {
        self.current.lock().await.clone()
    }

    /// A new account in place of one that the server does not know any more; once, however many orders found out.
    pub(super) async fn replace(&self, forgotten: &str) -> Result<instant_acme::Account, AcmeError> {
        let mut current = self.current.lock().await;
        if current.id() == forgotten {
            tracing::warn!(account = %plain(forgotten), "the ACME server does not know the account any more: making a new one");
            *current = in_time(register(&self.settings, &self.path)).await?;
        }
        Ok(current.clone())
    }

    /// When the server suggests to renew a certificate (RFC 9773); `None` when it suggests nothing, and for a certificate
    /// without an authority key identifier, which it could not be asked about.
    ///
    /// # Errors
    /// Bytes that are no certificate; a server that cannot be reached or refuses.
    pub async fn renewal(&self, leaf_der: &[u8]) -> Result<Option<Window>, AcmeError> {
        validity(leaf_der)?;
        let Some(id) = renewal_id(leaf_der) else { return Ok(None) };
        match self.current().await.renewal_info(&id).await {
            Ok((info, again)) => Ok(Some(Window {
                start: info.suggested_window.start.into(),
                end: info.suggested_window.end.into(),
                ask_again: again.clamp(*ASK_AGAIN.start(), *ASK_AGAIN.end()),
            })),
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(failed("say when to renew", &error)),
        }
    }
}

/// How a certificate is named to the server (RFC 9773 §4.1); `None` when it has no such name.
pub(super) fn renewal_id(leaf_der: &[u8]) -> Option<CertificateIdentifier<'static>> {
    CertificateIdentifier::try_from(&CertificateDer::from(leaf_der)).ok().map(CertificateIdentifier::into_owned)
}

async fn in_time<T>(opening: impl Future<Output = Result<T, AcmeError>>) -> Result<T, AcmeError> {
    let late = AcmeError::TimedOut { doing: "open an account", retry_after: None };
    tokio::time::timeout(OPENING, opening).await.unwrap_or(Err(late))
}

fn client(settings: &Settings) -> Box<Client> {
    let (roots, directory) = (settings.roots.clone(), settings.directory.clone());
    Box::new(Client { roots, directory, deadline: DEADLINE })
}

async fn restore(settings: &Settings, kept: Kept, path: &Path) -> Result<instant_acme::Account, AcmeError> {
    let key = PrivatePkcs8KeyDer::from(kept.key_pkcs8);
    let builder = instant_acme::Account::builder_with_http(client(settings));
    builder.from_parts(kept.id, key, settings.directory.clone()).await.map_err(|error| match error {
        Error::Crypto | Error::KeyRejected => CertsError::Damaged {
            path: path.to_owned(),
            what: "its key is not one that was written there; restore it, or move it away to start anew".into(),
        }
        .into(),
        error => failed("give its directory", &error),
    })
}

async fn register(settings: &Settings, path: &Path) -> Result<instant_acme::Account, AcmeError> {
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let asked = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let external = settings.external_account.as_ref().map(|(id, key)| ExternalAccountKey::new(id.clone(), key));
    let (account, credentials) = unless_nonce!({
        let builder = instant_acme::Account::builder_with_http(client(settings));
        let made = builder.create(&asked, settings.directory.clone(), external.as_ref()).await;
        made.map_err(|error| failed("make an account", &error))
    })?;
    let key_pkcs8 = credentials.private_key().secret_pkcs8_der().to_vec();
    keep::write(path, &Kept { id: account.id().to_owned(), key_pkcs8 })?;
    tracing::info!(account = %plain(account.id()), "the ACME server made an account");
    Ok(account)
}

/// Repeats a step while the server refuses its nonce: such a request was not carried out.
///
/// A macro, because the compiler cannot show that the future of a closure which borrows is `Send`.
macro_rules! unless_nonce {
    ($step:expr) => {{
        let mut refused = 0;
        loop {
            match $step {
                Err(error) if refused < super::account::NONCES && AcmeError::is_refusal(&error, "badNonce") => {
                    refused += 1
                }
                done => break done,
            }
        }
    }};
}
pub(super) use unless_nonce;

/// The library's errors in our words.
pub(super) fn failed(doing: &'static str, error: &Error) -> AcmeError {
    let refused = |problem: &instant_acme::Problem, retry_after| AcmeError::Refused {
        doing,
        problem: Problem::new(problem),
        retry_after,
    };
    match error {
        Error::Api(problem) => refused(problem, None),
        Error::Timeout(next) => {
            let retry_after = next.map(|next| next.saturating_duration_since(std::time::Instant::now()));
            AcmeError::TimedOut { doing, retry_after }
        }
        Error::Other(inner) => match inner.downcast_ref::<Failure>() {
            Some(Failure::Refused { problem: Some(problem), retry_after, .. }) => refused(problem, *retry_after),
            Some(failure @ Failure::Refused { problem: None, retry_after, .. }) => {
                AcmeError::Server { doing, why: plain(&failure.to_string()), retry_after: *retry_after }
            }
            _ => AcmeError::Server { doing, why: plain(&inner.to_string()), retry_after: None },
        },
        error => AcmeError::Server { doing, why: plain(&error.to_string()), retry_after: None },
    }
}
