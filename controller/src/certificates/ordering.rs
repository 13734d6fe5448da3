//! Certificates from an ACME authority: which an environment needs, when each is asked for, and who shows the proofs.
//!
//! Must not know: when it is looked at. Each environment is looked after by one task at a time, because an order takes
//! minutes.
//!
//! Main types: [`Orders`], what is remembered of one environment; [`Proofs`], which shows proofs at every proxy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::Digest;
use api::fleet::{Challenge, challenge};
use certs::acme::hook::Hook;
use certs::acme::{Account, AcmeError, Method, Proof, Prover, Settings, Window, renewal, validity};
use certs::development::Material;
use certs::endpoint::Authorities;
use tokio::sync::Mutex;

use super::watched::text;
use crate::core::spec::{AcmeSpec, ChallengeSpec};
use crate::engine::Handle;
use crate::fleet::{Fleet, LEASE};

/// How often an authority is asked that says nothing of when to renew, and one that did not answer.
const ASK_DAILY: Duration = Duration::from_secs(86_400);
const ASK_AGAIN: Duration = Duration::from_secs(3_600);
/// Longest accepted file with the key of an external account.
const KEY_BYTES: u64 = 4_096;

/// What is remembered of one environment.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// By the names that could not be had; under no names what failed for all of them, such as the account.
    failures: BTreeMap<Names, Failure>,
    /// What the authority said of when to renew.
    windows: Vec<Asked>,
}

/// Failures in a row.
#[derive(Debug)]
struct Failure {
    count: u32,
    at: SystemTime,
    retry_after: Option<Duration>,
}

/// An answer of the authority, or that there was none.
#[derive(Debug)]
struct Asked {
    leaf: Digest,
    window: Option<Window>,
    at: SystemTime,
    again: Duration,
}

/// Names that go into one certificate together.
pub(super) type Names = Vec<String>;

/// What there is to do for an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be ordered now, each with what it replaces.
    pub(super) order: Vec<(Names, Option<Material>)>,
    /// When the next one is due.
    pub(super) next: Option<SystemTime>,
}

impl Orders {
    /// What is due at `now` for these certificates. `forced`: somebody wants new ones.
    pub(super) fn plan(&self, wanted: &[Names], have: &[Material], now: SystemTime, forced: bool) -> Plan {
        let mut plan = Plan { order: Vec::new(), next: None };
        for names in wanted {
            let known = have.iter().find(|material| material.dns_names == *names);
            let due = known.map_or(now, |material| self.due(material));
            let held = [names, &Vec::new()].into_iter().filter_map(|of| self.held(of, known, now)).max();
            let due = if forced { now } else { held.map_or(due, |held| held.max(due)) };
            if due <= now {
                plan.order.push((names.clone(), known.cloned()));
            } else {
                plan.next = Some(plan.next.map_or(due, |next| next.min(due)));
            }
        }
        plan
    }

    /// When a certificate is to be renewed.
    fn due(&self, material: &Material) -> SystemTime {
        let leaf = material.chain_der.first().map(Vec::as_slice).unwrap_or_default();
        // What cannot be read is replaced at once.
        let Ok(validity) = validity(leaf) else { return SystemTime::UNIX_EPOCH };
        let digest = Digest::of(leaf);
        let window = self.windows.iter().find(|asked| asked.leaf == digest).and_then(|asked| asked.window);
        renewal::due(validity, window, seed(&digest))
    }

    /// Until when nothing is tried, after these names failed.
    fn held(&self, names: &Names, known: Option<&Material>, now: SystemTime) -> Option<SystemTime> {
        let failure = self.failures.get(names)?;
        let ends = known.map(|material| SystemTime::UNIX_EPOCH + Duration::from_secs(material.expires_s));
        // Where there is none yet nothing ends: it is not asked for more often because of that.
        let left = ends.map_or(Duration::MAX, |ends| ends.duration_since(failure.at).unwrap_or_default());
        let seed = seed(&Digest::of(names.concat().as_bytes())) ^ u64::from(failure.count);
        let until = failure.at + renewal::next_try(failure.count, left, failure.retry_after, seed);
        // A clock that went back must not hold it for long.
        (until > now && failure.at <= now).then_some(until)
    }

