//! One request's entry in the counts: begun when a release was chosen, ended when the last byte went or nobody waits.
//!
//! Must not know: what the request was. What is judged of it goes to `guard` as well.
//!
//! Main type: [`Ticket`].

use std::sync::Arc;

use tokio::time::Instant;

use crate::answer::Own;
use crate::codec::AnswerHead;
use crate::count::Block;
use crate::guard::Judging;

/// Counts a request as outstanding until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    block: Arc<Block>,
    started: Instant,
    /// `None`: it is not judged.
    judging: Option<Judging>,
}

impl Ticket {
    /// A release was chosen for a request.
    pub(crate) fn begin(block: Arc<Block>, started: Instant, judging: Option<Judging>) -> Self {
        block.begin();
        Self { block, started, judging }
    }

    /// It is sent once more, because no connection came about.
    pub(crate) fn tries_again(&self) {
        self.judge(Judging::tries_again);
    }

    /// The head of the answer is here.
    pub(crate) fn answered(&self, head: &AnswerHead) {
        let (status, us) = (head.status(), self.us());
        self.block.answered(status, us);
        self.judge(|judging| {
            judging.answered(us);
            judging.look(head.fields());
            if status >= 500 {
                judging.failed();
            }
        });
    }

    /// The fields of a trailer. Names are in lower case.
    pub(crate) fn look<'a>(&self, fields: impl Iterator<Item = (&'a str, &'a [u8])>) {
        self.judge(|judging| judging.look(fields));
    }

    /// The release did not answer, or broke off within its answer.
    pub(crate) fn unanswered(&self) {
        self.block.unanswered();
        self.judge(Judging::failed);
    }

    /// There will be no answer for this reason.
    pub(crate) fn refused(&self, own: Own) {
        match own {
            // A client that broke off says nothing about the release, nor do limits of ours.
            Own::ClientBody(_) | Own::Overloaded => self.judge(Judging::says_nothing),
            // Nor does one that may not have its answer any more.
            Own::Refused(_) | Own::Hidden(_) | Own::Unauthenticated(_) | Own::Forbidden(_) | Own::Unavailable(_) => {
                self.judge(Judging::says_nothing);
            }
            Own::Late => self.late(),
            _ => self.unanswered(),
        }
    }

    /// The caller of a gRPC call stopped waiting: a status that is not OK.
    pub(crate) fn late(&self) {
        self.block.grpc_error();
        self.judge(Judging::failed);
    }

    /// The gRPC status as it was written; only `0` is OK.
    pub(crate) fn grpc_status(&self, status: &[u8]) {
        if status != b"0" {
            self.block.grpc_error();
        }
        if is_server_error(code(status)) {
            self.judge(Judging::failed);
        }
    }

    /// The answer was not gRPC, and its caller is told this code instead.
    pub(crate) fn no_grpc(&self, status: u16, code: u8) {
        // Its class has said so.
        if status < 500 {
            self.block.grpc_error();
        }
        if is_server_error(Some(code)) {
            self.judge(Judging::failed);
        }
        self.over();
    }

    /// All of the answer has gone, or it has begun to be one that lasts.
    pub(crate) fn over(&self) {
        self.judge(Judging::over);
    }

    /// Microseconds since it began.
    fn us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn judge(&self, judge: impl FnOnce(&Judging)) {
        if let Some(judging) = &self.judging {
            judge(judging);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.block.end();
        // The clock is read for those alone that wait for their answer still.
        self.judge(|judging| judging.left(|| self.us()));
    }
}

/// A gRPC status as it was written.
fn code(status: &[u8]) -> Option<u8> {
    std::str::from_utf8(status).ok()?.parse().ok()
}

/// Whether a gRPC status blames the server rather than the caller: UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS, and what is no status at all, which callers take for UNKNOWN
/// (grpc/doc/statuscodes.md).
fn is_server_error(code: Option<u8>) -> bool {
    !matches!(code, Some(0 | 1 | 3 | 5..=7 | 9..=11 | 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rollout_failures_of_grpc_are_those_of_the_server() {
        let failed: Vec<u8> = (0..=20).filter(|code| is_server_error(Some(*code))).collect();
        assert_eq!(failed, [2, 4, 8, 12, 13, 14, 15, 17, 18, 19, 20]);
        assert!(
            [&b"-"[..], b"", b"OK", b"-1", b"0x0", b"256", b"\xff"].iter().all(|status| is_server_error(code(status)))
        );
        assert!(!is_server_error(code(b"0")) && !is_server_error(code(b"5")));
    }
}
