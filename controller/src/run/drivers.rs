//! All that works beside the engine: each follows what is on record, and tells the engine what it saw.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::builder;
use crate::certificates::{self, Order};
use crate::checks::{self, CheckFolders};
use crate::retention;
use crate::server::Shared;
use crate::shelf::Keeper;
use crate::sources;

/// What works, until it is ended or dropped.
pub(super) struct Drivers {
    /// Ends when it is dropped.
    pub(super) tasks: JoinSet<()>,
    /// Ends in order.
    asking: JoinSet<()>,
    cancel: watch::Sender<bool>,
}

// === impl Drivers ===

impl Drivers {
    pub(super) fn begin(
        shared: &Arc<Shared>,
        ordered: mpsc::Receiver<Order>,
        jobs: mpsc::UnboundedReceiver<builder::Order>,
    ) -> Self {
        let (cancel, cancelled) = watch::channel(false);
        let (mut tasks, mut asking) = (JoinSet::new(), JoinSet::new());
        let Shared { engine, fleet, folders, shelf, sources, data, .. } = &**shared;
        let (engine, cancelled) = (|| engine.clone(), || cancelled.clone());
        let (folders, happened) = (|| folders.clone(), || shared.happened.subscribe());
        let checks = CheckFolders::within(data, &shared.folders);
        asking.spawn(checks::run(engine(), fleet.clone(), checks, happened(), cancelled()));
        tasks.spawn(sources::run(engine(), folders(), sources.clone(), data.clone(), happened(), cancelled()));
        tasks.spawn(retention::run(engine(), shelf.clone(), folders(), happened()));
        tasks.spawn(certificates::run(engine(), fleet.clone(), ordered));
        let (first, known) = oneshot::channel();
        let (folder, shelf) = (data.clone(), shelf.clone());
        let keeper = Keeper { engine: engine(), shelf: shelf.clone(), folders: folders(), folder, cancel: cancelled() };
        tasks.spawn(keeper.run(happened(), first));
        let builder = builder::run(engine(), folders(), shelf, jobs, cancelled());
        // What goes on with a build knows the registry that counts.
        tasks.spawn(async {
            let _ = known.await; // It ends without a word only when everything does.
            builder.await;
        });
        Self { tasks, asking, cancel }
    }

    pub(super) async fn end(mut self) {
        self.cancel.send_replace(true);
        // What checks have started ends with the controller, and in order.
        let _ = self.asking.join_next().await;
        // Open streams of proxies would keep the server for ever; they come back by themselves.
        self.tasks.abort_all();
    }
}