    /// Whether the authority is to be asked when to renew.
    fn asks(&self, leaf: &Digest, now: SystemTime) -> bool {
        let known = self.windows.iter().find(|asked| asked.leaf == *leaf);
        known.is_none_or(|asked| now.duration_since(asked.at).map_or(true, |since| since >= asked.again))
    }

    /// Asks the authority when to renew what there is. Without an answer what was known counts on for an hour.
    pub(super) async fn ask_when(&mut self, account: &Account, have: &[Material], now: SystemTime) {
        let leaves: Vec<&Vec<u8>> = have.iter().filter_map(|material| material.chain_der.first()).collect();
        self.windows.retain(|asked| leaves.iter().any(|leaf| Digest::of(leaf) == asked.leaf));
        for leaf in leaves {
            let digest = Digest::of(leaf);
            if self.asks(&digest, now) {
                let answer = account.renewal(leaf).await;
                if let Err(problem) = &answer {
                    tracing::info!(%problem, "the authority did not say when to renew");
                }
                self.answered(digest, answer.ok(), now);
            }
        }
    }

    /// `answer`: none, there was none; within it a window, unless the authority has nothing to say.
    fn answered(&mut self, leaf: Digest, answer: Option<Option<Window>>, now: SystemTime) {
        let known = self.windows.iter().position(|asked| asked.leaf == leaf).map(|at| self.windows.remove(at));
        let (window, again) = match answer {
            Some(window) => (window, window.map_or(ASK_DAILY, |window| window.ask_again)),
            None => (known.and_then(|asked| asked.window), ASK_AGAIN),
        };
        self.windows.push(Asked { leaf, window, at: now, again });
    }

    /// These names were had. No names: the authority was reached.
    pub(super) fn succeeded(&mut self, names: &Names) {
        self.failures.remove(names);
    }

    /// These names could not be had. No names: none of them, whatever they are.
    pub(super) fn failed(&mut self, names: &Names, problem: &AcmeError, now: SystemTime) {
        let failure = self.failures.entry(names.clone()).or_insert(Failure { count: 0, at: now, retry_after: None });
        *failure = Failure { count: failure.count.saturating_add(1), at: now, retry_after: problem.retry_after() };
    }

    /// Forgets what is not wanted any more.
    pub(super) fn keep(&mut self, wanted: &[Names]) {
        self.failures.retain(|names, _| names.is_empty() || wanted.contains(names));
    }

    /// Whether anything at all has to be done at `now`: asking the authority when to renew is a thing as well.
    pub(super) fn is_due(&self, wanted: &[Names], have: &[Material], now: SystemTime) -> bool {
        let mut leaves = have.iter().filter_map(|material| material.chain_der.first()).map(|leaf| Digest::of(leaf));
        let held = self.held(&Vec::new(), have.first(), now).is_some();
        !self.plan(wanted, have, now, false).order.is_empty() || (!held && leaves.any(|leaf| self.asks(&leaf, now)))
    }
}

/// The first eight bytes of a digest: the same certificate is always due at the same time.
fn seed(digest: &Digest) -> u64 {
    let (first, _) = digest.as_bytes().split_at(8);
    u64::from_be_bytes(first.try_into().expect("eight bytes"))
}

static OPENING: Mutex<()> = Mutex::const_new(());

