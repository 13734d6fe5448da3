//! The story that the demo tells, command by command.
//!
//! The rooms: `traffic` has the chapters in which shares move, `measured` what the clients saw meanwhile.

mod measured;
mod traffic;

use std::fs;

use super::figures::Figures;
use super::issuer::{AUDIENCE, Issuer};
use super::load::{Credentials, Load, ask_as_stranger};
use super::parts::Parts;
use super::repository::Repository;
use crate::exit::Failure;

const STAGE: &str = "hello/production";
const HOST: &str = "hello.production.localhost";
/// A host of the same zone that does not exist.
const NOWHERE: &str = "nowhere.production.localhost";
/// Who may call, as a policy says it.
const POLICY: &str = "\
permit (
  principal in Group::\"staff\",
  action in [Action::\"discover\", Action::\"call\", Action::\"use\"],
  resource
);
";
/// What else to try, in this order: r2 serves all, r1 is warm, r3 is marked bad.
const LINES: &str = "\
pointsman status --watch                             # q leaves
pointsman promote hello@r1 --to production           # back to r1, by the steps
pointsman rollout watch hello/production             # at 50% it waits for you; q leaves
pointsman rollout resume hello/production            # let it go on
pointsman rollback hello/production                  # to r2, at once, in the middle or afterwards
pointsman unhold hello/production r3                 # it is bad nevertheless,
pointsman promote hello@r3 --to production           # and is stopped again
pointsman explain rollout hello/production
pointsman history hello/production
pointsman app revoke shop                            # and requests are refused at once
";

/// The demo once everything runs.
pub(super) struct Tour {
    repository: Repository,
    issuer: Issuer,
    credentials: Option<Credentials>,
    load: Option<Load>,
    figures: Figures,
}

fn say(text: &str) -> Result<(), Failure> {
    tell!("\n{text}")
}

/// Shows a command as it could be typed, and what it prints.
async fn run(parts: &Parts, arguments: &[&str]) -> Result<(), Failure> {
    tell!("  $ pointsman {}", arguments.join(" "))?;
    for line in parts.ask(arguments).await?.lines() {
        tell!("    {line}")?;
    }
    Ok(())
}

/// Lets a release through the environments before production, which tell nothing that production does not.
async fn prepare(parts: &Parts, release: &str) -> Result<(), Failure> {
    for environment in ["dev", "staging"] {
        let arguments = ["promote", release, "--to", environment];
        tell!("  $ pointsman {}", arguments.join(" "))?;
        let told = parts.ask(&arguments).await?;
        told.lines().filter(|line| line.starts_with("done")).try_for_each(|line| tell!("    {line}"))?;
    }
    Ok(())
}

impl Tour {
    /// Makes the repository and starts all parts.
    pub(super) async fn begin(parts: &mut Parts) -> Result<Self, Failure> {
        say("Pointsman on this machine: a git repository, a controller, two proxies and an agent")?;
        let repository = parts.folder.join("hello");
        fs::create_dir(&repository).map_err(|error| Failure::file(&repository, &error))?;
        let repository = Repository::make(&repository)?;
        tell!("  a repository with {} commits in {}", repository.commits.len(), repository.folder.display())?;
        let issuer = Issuer::start().await?;
        parts.controller().await?;
        for proxy in ["p1", "p2"] {
            parts.proxy(proxy).await?;
        }
        parts.agent("a1", "demo").await?;
        let places: Vec<_> = parts.proxies.iter().map(|(name, address)| format!("{name} at https {address}")).collect();
        tell!("  controller, {}, agent a1", places.join(", "))?;
        let figures = Figures { bad: "r3".into(), ..Figures::default() };
        Ok(Self { repository, issuer, credentials: None, load: None, figures })
    }

    /// The whole story.
    pub(super) async fn walk(&mut self, parts: &Parts) -> Result<Figures, Failure> {
        self.describe(parts).await?;
        self.say_who_may_call(parts).await?;
        self.build(parts).await?;
        self.first_release(parts).await?;
        self.meet_a_stranger(parts).await?;
        self.second_release(parts).await?;
        self.roll_back(parts).await?;
        self.bad_release(parts).await?;
        self.sum_up().await
    }

    async fn describe(&self, parts: &Parts) -> Result<(), Failure> {
        say("Three environments and a service, as files")?;
        for environment in ["dev", "staging", "production"] {
            let text = format!(
                "schema = 1\nenvironment = \"{environment}\"\nzone = \"{environment}.localhost\"\ntarget = {{ kind = \"agent\", group = \"demo\" }}\n"
            );
            let path = parts.folder.join(format!("{environment}.toml"));
            fs::write(&path, text).map_err(|error| Failure::file(&path, &error))?;
        }
        let file = |name: &str| parts.folder.join(name).display().to_string();
        let files = ["dev.toml", "staging.toml", "production.toml", "hello/pointsman.toml"].map(file);
        run(parts, &["apply", "-f", &files[0], "-f", &files[1], "-f", &files[2], "-f", &files[3]]).await
    }

