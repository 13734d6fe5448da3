//! Asks a check once, with at most so many under way at all.

use std::time::Duration;

use certs::CertsError;
use certs::endpoint::Authorities;

use super::command::{self, CheckFolders};
use super::http::{Asked, Door, Way};
use super::line;
use super::seals::Seals;
use super::turns::Turns;
use super::wanted::Wanted;
use super::{http, prometheus};
use crate::build::Cancel;
use crate::build::process::cancelled;
use crate::core::spec::{CheckKind, fill, is_near, names_near, sample};

/// What a check said. Problems are one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Well,
    /// No, or nothing in time: why.
    Failed(String),
    /// Neither yes nor no: why. Also when nothing could be asked: whatever this machine lacks says nothing of a release.
    Silent(String),
}

/// Whoever asks.
pub(super) struct Asker {
    folders: CheckFolders,
    /// Who is believed about servers.
    machine: Authorities,
    /// Who is believed about hosts of environments with development certificates.
    development: Authorities,
    turns: Turns,
    seals: Seals,
}

impl Asker {
    /// `development`: the certificate of the controller's own authority, as PEM.
    pub(super) fn new(folders: CheckFolders, development: &str, seals: Seals) -> Self {
        let development = Authorities::parse(development).expect("our own authority is one");
        Self { folders, machine: Authorities::of_machine(), development, turns: Turns::new(), seals }
    }

    /// Waits for its turn and asks; none: cancelled, and all that it began has ended.
    pub(super) async fn ask(&self, one: &Wanted, cancel: &mut Cancel) -> Option<Outcome> {
        let _turn = tokio::select! {
            biased;
            () = cancelled(cancel) => return None,
            turn = self.turns.of(&one.stage) => turn,
        };
        match &one.check.kind {
            // It ends by itself when it is cancelled: in order, and with all that it has started.
            CheckKind::Command { command } => command::ask(&self.folders, one, command, cancel).await,
            asked => tokio::select! {
                biased;
                () = cancelled(cancel) => None,
                outcome = self.ask_server(one, asked) => Some(outcome),
            },
        }
    }

    async fn ask_server(&self, one: &Wanted, asked: &CheckKind) -> Outcome {
        let word = |text: &str| fill(text, &one.host, one.release);
        match asked {
            CheckKind::Http { url, app, ca } => {
                let filled = word(url);
                let zone = one.development_zone.as_ref();
                let is_own = zone.is_some_and(|zone| http::is_within(&filled, zone));
                let usual = if is_own { &self.development } else { &self.machine };
                let Ok(authorities) = believed(ca.as_deref(), usual) else { return unbelievable() };
                let key = match app {
                    Some(app) => match self.folders.key_of(one, &filled, app).await {
                        Ok(key) => Some(key),
                        Err(why) => return Outcome::Silent(why),
                    },
                    None => None,
                };
                let asked = http::ask(&filled, &Way { key, ..way(one, url, &filled, &authorities) }).await;
                self.at_the_door(one, &filled, asked).await
            }
            CheckKind::Prometheus { url, query, limits, ca } => {
                let Ok(authorities) = believed(ca.as_deref(), &self.machine) else { return unbelievable() };
                prometheus::ask(url, &word(query), limits, &way(one, url, url, &authorities)).await
            }
            CheckKind::Command { .. } => unreachable!("commands are no servers"),
        }
    }

    /// A door that is closed to the check says nothing of the release behind it.
    async fn at_the_door(&self, one: &Wanted, url: &str, asked: Asked) -> Outcome {
        let Asked { outcome, door } = asked;
        match door {
            Some(Door::Hidden(id)) => self.seals.opened(id).await.map_or(outcome, Outcome::Silent),
            // A proxy, as likely as the release; of a public stage that hides what it denies, the release alone.
            Some(Door::Closed { said }) if one.is_own(&http::host_of(url)) && (!one.public || one.denies_openly) => {
                Outcome::Silent(match one.wants_user {
                    true => WANTS_USER.to_owned(),
                    false => line::one(&format!("it is not let in: {said}")),
                })
            }
            Some(Door::Closed { .. }) | None => outcome,
        }
    }
}

/// What no check is, and no application alone.
const WANTS_USER: &str = "the stage wants a user's credentials (`credentials`), which a check by http has not: a command can bring some, \
                          or its environment can do with `credentials = [\"application\"]`";

/// Who is believed: those that the file names, and otherwise the usual ones.
fn believed(named: Option<&str>, usual: &Authorities) -> Result<Authorities, CertsError> {
    named.map_or_else(|| Ok(usual.clone()), Authorities::parse)
}

/// Files with such a `ca` are refused.
fn unbelievable() -> Outcome {
    Outcome::Silent("its `ca` cannot be read".to_owned())
}

/// A name leads to this machine or its link only where the file says that it does, which took a token that may do everything, or
/// where it is the stage's own: the operator said where that is.
fn way<'a>(one: &Wanted, written: &str, filled: &str, authorities: &'a Authorities) -> Way<'a> {
    let is_own = one.is_own(&http::host_of(filled));
    let may_reach = match names_near(&sample(written)) || is_own {
        true => |_| true,
        false => |address| !is_near(address),
    };
    Way { authorities, may_reach, timeout: Duration::from_millis(one.check.timeout.ms()), key: None, is_own }
}