/// The account that an environment's file names.
///
/// # Errors
/// As [`Account::open`], and a file with the key of an external account that cannot be used.
pub(super) async fn account(folder: &Path, spec: &AcmeSpec) -> Result<Account, AcmeError> {
    let roots = match &spec.ca {
        Some(text) => Authorities::parse(text)?,
        None => Authorities::of_machine(),
    };
    let external_account = match &spec.external_account {
        Some(external) => Some((external.id.clone(), external_key(&external.key_file)?)),
        None => None,
    };
    let (directory, contact, profile) = (spec.directory.clone(), spec.contact.clone(), spec.profile.clone());
    // Two that come to a new authority at once would make two accounts and write them to one file.
    let _one = OPENING.lock().await;
    Account::open(folder, &Settings { directory, contact, roots, external_account, profile }).await
}

fn external_key(path: &str) -> Result<Vec<u8>, AcmeError> {
    use base64::Engine;
    let wrong = |why: String| AcmeError::Asked(format!("the key of the external account: {why}"));
    let text = text(path, KEY_BYTES).map_err(wrong)?;
    let key = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('='));
    key.map_err(|_| wrong(format!("{path}: it is not base64url")))
}

/// How names are proved, and by whom.
pub(super) fn prover(spec: &ChallengeSpec, engine: &Handle, fleet: &Arc<Fleet>) -> (Method, Box<dyn Prover>) {
    let at_proxies = || Box::new(Proofs { engine: engine.clone(), fleet: fleet.clone() });
    match spec {
        ChallengeSpec::Dns { hook, timeout } => {
            let timeout = Duration::from_millis(timeout.ms());
            (Method::Dns01, Box::new(Hook { command: hook.clone(), timeout }))
        }
        ChallengeSpec::Http => (Method::Http01, at_proxies()),
        ChallengeSpec::TlsAlpn => (Method::TlsAlpn01, at_proxies()),
    }
}

/// Shows proofs at every proxy: the authority may come to any of them.
struct Proofs {
    engine: Handle,
    fleet: Arc<Fleet>,
}

#[tonic::async_trait]
impl Prover for Proofs {
    async fn show(&self, proof: &Proof) -> Result<(), String> {
        let kind = match proof.method {
            Method::Http01 => challenge::Kind::Http01,
            Method::TlsAlpn01 => challenge::Kind::TlsAlpn01,
            Method::Dns01 => return Err("proxies prove nothing by DNS".into()),
        };
        let told = Challenge {
            kind: kind.into(),
            host: proof.host.to_string(),
            token: proof.token.clone(),
            key_authorization: proof.key_authorization.clone(),
        };
        self.engine.tell_and_wait(move |engine| engine.show_challenge(&told)).await;
        let version = self.engine.read(|engine| engine.publisher.version()).await;
        let version = version.ok_or("the controller is stopping")?;
        let lagging = self.fleet.wait_for(version, LEASE).await;
        match lagging.as_slice() {
            [] => Ok(()),
            names => Err(format!("not every proxy shows it: {} lag", names.join(", "))),
        }
    }

    async fn withdraw(&self, proof: &Proof) {
        let (kind, host) = (proof.method.to_string(), proof.host.to_string());
        self.engine.tell_and_wait(move |engine| engine.withdraw_challenge(&kind, &host)).await;
    }
}

#[cfg(test)]
mod tests {
    use certs::development::DevelopmentCa;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn made(names: &[&str], now: SystemTime) -> Material {
        let folder = tempfile::tempdir().expect("folder");
        let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
        let zone = names[0].trim_start_matches("*.").parse().expect("a zone");
        Material {
            dns_names: names.iter().map(ToString::to_string).collect(),
            ..ca.wildcard(&zone, now).expect("issued")
        }
    }

    fn refused(retry_after: Option<Duration>) -> AcmeError {
        AcmeError::Server { doing: "answer", why: "busy".into(), retry_after }
    }

