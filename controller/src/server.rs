//! The controller's one port: operators with tokens or certificates, members of the fleet with certificates, joiners
//! with a secret; over gRPC, and for monitoring in plain HTTP.
//!
//! Must not know: what is decided. It says who asks, hands the wish to the engine, and words the answer.
//!
//! Nothing answers without a credential: each service checks before it reads its first message.

mod accept;
mod agents;
pub(crate) mod hooks;
mod joining;
mod monitoring;
mod operator;
mod proxies;
mod web;
mod who;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use api::agent::agents_server::AgentsServer;
use api::fleet::fleet_server::FleetServer;
use api::fleet::joining_server::JoiningServer;
use api::fleet::membership_server::MembershipServer;
use api::operator::operator_server::OperatorServer;
use certs::fleet::FleetCa;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::service::Routes;

use crate::build::BuildFolders;
use crate::certificates::Order;
use crate::engine::Handle;
use crate::fleet::Fleet;
use crate::shelf::Shelf;
use crate::sources::Sources;
use crate::store::Record;

pub(crate) use operator::remove_unfinished;

/// Largest message taken from an operator: files of 1 MiB, a handful at once. Fleet messages are far smaller.
const MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// A peer that is gone is noticed within two of these.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What every service needs.
pub(crate) struct Shared {
    pub(crate) engine: Handle,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) happened: broadcast::Sender<Arc<Record>>,
    pub(crate) ca: FleetCa,
    pub(crate) shelf: Shelf,
    pub(crate) folders: BuildFolders,
    pub(crate) data: PathBuf,
    /// Host and port that joiners are told; none: nobody outside this machine can reach it.
    pub(crate) advertise: Option<String>,
    /// To whoever looks after the sources of certificates.
    pub(crate) orders: mpsc::Sender<Order>,
    /// What is known of repositories; webhooks have them looked at.
    pub(crate) sources: Sources,
    /// Numbers connections, so that the end of an old one is not taken for that of a new one.
    pub(crate) connections: AtomicU64,
}

/// Serves until it is dropped. Each connection is made with the newest of `tls`.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
) -> Result<(), tonic::transport::Error> {
    // A call on a connection of long ago would come with a certificate of long ago. After this a connection takes no more
    // calls, and the next one is made with what its owner has by then; what is open goes on.
    let age = shared.ca.member_lifetime() / 8;
    let (fleet, limits) = (shared.fleet.clone(), accept::Limits::default());
    let operator = OperatorServer::new(operator::Service(shared.clone())).max_decoding_message_size(MESSAGE_BYTES);
    let monitoring = monitoring::Monitoring(shared.clone());
    let accept::Incoming { http2, http1 } = accept::incoming(listener, tls, limits, fleet);
    let web = web::Web { monitoring, hooks: hooks::Hooks::new(shared.sources.clone()) };
    tokio::spawn(monitoring::http1::serve(http1, web.clone()));
    let mut routes = Routes::new(operator)
        .add_service(JoiningServer::new(joining::Service(shared.clone())))
        .add_service(MembershipServer::new(joining::Service(shared.clone())))
        .add_service(FleetServer::new(proxies::Service(shared.clone())))
        .add_service(AgentsServer::new(agents::Service(shared)));
    // Whatever is no call of gRPC, over HTTP/2 as over HTTP/1.
    let router = routes.axum_router_mut();
    *router = std::mem::take(router).fallback_service(web);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .max_connection_age(age)
        .add_routes(routes)
        .serve_with_incoming(http2)
        .await
}
