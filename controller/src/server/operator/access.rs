//! Tokens, joining, the fleet's members, and the backup.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use api::operator::{
    BackupPiece, CreateJoinReply, CreateJoinRequest, CreateTokenReply, CreateTokenRequest, Done, FleetMembers,
    RevokeMemberRequest, RevokeTokenRequest, Token, Tokens,
};
use api::{JoinToken, MemberName, Scope, Span, Verb};
use certs::fleet::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::warn;

use super::Answers;
use crate::core::Command;
use crate::engine::{Engine, Priority};
use crate::server::Shared;
use crate::server::joining::serial_of;
use crate::server::who::{Operator, parse, stopping, wrong};
use crate::{secret, status};

/// Long enough to carry the token to another machine, short enough that a forgotten one is worthless.
const JOIN_VALID: Span = Span::from_ms(15 * 60_000).expect("15 minutes are a span");
/// How long an operator's certificate is good when nothing is said.
const CERTIFICATE_VALID: Span = Span::from_ms(30 * 86_400_000).expect("30 days are a span");
const PIECE_BYTES: usize = 256 * 1024;

impl Shared {
    pub(super) async fn create_token(
        &self,
        who: &Operator,
        request: CreateTokenRequest,
    ) -> Result<CreateTokenReply, Status> {
        who.may(Verb::Admin, None, None)?;
        let name: MemberName = parse(&request.name)?;
        let scope = read_scope(&request)?;
        if !request.csr_der.is_empty() {
            return self.certify_operator(who, name, scope, request).await;
        }
        let secret = secret::draw().map_err(Status::internal)?;
        let command = Command::CreateToken { name: name.clone(), secret: secret::hash(&secret), scope };
        self.ask(who, command, request.reason, String::new(), Priority::Normal).await?;
        Ok(CreateTokenReply { token: secret::operator_token(&name, &secret), ..CreateTokenReply::default() })
    }

    /// A certificate in place of a secret.
    async fn certify_operator(
        &self,
        who: &Operator,
        name: MemberName,
        scope: Scope,
        request: CreateTokenRequest,
    ) -> Result<CreateTokenReply, Status> {
        let valid = if request.valid_ms == 0 { Some(CERTIFICATE_VALID) } else { Span::from_ms(request.valid_ms) };
        let valid = valid.ok_or_else(|| Status::invalid_argument("a certificate is valid for 1ms to 366d"))?;
        let valid = Duration::from_millis(valid.ms());
        let signed = self.ca.sign_operator(&request.csr_der, &name, valid, SystemTime::now());
        let certificate_der = signed.map_err(|problem| Status::invalid_argument(problem.to_string()))?;
        let command = Command::CertifyOperator { name, serial: serial_of(&certificate_der)?, scope };
        self.ask(who, command, request.reason, String::new(), Priority::Normal).await?;
        Ok(CreateTokenReply { certificate_der, ca_pem: self.ca.certificate_pem(), ..CreateTokenReply::default() })
    }

    pub(super) async fn list_tokens(&self, who: &Operator) -> Result<Tokens, Status> {
        who.may(Verb::Read, None, None)?;
        fn words<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(ToString::to_string).collect()
        }
        let list = |engine: &Engine| {
            let token = |(name, token): (&MemberName, &crate::core::state::Token)| Token {
                name: name.to_string(),
                verbs: words(&token.scope.verbs),
                services: words(&token.scope.services),
                environments: words(&token.scope.environments),
                created_ms: token.created_ms,
                by: token.by.clone(),
                revoked: token.revoked,
            };
            Tokens { tokens: engine.state.tokens.iter().map(token).collect() }
        };
        self.engine.read(list).await.ok_or_else(stopping)
    }

    pub(super) async fn revoke_token(&self, who: &Operator, request: RevokeTokenRequest) -> Result<Done, Status> {
        who.may(Verb::Admin, None, None)?;
        let name = parse(&request.name)?;
        self.ask(who, Command::RevokeToken { name }, request.reason, String::new(), Priority::Normal).await?;
        Ok(Done {})
    }

    pub(super) async fn create_join(
        &self,
        who: &Operator,
        request: CreateJoinRequest,
    ) -> Result<CreateJoinReply, Status> {
        who.may(Verb::Fleet, None, None)?;
        let role: Role = parse(&request.role)?;
        let name: MemberName = parse(&request.name)?;
        let group = match role {
            Role::Agent => {
                parse::<MemberName>(if request.group.is_empty() { "default" } else { &request.group })?.to_string()
            }
            Role::Proxy if request.group.is_empty() => String::new(),
            Role::Proxy => {
                return Err(Status::invalid_argument("--group is for agents: a proxy serves all environments"));
            }
        };
        let valid = if request.valid_ms == 0 { Some(JOIN_VALID) } else { Span::from_ms(request.valid_ms) };
        let valid = valid.ok_or_else(|| Status::invalid_argument("a join token is valid for 1ms to 366d"))?;
        let controller = self.advertise.clone().ok_or_else(|| {
            Status::failed_precondition("the controller listens on all addresses and does not know which one others reach: start it with --advertise HOST:PORT")
        })?;
        let secret = secret::draw().map_err(Status::internal)?;
        // The engine's clock, which never goes back, decides when the token expires.
        let now_ms = status::clock_ms();
        let until_ms = now_ms + valid.ms();
        let command = Command::Invite { name, role, group, secret: secret::hash(&secret), until_ms };
        self.ask(who, command, request.reason, String::new(), Priority::Normal).await?;
        let token = JoinToken { controller, ca: self.ca.fingerprint(), secret };
        Ok(CreateJoinReply { token: token.to_string(), expires_ms: until_ms })
    }

    pub(super) async fn list_fleet(&self, who: &Operator) -> Result<FleetMembers, Status> {
        who.may(Verb::Read, None, None)?;
        let list = |engine: &Engine| FleetMembers { members: status::fleet(engine, Instant::now()) };
        self.engine.read(list).await.ok_or_else(stopping)
    }

    pub(super) async fn revoke_member(&self, who: &Operator, request: RevokeMemberRequest) -> Result<Done, Status> {
        who.may(Verb::Fleet, None, None)?;
        let name = parse(&request.name)?;
        self.ask(who, Command::RevokeMember { name }, request.reason, String::new(), Priority::Traffic).await?;
        Ok(Done {})
    }
}

