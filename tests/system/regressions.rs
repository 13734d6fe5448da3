//! Defects that were found in use or by reading, each as the story that showed it.

use api::fleet::fleet_client::FleetClient;
use api::fleet::{Hello, ProxyMessage, controller_message, proxy_message};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::House;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_revoked_before_its_hello_is_told_nothing() {
    let house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let token = house.invite(&["proxy", "--name", "p1"]).await.parse().expect("a token");
    let identity = certs::fleet::join(&token, &house.path("stolen"), "test").await.expect("joined");
    let (sender, hello) = tokio::sync::mpsc::channel(1);
    let mut client = FleetClient::new(identity.channel().expect("usable"));
    let connecting = tokio::spawn(async move { client.connect(ReceiverStream::new(hello)).await });
    // The call is open, and waits for its first message.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    house.run(&["fleet", "revoke", "p1"]).await.ends(0);
    let hello = ProxyMessage { kind: Some(proxy_message::Kind::Hello(Hello::default())) };
    sender.send(hello).await.expect("the call is open");
    let Ok(answer) = connecting.await.expect("no panic") else { return };
    let mut messages = answer.into_inner();
    while let Ok(Some(message)) = messages.message().await {
        assert!(matches!(message.kind, Some(controller_message::Kind::Welcome(_))), "told to a revoked proxy");
    }
}