    #[test]
    fn certificates_are_ordered_when_missing_when_due_and_when_somebody_asks() {
        let now = SystemTime::now();
        let wanted = [vec!["*.a.example".to_owned()], vec!["*.b.example".to_owned()]];
        let (a, b) = (made(&["*.a.example"], now), made(&["*.b.example"], now - 300 * DAY));
        let orders = Orders::default();
        let ordered = |have: &[Material], now, forced| {
            let plan = orders.plan(&wanted, have, now, forced);
            (
                plan.order.into_iter().map(|(names, before)| (names[0].clone(), before.is_some())).collect::<Vec<_>>(),
                plan.next,
            )
        };
        let (first, second) = ("*.a.example".to_owned(), "*.b.example".to_owned());
        assert_eq!(ordered(&[], now, false), (vec![(first.clone(), false), (second.clone(), false)], None));
        let (due, next) = ordered(&[a.clone(), b.clone()], now, false);
        assert_eq!(due, [(second.clone(), true)], "the other one has lived for more than two thirds");
        assert!(next.is_some_and(|next| next > now + 200 * DAY), "{next:?}");
        assert_eq!(ordered(&[a, b], now, true).0, [(first, true), (second, true)]);
    }

    #[test]
    fn certificates_that_could_not_be_had_are_asked_for_ever_more_rarely() {
        let (now, names, all) = (SystemTime::now(), vec!["*.a.example".to_owned()], Vec::new());
        let wanted = [names.clone(), vec!["*.b.example".to_owned()]];
        let mut orders = Orders::default();
        let waits = |orders: &Orders, have: &[Material]| {
            let next = orders.plan(&wanted[..1], have, now, false).next;
            next.map(|next| next.duration_since(now).expect("later").as_secs())
        };
        for (failures, least, most) in [(1, 40, 60), (2, 90, 120), (6, 1_500, 1_920), (30, 17_000, 21_600)] {
            while orders.failures.get(&names).is_none_or(|failure| failure.count < failures) {
                orders.failed(&names, &refused(None), now);
            }
            // Also where there is none yet, and so nothing that could end.
            let wait = waits(&orders, &[]).expect("held");
            assert!((least..=most).contains(&wait), "{failures} failures: {wait} s");
        }
        let others = orders.plan(&wanted, &[], now, false);
        assert_eq!(others.order, [(wanted[1].clone(), None)], "the other one waits for nobody");
        orders.failed(&names, &refused(Some(2 * DAY)), now);
        assert_eq!(waits(&orders, &[]), Some(2 * 86_400), "as the authority said");
        assert!(!orders.is_due(&wanted[..1], &[], now + DAY) && orders.is_due(&wanted[..1], &[], now + 3 * DAY));
        assert!(orders.is_due(&wanted[..1], &[], now - DAY), "a clock that went back does not hold it");
        orders.succeeded(&names);
        assert_eq!(waits(&orders, &[]), None);
        orders.failed(&all, &refused(None), now);
        assert!(orders.plan(&wanted, &[], now, false).order.is_empty(), "what fails for all holds all");
        orders.keep(&wanted[1..]);
        assert!(orders.failures.contains_key(&all));
    }

    #[test]
    fn certificates_are_renewed_when_the_authority_says() {
        let now = SystemTime::now();
        let have = [made(&["*.a.example"], now)];
        let wanted = [have[0].dns_names.clone()];
        let digest = Digest::of(&have[0].chain_der[0]);
        let window = Window { start: now - DAY, end: now - DAY / 2, ask_again: DAY / 4 };
        let mut orders = Orders::default();
        assert!(orders.is_due(&wanted, &have, now), "it was never asked");
        orders.answered(digest, Some(None), now);
        assert!(!orders.is_due(&wanted, &have, now + DAY / 2) && orders.is_due(&wanted, &have, now + DAY));
        orders.answered(digest, None, now);
        assert!(!orders.is_due(&wanted, &have, now + DAY / 48), "one that does not answer is not asked all the time");
        assert!(orders.is_due(&wanted, &have, now + DAY / 24));
        orders.answered(digest, Some(Some(window)), now);
        assert_eq!(orders.plan(&wanted, &have, now, false).order.len(), 1, "the window is over");
        orders.answered(digest, None, now);
        assert_eq!(orders.plan(&wanted, &have, now, false).order.len(), 1, "and counts until another one comes");
    }
}
