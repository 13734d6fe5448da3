//! One request's entry in the counts: begun when a release was chosen, ended when the last byte went or nobody waits.
//!
//! Must not know: what the request was. Main type: [`Ticket`].

use std::sync::Arc;

use tokio::time::Instant;

use crate::count::Block;

/// Counts a request as outstanding until it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    block: Arc<Block>,
    started: Instant,
}

impl Ticket {
    /// A release was chosen for a request.
    pub(crate) fn begin(block: Arc<Block>, started: Instant) -> Self {
        block.begin();
        Self { block, started }
    }

    /// The head of the answer is here.
    pub(crate) fn answered(&self, status: u16) {
        let us = self.started.elapsed().as_micros();
        self.block.answered(status, u64::try_from(us).unwrap_or(u64::MAX));
    }

    /// The release did not answer, or broke off within its answer.
    pub(crate) fn unanswered(&self) {
        self.block.unanswered();
    }

    /// The caller of a gRPC call stopped waiting: a status that is not OK.
    pub(crate) fn late(&self) {
        self.block.grpc_error();
    }

    /// The gRPC status as it was written; only `0` is OK.
    pub(crate) fn grpc_status(&self, status: &[u8]) {
        if status != b"0" {
            self.block.grpc_error();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.block.end();
    }
}
