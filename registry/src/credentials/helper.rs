//! `docker-credential-<name> get`: one question, one answer, within a deadline; nothing of it stays.
//!
//! The protocol is that of docker-credential-helpers: the server's address on standard input, JSON on standard output; what
//! is not there is said on standard output too, with another exit status than 0.
//!
//! A helper gets this process's environment: it is the operator's program, and finds its own configuration by it.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::Login;

/// For one answer: helpers ask services in the network.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest answer that is taken.
const MOST_BYTES: u64 = 64 * 1024;

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// Asks a helper who we are at `server`.
///
/// # Errors
/// A sentence with the helper's name; nothing that it said, which may be a secret.
pub(super) async fn get(name: &str, server: &str) -> Result<Login, String> {
    let program = format!("docker-credential-{name}");
    let failed = |why: &str| format!("{program} {why}");
    let asked = tokio::time::timeout(DEADLINE, ask(&program, server)).await;
    let (worked, answer) = asked
        .map_err(|_| failed("did not answer within 30s and was ended"))?
        .map_err(|error| failed(&format!("could not be asked: {error}")))?;
    if !worked {
        // The one thing that it may say and that is no failure.
        if String::from_utf8_lossy(&answer).contains("credentials not found") {
            return Ok(Login::Nobody);
        }
        return Err(failed("failed"));
    }
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| failed("did not answer with a Username and a Secret in JSON"))?;
    Ok(match answer.user.as_str() {
        "<token>" => Login::Identity(answer.secret),
        _ => Login::Password { user: answer.user, password: answer.secret },
    })
}

/// Whether it worked, and what it said.
async fn ask(program: &str, server: &str) -> std::io::Result<(bool, Vec<u8>)> {
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut group = Group(command.process_group(0).spawn()?);
    let mut input = group.0.stdin.take().expect("piped");
    let output = group.0.stdout.take().expect("piped");
    // One that does not read what it is asked may answer all the same.
    let _ = input.write_all(format!("{server}\n").as_bytes()).await;
    drop(input);
    let mut answer = Vec::new();
    output.take(MOST_BYTES + 1).read_to_end(&mut answer).await?;
    if answer.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other("its answer has no end"));
    }
    Ok((group.0.wait().await?.success(), answer))
}

/// A process group that ends with this value.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Of one that was waited for the number is gone, and may be another's.
        let leader = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
