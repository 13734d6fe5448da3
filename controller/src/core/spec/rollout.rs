//! How a release enters a stage, and what is watched meanwhile and afterwards.
//!
//! Must not know: which rollout is under way, or how far it has come.
//!
//! Main types: [`RolloutSpec`]; [`Strategy`] with its [`Step`]s; [`Check`], whose texts have words to [`fill`].

mod near;
mod shown;
#[cfg(test)]
mod sound;
#[cfg(test)]
mod tests;
mod words;

use api::{Host, MemberName, ReleaseNumber, Share, Span};
use serde::{Deserialize, Serialize};

use super::OnMachine;

pub(crate) use near::{is_near, names_near};
pub use words::{WORDS, WrongWord, check_words, fill};

/// Most steps of a rollout.
pub const STEPS_MOST: usize = 50;
/// Longest least time of a step, and longest watch after a flip.
pub const STEP_TIME_MOST: Span = Span::from_ms(30 * 86_400_000).expect("30 days");
/// Most requests that a step asks for.
pub const STEP_REQUESTS_MOST: u32 = 10_000_000;
/// Smallest share that is written: a request in a million.
pub const SHARE_LEAST: &str = "0.0001%";
/// Longest value of the field that insiders send, in bytes.
pub const INSIDERS_BYTES: usize = 256;
/// Most checks of a stage.
pub const CHECKS_MOST: usize = 10;
/// Between two tries of a check when nobody says otherwise.
pub const CHECK_EVERY: Span = Span::from_ms(30_000).expect("30 seconds");
/// For one try of a check when nobody says otherwise.
pub const CHECK_TIMEOUT: Span = Span::from_ms(10_000).expect("10 seconds");
/// Failures in a row of a check that count as one when nobody says otherwise.
pub const CHECK_FALL: u32 = 3;

/// How a release enters a stage. Frozen into the rollout when it begins: a file that is applied meanwhile counts for the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RolloutSpec {
    /// Default all at once.
    pub strategy: Strategy,
    /// Which callers keep their release while shares move; default none.
    pub sticky: Sticky,
    /// What becomes of a release that is promoted while another is on its way in; default that it is refused.
    pub meanwhile: Meanwhile,
    /// What happens when the release is worse than the stable one; default rollback.
    pub on_worse: OnWorse,
    /// By how much it may be worse, and what slow is.
    pub bounds: Bounds,
    /// A field of answers by which the service says that a request has failed, in lower case; none: status alone.
    pub failure_header: Option<String>,
    /// Run at each step of a canary and before and after the flip of blue-green, besides the judge; each by a name of its
    /// own. At most [`CHECKS_MOST`].
    pub checks: Vec<Check>,
    /// What the stage promises; watched while the release before is warm. None: nothing is watched after the end.
    pub objective: Option<Objective>,
}

/// In which way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Healthy, then everything at once.
    #[default]
    AllAtOnce,
    /// Healthy and reachable at its own host, checked there, then everything at once, then checked again.
    BlueGreen(BlueGreen),
    /// In steps, each earned. Never empty, at most [`STEPS_MOST`]; the last is a share of everything and nothing else, and
    /// reaching it completes the rollout.
    Canary(Vec<Step>),
}

/// Before and after the flip.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlueGreen {
    /// Wait for `rollout resume` before the flip; default no.
    pub pause: bool,
    /// How long all has to be well after the flip before it counts as done; a check that fails, or the judge by the
    /// objective, flips back. Default none: it is done at once.
    pub watch: Option<Span>,
}

/// A part of the way. It is over when all of it is true at once: its time and its requests have passed, checks are well, and the
/// judge does not say worse. A step with neither time nor requests is over when the judge says no worse.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Of the stage's requests; never less than in a step before. None: that of the step before, nothing in the first; see
    /// [`Strategy::share_at`].
    pub share: Option<Share>,
    /// Requests that go to the release whatever the share. They are not judged.
    pub insiders: Option<Insiders>,
    /// Least time; none: no least.
    pub least_time: Option<Span>,
    /// Least judged requests of the release within this step. Only where the share in force is not nothing.
    pub requests: Option<u64>,
    /// Wait for `rollout resume`.
    pub pause: bool,
}

/// Requests with this field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Insiders {
    /// In lower case.
    pub header: String,
    /// The whole value.
    pub value: String,
}

/// Which callers keep their release while shares move.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// None: each request is dealt out by itself.
    #[default]
    None,
    /// Whoever has credentials.
    Identity,
    /// Whoever keeps the cookie that the proxy gives.
    Cookie,
}

/// What becomes of a release that is promoted while another is on its way in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Meanwhile {
    /// `finish`: it is refused.
    #[default]
    Finish,
    /// `replace`: the other one leaves, without a mark, and this one begins at the first step.
    Replace,
    /// `queue`: it waits; of several the newest promoted enters, the others are dropped, which is on record.
    Queue,
}

/// What happens when the release is worse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnWorse {
    /// Everything back, and the release is marked bad.
    #[default]
    Rollback,
    /// Nothing moves until somebody says what to do.
    Freeze,
}

