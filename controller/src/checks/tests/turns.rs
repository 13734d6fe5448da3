//! Who asks when.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::servers::{Manner, Server};
use super::*;
use crate::checks::turns::{AT_ONCE, AT_ONCE_OF_STAGE};

/// A check of a stage, under way.
fn asks(asker: &Arc<Asker>, stage: &str, server: &Server) -> JoinHandle<Option<Outcome>> {
    let stage = format!("{stage}/production").parse().expect("a name");
    let one = Wanted { stage, ..wanted(CheckKind::http(server.url("/")), 3_600_000) };
    let asker = asker.clone();
    tokio::spawn(async move {
        let (_canceller, mut cancel) = watch::channel(false);
        asker.ask(&one, &mut cancel).await
    })
}

#[tokio::test]
async fn rollout_check_waits_for_its_turn() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = Arc::new(asker(folder.path()));
    // Nobody is answered before so many ask at once.
    let server = Server::start(Manner::Gate(AT_ONCE)).await;
    let asking: Vec<_> = (0..AT_ONCE + 9).map(|place| asks(&asker, &format!("s{place}"), &server)).collect();
    for one in asking {
        assert_eq!(one.await.expect("no panic"), Some(Outcome::Well));
    }
    assert_eq!((server.most_open(), server.asked().len()), (AT_ONCE, AT_ONCE + 9));
}

#[tokio::test]
async fn rollout_checks_of_one_stage_have_a_part_of_the_turns() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = Arc::new(asker(folder.path()));
    let server = Server::start(Manner::Gate(AT_ONCE_OF_STAGE)).await;
    let asking: Vec<_> = (0..10).map(|_| asks(&asker, "hello", &server)).collect();
    for one in asking {
        assert_eq!(one.await.expect("no panic"), Some(Outcome::Well));
    }
    assert_eq!((server.most_open(), server.asked().len()), (AT_ONCE_OF_STAGE, 10));
}

#[tokio::test]
async fn rollout_checks_that_hang_leave_turns_for_other_stages() {
    let folder = tempfile::tempdir().expect("folder");
    let asker = Arc::new(asker(folder.path()));
    let (slow, quick) = (Server::start(Manner::Hang).await, Server::start(Manner::answer("200 OK", "", "")).await);
    // As many stages as leave one turn, each with as many checks as a stage can have.
    let hanging = AT_ONCE / AT_ONCE_OF_STAGE - 1;
    let stages = (0..hanging).map(|place| format!("s{place}"));
    let hang: Vec<_> = stages.flat_map(|stage| (0..10).map(move |_| stage.clone())).collect();
    let hang: Vec<_> = hang.iter().map(|stage| asks(&asker, stage, &slow)).collect();
    until("they hang", async || slow.asked().len() == hanging * AT_ONCE_OF_STAGE).await;
    for _ in 0..5 {
        assert_eq!(asks(&asker, "hello", &quick).await.expect("no panic"), Some(Outcome::Well));
    }
    assert_eq!(slow.asked().len(), hanging * AT_ONCE_OF_STAGE);
    hang.iter().for_each(JoinHandle::abort);
}
