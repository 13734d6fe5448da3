//! Break glass: asks the proxy on this machine, without any controller.

use std::path::{Path, PathBuf};

use ::proxy::local::{LocalReply, LocalRequest, LocalStatus, request};
use api::{ReleaseNumber, Span, StageName};
use clap::Args;

use crate::exit::{Ended, Exit, Failure};
use crate::output::Output;
use crate::render::{Line, Style, Table, View, clock};

/// What `proxy override` is given.
#[derive(Debug, Args)]
pub(crate) struct OverrideArgs {
    /// The stage, such as hello/production.
    stage: StageName,
    /// The release that takes everything.
    #[arg(required_unless_present = "end", requires_all = ["time", "reason"])]
    release: Option<ReleaseNumber>,
    /// For how long.
    #[arg(id = "time", long = "for", value_name = "TIME", conflicts_with = "end")]
    time: Option<Span>,
    /// Why; told to the controller when it is back.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End the stage's override: the controller's weights count again.
    #[arg(long, conflicts_with = "release")]
    end: bool,
    /// The proxy's folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

/// Sets or ends an override.
///
/// # Errors
/// No proxy, or its refusal.
pub(super) async fn set(args: OverrideArgs, output: &Output) -> Ended {
    let (stage, by) = (args.stage.clone(), who());
    let question = match (args.release, args.time) {
        (Some(release), Some(time)) => LocalRequest::Override {
            stage: args.stage,
            release,
            for_ms: time.ms(),
            by,
            reason: args.reason.unwrap_or_default(),
        },
        _ => LocalRequest::End { stage: args.stage, by },
    };
    match ask(&args.data, question).await? {
        LocalReply::Done { until_ms: 0 } => {
            output.lines(&[Line::plain(format!("the override of {stage} has ended"))])?
        }
        LocalReply::Done { until_ms } => {
            let release = args.release.map(|release| release.to_string()).unwrap_or_default();
            let until = clock(&output.view(), until_ms);
            output.lines(&[
                Line::plain(format!("{release} takes all of {stage} on this proxy until {until}")),
                Line::of(Style::Dim, "to end it: ").with(
                    Style::Plain,
                    format!("pointsman proxy override {stage} --end --data {}", args.data.display()),
                ),
            ])?;
        }
        LocalReply::Status(_) | LocalReply::Refused { .. } => return Err(unexpected()),
    }
    Ok(Exit::Done)
}

/// Shows what a proxy serves.
///
/// # Errors
/// No proxy.
pub(super) async fn status(data: &Path, output: &Output) -> Ended {
    let LocalReply::Status(status) = ask(data, LocalRequest::Status).await? else { return Err(unexpected()) };
    output.show(&status, |view| lines(&status, view))?;
    Ok(Exit::Done)
}

async fn ask(data: &Path, question: LocalRequest) -> Result<LocalReply, Failure> {
    match request(data, question).await {
        Ok(LocalReply::Refused { reason }) => Err(Failure::refused(reason)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(Failure::refused(error.to_string())),
    }
}

fn unexpected() -> Failure {
    Failure::refused("the proxy answered something else than it was asked: it may be of another version")
}

/// The user, as the record has it.
fn who() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| "unknown".into())
}

fn lines(status: &LocalStatus, view: &View) -> Vec<Line> {
    let version =
        |version: Option<api::Version>| version.map_or_else(|| "nothing".into(), |version| version.to_string());
    let mut lines = vec![Line::plain(format!("serves {}", version(status.version)))];
    if status.saved != status.version {
        let why = if status.save_problem.is_empty() { "it is being written" } else { &status.save_problem };
        lines.push(Line::of(Style::Bad, format!("only {} is safe on disk: {why}", version(status.saved))));
    }
    for one in &status.overrides {
        let text = format!("override: {} takes all of {} until {}", one.release, one.stage, clock(view, one.until_ms));
        let why = format!(", by {}: \"{}\"", one.by, one.reason);
        lines.push(Line::of(Style::Bad, text).with(Style::Dim, why));
    }
    let mut table = Table::new(&["stage", "release", "weight", "healthy"]).right(&[2, 3]);
    for stage in &status.stages {
        let mut name = stage.stage.as_str();
        let all: u64 = stage.weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        for (release, healthy, endpoints) in &stage.releases {
            let weight =
                stage.weights.iter().find(|(one, _)| one == release).map_or(0, |(_, weight)| u64::from(*weight));
            let ppm = (weight * 1_000_000).checked_div(all).and_then(|ppm| u32::try_from(ppm).ok());
            let share = ppm.and_then(api::Share::from_ppm).map_or_else(|| "-".into(), |share| share.to_string());
            table.plain(&[name, &release.to_string(), &share, &format!("{healthy}/{endpoints}")]);
            name = "";
        }
        if stage.releases.is_empty() {
            table.plain(&[name, "nothing serves"]);
        }
    }
    lines.push(Line::default());
    lines.extend(table.lines("no stages"));
    lines
}

#[cfg(test)]
mod tests {
    use ::proxy::local::LocalStage;

    use super::*;
    use crate::render::plain;

    #[test]
    fn a_proxy_shows_what_it_serves_and_what_is_wrong() {
        let (view, release) = (View::of_tests(), |n| ReleaseNumber::new(n).expect("not 0"));
        let status = LocalStatus {
            version: Some(api::Version { term: 1, number: 42 }),
            saved: Some(api::Version { term: 1, number: 41 }),
            save_problem: "no space left".into(),
            stages: vec![LocalStage {
                stage: "hello/production".into(),
                weights: vec![(release(41), 990_000), (release(42), 10_000)],
                releases: vec![(release(41), 2, 2), (release(42), 0, 1), (release(40), 1, 1)],
                overridden: true,
            }],
            overrides: vec![::proxy::Override {
                stage: "hello/production".parse().expect("stage"),
                release: release(41),
                since_ms: view.now_ms,
                until_ms: view.now_ms + 3_600_000,
                by: "anna".into(),
                reason: "\x1b[2J".into(),
            }],
        };
        let expected = r#"
serves 1.42
only 1.41 is safe on disk: no space left
override: r41 takes all of hello/production until 13:00, by anna: "\u{1b}[2J"

stage             release  weight  healthy
hello/production  r41         99%      2/2
                  r42          1%      0/1
                  r40          0%      1/1
"#;
        assert_eq!(plain(&lines(&status, &view)), expected[1..]);
    }
}
