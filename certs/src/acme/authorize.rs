//! The proofs of an order (RFC 8555 §7.5): what is to be shown, showing it, and whether the server found it.
//!
//! Each step may be repeated after a refused nonce: it begins with what was answered before.

use std::collections::HashSet;

use instant_acme::{AuthorizationStatus, Error, Order, OrderStatus};

use super::account::{failed, unless_nonce};
use super::error::plain;
use super::order::LOOKING;
use super::{AcmeError, Method, Problem, Proof, Prover};

/// Tokens carry at least 128 bits of entropy (RFC 8555 §8.1) and become names of files and messages.
const LONGEST_TOKEN: usize = 256;

/// What is to be shown for one of the names.
pub(super) struct Pending {
    name: String,
    proof: Proof,
}

/// What there is to show; nothing for names that are proved already.
pub(super) async fn gather(order: &mut Order, names: &[String], method: Method) -> Result<Vec<Pending>, AcmeError> {
    const DOING: &str = "say what is to be proved";
    if order.state().authorizations.len() > names.len() {
        return Err(server(DOING, "it asks for more proofs than there are names".into()));
    }
    let mut pending = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| failed(DOING, &error))?;
        let name = authorization.identifier().to_string();
        if !names.contains(&name) {
            return Err(server(DOING, format!("it asks to prove {}, which is not in the order", plain(&name))));
        }
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => return Err(server(DOING, format!("the authorization of {name} is {other:?}"))),
        }
        let offered = authorization.challenges.iter().filter_map(|challenge| Method::of(&challenge.r#type)).collect();
        let Some(challenge) = authorization.challenge(method.challenge()) else {
            return Err(AcmeError::NotOffered { name, method, offered });
        };
        let host = name.strip_prefix("*.").unwrap_or(&name);
        let proof = Proof {
            method,
            host: host.parse().expect("the names of an order are DNS names"),
            token: token(&challenge.token).ok_or_else(|| server(DOING, format!("its token for {name} is not one")))?,
            key_authorization: challenge.key_authorization().as_str().to_owned(),
            dns_value: challenge.key_authorization().dns_value(),
        };
        pending.push(Pending { name, proof });
    }
    Ok(pending)
}

/// base64url, bounded (RFC 8555 §8.1).
fn token(token: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    ((1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(allowed)).then(|| token.to_owned())
}

pub(super) async fn show(pending: &[Pending], prover: &dyn Prover, shown: &mut Vec<Proof>) -> Result<(), AcmeError> {
    for Pending { name, proof } in pending {
        // Before it is tried: of what fails a part may be visible.
        shown.push(proof.clone());
        let failed = |why| AcmeError::Show { name: name.clone(), method: proof.method, why };
        prover.show(proof).await.map_err(failed)?;
    }
    Ok(())
}

/// Asks the server to look at each proof, once: those in `told` it was asked about before.
pub(super) async fn tell(order: &mut Order, method: Method, told: &mut HashSet<String>) -> Result<(), AcmeError> {
    const DOING: &str = "look at a proof";
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| failed(DOING, &error))?;
        let name = authorization.identifier().to_string();
        if authorization.status != AuthorizationStatus::Pending || told.contains(&name) {
            continue;
        }
        let Some(mut challenge) = authorization.challenge(method.challenge()) else { continue };
        challenge.set_ready().await.map_err(|error| match &error {
            // In the challenge itself, as the library hands it over: the server has looked already.
            Error::Api(problem) if !Problem::new(problem).is("badNonce") => {
                AcmeError::Proof { name: name.clone(), method, problem: Problem::new(problem) }
            }
            error => failed(DOING, error),
        })?;
        told.insert(name);
    }
    Ok(())
}

pub(super) async fn wait_until_ready(order: &mut Order, method: Method) -> Result<(), AcmeError> {
    const DOING: &str = "look at the proofs";
    let looked = unless_nonce!(order.poll_ready(&LOOKING).await.map_err(|error| failed(DOING, &error)));
    let error = match looked {
        Ok(OrderStatus::Ready) => return Ok(()),
        Ok(_) => server(DOING, "the order has become invalid".into()),
        Err(error @ AcmeError::Refused { .. }) => error,
        Err(error) => return Err(error),
    };
    // The order does not say which name it was.
    Err(failed_proof(order, method).await.unwrap_or(error))
}

/// The first proof that the server did not find.
async fn failed_proof(order: &mut Order, method: Method) -> Option<AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let refreshed = unless_nonce!(match authorization.refresh().await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed("say which proof it did not find", &error)),
        });
        if refreshed.is_err() {
            continue;
        }
        let mut errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = errors.next() {
            let name = authorization.identifier().to_string();
            return Some(AcmeError::Proof { name, method, problem: Problem::new(problem) });
        }
    }
    None
}

pub(super) fn server(doing: &'static str, why: String) -> AcmeError {
    AcmeError::Server { doing, why, retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_acme_tokens_are_names_that_do_no_harm() {
        for (text, accepted) in [
            ("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA", true),
            ("a_b", true),
            ("", false),
            ("../../etc/passwd", false),
            ("a b", false),
            ("a\r\nb", false),
            ("ä", false),
            (&"a".repeat(257), false),
        ] {
            assert_eq!(token(text).is_some(), accepted, "{text:?}");
        }
    }
}
