//! The story that the demo tells, command by command.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::figures::{Figures, Step};
use super::issuer::{AUDIENCE, Issuer};
use super::load::{Counted, Credentials, Load, ask_as_stranger};
use super::parts::Parts;
use super::repository::Repository;
use crate::exit::Failure;

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
/// Requests by which a step is measured.
const PER_STEP: u64 = 4_000;
/// Requests of the whole tour, at least.
const AT_LEAST: u64 = 20_000;
/// Longest time for one step: the load is far faster.
const STEP: Duration = Duration::from_secs(60);
/// Longest time until the bad release shows in `status`.
const SEEN: Duration = Duration::from_secs(30);

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
        self.bad_release(parts).await?;
        self.roll_back(parts).await?;
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

    async fn first_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r1 goes through dev and staging into production")?;
        for environment in ["dev", "staging", "production"] {
            run(parts, &["promote", "hello@r1", "--to", environment]).await?;
        }
        let credentials = self.credentials.as_ref().ok_or_else(|| Failure::refused("nobody may call"))?;
        self.load = Some(Load::start(&parts.proxies, HOST, &authority(parts)?, credentials)?);
        tell!("  and requests begin, for alice through shop: HTTP/1.1, HTTP/2 and gRPC to both proxies")?;
        self.wait_for_requests(PER_STEP, &self.counted()).await
    }

    async fn second_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r2 takes over in steps")?;
        for environment in ["dev", "staging"] {
            run(parts, &["promote", "hello@r2", "--to", environment]).await?;
        }
        run(parts, &["promote", "hello@r2", "--to", "production", "--weight", "1%"]).await?;
        self.measure("r2", 1.0).await?;
        for weight in ["50%", "100%"] {
            run(parts, &["rollout", "weight", "hello/production", weight]).await?;
            self.measure("r2", weight.trim_end_matches('%').parse().unwrap_or(0.0)).await?;
        }
        Ok(())
    }

    async fn bad_release(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("r3 is bad: one request in twenty fails. It gets 20% of production")?;
        for environment in ["dev", "staging"] {
            run(parts, &["promote", "hello@r3", "--to", environment]).await?;
        }
        run(parts, &["promote", "hello@r3", "--to", "production", "--weight", "20%"]).await?;
        self.measure("r3", 20.0).await?;
        let deadline = Instant::now() + SEEN;
        while errors_of(&parts.ask_json(&["status", "hello/production"]).await?, 3) < 0.02 {
            if Instant::now() > deadline {
                return Err(Failure::refused("the errors of r3 do not show in `status`"));
            }
            sleep(Duration::from_millis(250)).await;
        }
        run(parts, &["status", "hello/production"]).await
    }

    async fn roll_back(&mut self, parts: &Parts) -> Result<(), Failure> {
        say("Everything back to r2")?;
        let command = ["rollback", "hello/production", "--reason", "one request in twenty fails"];
        tell!("  $ pointsman rollback hello/production --reason \"one request in twenty fails\"")?;
        let reply = parts.ask_json(&command).await?;
        let switched = reply["outcome"]["switched"].as_array().cloned().unwrap_or_default();
        for proxy in &switched {
            let ms = proxy["us"].as_f64().unwrap_or(0.0) / 1_000.0;
            let name = proxy["proxy"].as_str().unwrap_or_default();
            tell!("    proxy {name} switched in {ms:.1} ms")?;
            self.figures.rollback_ms.insert(name.to_owned(), ms);
        }
        tell!("    to undo: {}", reply["outcome"]["undo"].as_str().unwrap_or_default())?;
        // Requests that r3 had taken before the switch are still being answered.
        sleep(Duration::from_millis(500)).await;
        let since = self.counted();
        self.wait_for_requests(PER_STEP, &since).await?;
        let left = self.counted().since(&since).requests.get("r3").copied().unwrap_or(0);
        if left > 0 {
            return Err(Failure::refused(format!("r3 answered {left} requests after the rollback")));
        }
        tell!("  since then r3 has answered none of {} requests", PER_STEP)?;
        Ok(())
    }

    async fn sum_up(&mut self) -> Result<Figures, Failure> {
        let missing = AT_LEAST.saturating_sub(self.counted().total());
        self.wait_for_requests(missing, &self.counted()).await?;
        let counted = self.counted();
        let mut figures = std::mem::take(&mut self.figures);
        figures.requests = counted.total();
        figures.failed = counted.failed.values().sum();
        figures.failed_by_release = counted.failed;
        for release in ["r1", "r2", "r3"] {
            figures.failed_by_release.entry(release.into()).or_default();
        }
        figures.examples = counted.examples;
        Ok(figures)
    }

    fn counted(&self) -> Counted {
        self.load.as_ref().map(Load::counted).unwrap_or_default()
    }

    async fn wait_for_requests(&self, count: u64, since: &Counted) -> Result<(), Failure> {
        let deadline = Instant::now() + STEP;
        while self.counted().since(since).total() < count {
            if Instant::now() > deadline {
                return Err(Failure::refused("the demo's clients get too few answers"));
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Measures the share of a release, from now on.
    async fn measure(&mut self, release: &str, set: f64) -> Result<(), Failure> {
        let since = self.counted();
        self.wait_for_requests(PER_STEP, &since).await?;
        let seen = self.counted().since(&since);
        let (own, all) = (seen.requests.get(release).copied().unwrap_or(0), seen.total());
        let measured = own as f64 * 100.0 / all as f64;
        tell!("    measured: {measured:.2}% of {all} requests")?;
        self.figures.steps.push(Step { release: release.into(), set, measured, requests: all });
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
        tell!("  pointsman app revoke shop              # and requests are refused at once")?;
        tell!("  pointsman status --watch")?;
        tell!("  pointsman promote hello@r1 --to production --weight 10%")?;
        tell!("  pointsman rollback hello/production")?;
        tell!("  pointsman history hello/production")
    }
}

/// Who is trusted for the demo's certificates.
fn authority(parts: &Parts) -> Result<String, Failure> {
    let path = parts.folder.join("controller/development-ca.pem");
    fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error))
}

/// Share of errors of a release, as `status` has it.
fn errors_of(status: &Value, release: u64) -> f64 {
    let releases = status["services"][0]["stages"][0]["releases"].as_array();
    let found = releases.into_iter().flatten().find(|entry| entry["release"].as_u64() == Some(release));
    found.and_then(|entry| entry["error_share"].as_f64()).unwrap_or(0.0)
}
