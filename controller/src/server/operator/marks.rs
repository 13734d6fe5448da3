//! `release mark`, and which marks a change may go past.

use api::operator::{MarkReleaseRequest, Release};
use api::{ReleaseName, ReleaseNumber, Verb};
use tonic::Status;

use crate::core::{Command, State};
use crate::engine::Priority;
use crate::server::Shared;
use crate::server::who::{Operator, parse, stopping};
use crate::status;

impl Shared {
    /// Marks a release, or takes the mark away, and shows it as it is then.
    pub(super) async fn mark_release(&self, who: &Operator, request: MarkReleaseRequest) -> Result<Release, Status> {
        let release: ReleaseName = parse(&request.release)?;
        who.may(Verb::Release, Some(&release.service), None)?;
        // Whoever takes a safety away, or gives it another reason, may do what it keeps from happening.
        let marked = release.clone();
        let is_marked = self.engine.read(move |engine| is_marked(&engine.state, &marked)).await.ok_or_else(stopping)?;
        if request.reversible || is_marked {
            who.may(Verb::Rollback, Some(&release.service), None)?;
        }
        let command = Command::MarkRelease { release: release.clone(), reversible: request.reversible };
        // A rollback that comes right after it has to know.
        self.ask(who, command, request.reason, request.request_id, Priority::Traffic).await?;
        let show = self.engine.read(move |engine| status::release(engine, &release)).await;
        show.ok_or_else(stopping)?.ok_or_else(|| Status::internal("the release is not there"))
    }
}

fn is_marked(state: &State, name: &ReleaseName) -> bool {
    state.release(name).is_some_and(|release| release.not_reversible.is_some())
}

/// What a change says that it may leave behind.
pub(super) fn past(given: Option<u32>, command: &Command) -> Result<Option<ReleaseNumber>, Status> {
    let Some(given) = given else { return Ok(None) };
    let goes_back = matches!(
        command,
        Command::Promote { .. }
            | Command::Rollback { .. }
            | Command::AbortRollout { .. }
            | Command::ResumeRollout { .. }
            | Command::SkipStep { .. }
            | Command::Weigh { .. }
    );
    if !goes_back {
        return Err(Status::invalid_argument(
            "only promote, rollback, abort, resume, skip and weight go past a release",
        ));
    }
    let number = ReleaseNumber::new(given);
    number.map(Some).ok_or_else(|| Status::invalid_argument("a release number begins at 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_h83_a_release_to_go_past_has_a_number_and_belongs_to_what_goes_back() {
        let stage: api::StageName = "hello/production".parse().expect("a name");
        let back = Command::Rollback { stage: stage.clone(), to: None };
        assert_eq!(past(None, &back).expect("none"), None);
        assert_eq!(past(Some(42), &back).expect("r42"), ReleaseNumber::new(42));
        for (given, command) in [(0, back), (42, Command::PauseRollout { stage })] {
            let refused = past(Some(given), &command).expect_err("not accepted");
            assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{command:?}");
        }
    }
}