fn read_scope(request: &CreateTokenRequest) -> Result<Scope, Status> {
    fn all<T: std::str::FromStr<Err = api::NotAccepted>>(words: &[String], mistakes: &mut Vec<String>) -> Vec<T> {
        let mut read =
            |word: &String| word.parse().map_err(|problem: api::NotAccepted| mistakes.push(problem.to_string())).ok();
        words.iter().filter_map(&mut read).collect()
    }
    let mut mistakes = Vec::new();
    let scope = Scope {
        verbs: all(&request.verbs, &mut mistakes),
        services: all(&request.services, &mut mistakes),
        environments: all(&request.environments, &mut mistakes),
    };
    if mistakes.is_empty() { Ok(scope) } else { Err(wrong(&mistakes)) }
}

/// A consistent copy of the event store, made beside it and sent in pieces.
pub(super) async fn backup(shared: Arc<Shared>, who: &Operator) -> Result<Answers<BackupPiece>, Status> {
    who.may(Verb::Admin, None, None)?;
    let name = format!("{UNFINISHED}{}{UNFINISHED_END}", secret::draw().map_err(Status::internal)?);
    let path = shared.data.join(name);
    let made = shared.engine.read(move |engine| copy_of(engine, &path)).await.ok_or_else(stopping)?;
    let mut file = made.map_err(|problem| Status::internal(format!("the backup could not be made: {problem}")))?;
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut data = Vec::with_capacity(PIECE_BYTES);
            let piece =
                match std::io::Read::read_to_end(&mut std::io::Read::take(&mut file, PIECE_BYTES as u64), &mut data) {
                    Ok(0) => return,
                    Ok(_) => Ok(BackupPiece { data }),
                    Err(problem) => Err(Status::internal(format!("the backup cannot be read: {problem}"))),
                };
            let ends = piece.is_err();
            if sender.blocking_send(piece).is_err() || ends {
                return;
            }
        }
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

/// Names of copies on their way begin and end so.
const UNFINISHED: &str = "backup-";
const UNFINISHED_END: &str = ".unfinished";

/// A copy of the store that goes with the returned file: made, opened and unlinked in one step, so that nothing is left
/// behind when nobody waits for it any more.
fn copy_of(engine: &Engine, path: &Path) -> Result<File, String> {
    let opened = match engine.store.backup(path) {
        Ok(_) => File::open(path).map_err(|problem| problem.to_string()),
        Err(problem) => Err(problem.to_string()),
    };
    let _ = std::fs::remove_file(path); // What cannot be removed is removed at the next start.
    opened
}

/// Removes copies that a crash left behind: the names are ours, with what may follow while one is written.
pub(crate) fn remove_unfinished(data: &Path) {
    for entry in std::fs::read_dir(data).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(UNFINISHED) && name.contains(UNFINISHED_END));
        if ours && let Err(problem) = std::fs::remove_file(entry.path()) {
            warn!(file = %entry.path().display(), %problem, "an unfinished backup cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_that_a_crash_left_behind_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().expect("folder");
        let ours = ["backup-x.unfinished", "backup-x.unfinished.partial", "backup-x.unfinished.partial-journal"];
        let theirs = ["backup-monday.db", "events.db", "x.unfinished"];
        for name in ours.iter().chain(&theirs) {
            std::fs::write(folder.path().join(name), "x").expect("written");
        }
        remove_unfinished(folder.path());
        for name in ours {
            assert!(!folder.path().join(name).exists(), "{name}");
        }
        for name in theirs {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }
}