/// By how much a release may be worse than the stable one, and what slow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Share of failed requests beyond the stable one's that is accepted; default 0.1 %.
    pub errors: Share,
    /// An answer that takes longer is slow; none: longer than the stable one's own 95 % when the rollout begins.
    pub slow: Option<Span>,
    /// Share of slow requests beyond the stable one's that is accepted; default 5 %.
    pub slow_share: Share,
}

impl RolloutSpec {
    /// Programs of the controller's machine that its checks run, with their arguments, and servers there that they ask.
    pub fn on_machine(&self) -> impl Iterator<Item = OnMachine> {
        self.checks.iter().filter_map(|check| match &check.kind {
            CheckKind::Command { command } => Some(OnMachine::of("command", command.iter().map(String::as_str))),
            // Such an authority could let anybody behind the stage's host have the key.
            CheckKind::Http { url, app: Some(app), ca: Some(ca) } => {
                Some(OnMachine::of("ca beside app", [url.as_str(), app.as_str(), ca.as_str()]))
            }
            CheckKind::Http { url, .. } => names_near(&sample(url)).then(|| OnMachine::of("http", [url.as_str()])),
            CheckKind::Prometheus { url, .. } => names_near(url).then(|| OnMachine::of("prometheus", [url.as_str()])),
        })
    }
}

/// The text of a check for some release.
pub(crate) fn sample(text: &str) -> String {
    fill(text, &"r1--a.example".parse::<Host>().expect("a host"), ReleaseNumber::FIRST)
}

impl Strategy {
    /// The steps; none unless it goes in steps.
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::Canary(steps) => steps,
            Self::AllAtOnce | Self::BlueGreen(_) => &[],
        }
    }

    /// The share in force at a step, from 0: its own, else that of the last step before it that has one, else nothing.
    /// Beyond the last step, that of the last.
    pub fn share_at(&self, step: usize) -> Share {
        self.steps().iter().take(step.saturating_add(1)).rev().find_map(|step| step.share).unwrap_or(Share::NONE)
    }
}

impl Default for Bounds {
    fn default() -> Self {
        let share = |ppm| Share::from_ppm(ppm).expect("below everything");
        Self { errors: share(1_000), slow: None, slow_share: share(50_000) }
    }
}

/// Something else that says whether all is well. Its name is for people and stands in events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// As written: `[[stage.production.check]]`, `name`.
    pub name: String,
    /// What is asked.
    pub kind: CheckKind,
    /// Default [`CHECK_EVERY`]; 1 s to 1 h.
    pub every: Span,
    /// For one try; default [`CHECK_TIMEOUT`]; at most 1 h.
    pub timeout: Span,
    /// Failures in a row that count as one; default [`CHECK_FALL`]; 1 to 100.
    pub fall: u32,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// 2xx is well. `{host}` becomes the host of the release, `{release}` its number, `{{` a brace: see [`fill`].
    Http {
        /// http or https, without credentials. The host may be a word.
        url: String,
        /// The application that asks: its key is in `checks/keys/SERVICE/ENVIRONMENT/APP` of the controller's data folder. Only where the URL
        /// begins with `https://{host}`. None: a stranger asks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        app: Option<MemberName>,
        /// Who vouches for the server's certificate, PEM; none: the controller's own authority in zones with development
        /// certificates, whom the machine trusts elsewhere.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
    /// Exit code 0 is well. Run on the controller's machine with the stage and the release in its environment.
    Command {
        /// Program and arguments; the same words are replaced.
        command: Vec<String>,
    },
    /// An instant query whose every result lies within the limits; no result, or no answer, is not known, and never well.
    Prometheus {
        /// Of the server, http or https, without credentials, query and words.
        url: String,
        /// PromQL; the same words are replaced.
        query: String,
        /// Accepted values.
        limits: Limits,
        /// Who vouches for the server's certificate, PEM; none: whom the machine trusts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<String>,
    },
}

#[cfg(test)]
impl CheckKind {
    /// Asked by a stranger, of a server that whoever usually vouches for vouches for.
    pub(crate) fn http(url: impl Into<String>) -> Self {
        Self::Http { url: url.into(), app: None, ca: None }
    }

    pub(crate) fn prometheus(url: impl Into<String>, query: &str, limits: Limits) -> Self {
        Self::Prometheus { url: url.into(), query: query.to_owned(), limits, ca: None }
    }
}

/// Accepted values, as decimal numbers in the text in which they were written (`0.99`, without exponent): they are compared,
/// not counted with. At least one of them is there, and `least` is no more than `most`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Inclusive; none: no least.
    pub least: Option<String>,
    /// Inclusive; none: no most.
    pub most: Option<String>,
}

/// What a stage promises (`objective`); at least one of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objective {
    /// Most failed requests; none: not watched.
    pub errors: Option<Share>,
    /// What slow is, and most slow requests; none: not watched.
    pub slow: Option<(Span, Share)>,
    /// Default ask.
    pub on_breach: Breach,
}

/// What happens when a promise is broken after a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    /// It is told, in `status` and the watch, with the command that rolls back.
    #[default]
    Ask,
    /// Everything back.
    Rollback,
}