    async fn say_who_may_call(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("Who may call: people of the group staff, by a token, through an application, by its key")?;
        let access = format!(
            "schema = 1\npolicies = [\"staff.cedar\"]\n\n[issuer.demo]\nissuer = \"{}\"\naudience = [\"{AUDIENCE}\"]\n\
             groups = [{{ claim = \"groups\" }}]\n",
            self.issuer.url
        );
        for (name, text) in [("access.toml", access.as_str()), ("staff.cedar", POLICY)] {
            let path = parts.folder.join(name);
            fs::write(&path, text).map_err(|error| Failure::file(&path, &error))?;
        }
        POLICY.lines().try_for_each(|line| tell!("    {line}"))?;
        run(parts, &["apply", "-f", &parts.folder.join("access.toml").display().to_string()]).await?;
        tell!("  $ pointsman app create shop")?;
        let made = parts.ask_json(&["app", "create", "shop"]).await?;
        let api_key = made["key"].as_str().ok_or_else(|| Failure::refused("`app create` gave no key"))?.to_owned();
        tell!("    its key, shown once: {api_key}")?;
        let token = self.issuer.token("alice", &["staff"]);
        self.credentials = Some(Credentials { api_key, token });
        Ok(())
    }

    /// Whoever may not see production cannot tell that it exists; who runs it can tell why somebody was turned away.
    async fn meet_a_stranger(&self, parts: &Parts) -> Result<(), Failure> {
        say("Somebody without credentials asks for production, and for a host that does not exist")?;
        let Some((_, proxy)) = parts.proxies.first() else { return Ok(()) };
        let authority = authority(parts)?;
        let hidden = ask_as_stranger(*proxy, HOST, &authority).await?;
        let unknown = ask_as_stranger(*proxy, NOWHERE, &authority).await?;
        for (host, shown) in [(HOST, &hidden), (NOWHERE, &unknown)] {
            tell!("  https://{host}/ answers {}: {}", shown.status, String::from_utf8_lossy(&shown.body).trim_end())?;
        }
        if (hidden.status, &hidden.fields, &hidden.body) != (unknown.status, &unknown.fields, &unknown.body)
            || hidden.id.len() != unknown.id.len()
        {
            return Err(Failure::refused(format!("the two can be told apart: {hidden:?}, {unknown:?}")));
        }
        tell!("  every other byte is the same, too. The id in x-request-id says more to those who run it:")?;
        run(parts, &["explain", "request", &hidden.id]).await
    }

    async fn build(&self, parts: &Parts) -> Result<(), Failure> {
        say("Three commits become three releases (the first build compiles the example's dependencies)")?;
        for (commit, number) in self.repository.commits.iter().zip(1..) {
            tell!("  $ pointsman release build hello --commit {}", &commit[..12])?;
            // The compiler's output is kept and can be read with `release logs`; here the end is enough.
            parts.ask(&["release", "build", "hello", "--commit", commit]).await?;
            let release = parts.ask_json(&["release", "show", &format!("hello@r{number}")]).await?;
            let digest = release["artifacts"][0]["digest"].as_str().unwrap_or_default();
            tell!(
                "    r{number} {}: {}",
                release["subject"].as_str().unwrap_or_default(),
                digest.get(..19).unwrap_or(digest)
            )?;
        }
        Ok(())
    }

    /// Lines to copy while it stays up.
    ///
    /// # Errors
    /// Nobody reads them.
    pub(super) fn invite(&self, parts: &Parts) -> Result<(), Failure> {
        let Some((_, address)) = parts.proxies.first() else { return Ok(()) };
        let folder = parts.folder.display();
        tell!("\nIt stays up until Ctrl-C, with its load. To copy:\n")?;
        tell!("  alias pointsman={}", parts.program.display())?;
        tell!("  export POINTSMAN_CONTEXT={}", parts.context().display())?;
        if let Some(Credentials { api_key, token }) = &self.credentials {
            tell!("  export KEY={api_key}\n  export TOKEN={token}")?;
        }
        let who = "-H \"x-api-key: $KEY\" -H \"authorization: Bearer $TOKEN\"";
        tell!(
            "  curl {who} --cacert {folder}/controller/development-ca.pem --resolve {HOST}:{port}:127.0.0.1 https://{HOST}:{port}/",
            port = address.port()
        )?;
        tell!(
            "  curl {who} --cacert {folder}/controller/development-ca.pem --resolve r1--{HOST}:{port}:127.0.0.1 https://r1--{HOST}:{port}/",
            port = address.port()
        )?;
        LINES.lines().try_for_each(|line| tell!("  {line}"))
    }
}

/// Who is trusted for the demo's certificates.
fn authority(parts: &Parts) -> Result<String, Failure> {
    let path = parts.folder.join("controller/development-ca.pem");
    fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))
}
