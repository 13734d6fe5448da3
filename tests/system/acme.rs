//! Certificates from an ACME authority, which is Pebble: by DNS for a whole zone, and by proxies for hosts that are public.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::certificates::{certificate, certificates, is_on};
use crate::harness::{Client, House, Proxy, SERVICE, Speech, until};
use crate::pebble::{HTTP_PORT, Pebble, TLS_PORT, Temper};

/// What Pebble signs with, PEM: made anew at each of its starts.
fn root(pebble: &Pebble) -> String {
    let url = format!("https://{}/roots/0", pebble.management_address());
    let answer = Command::new("curl").args(["-ksSf", &url]).output().expect("curl");
    String::from_utf8(answer.stdout).expect("PEM")
}

fn environment(pebble: &Pebble, more: &str) -> String {
    let (directory, ca) = (pebble.settings().directory, pebble.authority_pem());
    format!(
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = {{ kind = \"static\" }}\n\
         [tls]\nsource = \"acme\"\ndirectory = {directory:?}\ncontact = [\"mailto:ops@example.com\"]\n\
         ca = \"\"\"\n{ca}\"\"\"\n{more}\n"
    )
}

async fn by_dns(house: &House, pebble: &Pebble) {
    let hook = pebble.good_hook().command;
    let more = format!("hook = [\"/bin/sh\", {:?}]", hook[1]);
    house.apply(&[("production.toml", &environment(pebble, &more))]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pebble_one_wildcard_for_the_zone_is_had_by_dns_renewed_and_outlives_its_authority() {
    let (mut house, mut pebble) = (House::with_hello().await, Pebble::start(Temper::default()));
    let _upstreams = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    by_dns(&house, &pebble).await;
    let first = certificate(&house, "it is issued and served", is_on(1, "acme")).await;
    assert_eq!(first["names"], serde_json::json!(["*.production.localhost"]), "no host gets into a public log");
    assert!(first["renews_ms"].as_u64() < first["expires_ms"].as_u64() && first["problem"] == "", "{first}");
    let ca = root(&pebble);
    for host in ["hello.production.localhost", "nobody.production.localhost"] {
        // The second one leads nowhere; its handshake is as good.
        let answer = Client::tls(proxy.https, Speech::Http2, &ca).to(host).asks().await;
        assert_eq!(answer.status == 200, host.starts_with("hello"), "{answer:?}");
    }
    let deeper = Client::tls(proxy.https, Speech::Http1, &ca).to("a.b.production.localhost").get().await;
    assert!(deeper.expect_err("for no such name").contains("TLS"));

    house.run(&["cert", "renew", "production", "--reason", "a key may have leaked"]).await.ends(0);
    let is_next = |one: &Value| one["sha256"] != first["sha256"] && is_on(1, "acme")(one);
    let second = certificate(&house, "a new one is served", is_next).await;
    Client::tls(proxy.https, Speech::Http1, &ca).asks().await;
    let happened = house.history().await;
    let reasons: Vec<_> = happened.iter().filter(|entry| entry.kind == "certificates_replaced").collect();
    assert_eq!(reasons.len(), 2, "{happened:?}");
    assert!(reasons[1].by == "operator" && reasons[1].reason == "a key may have leaked", "{:?}", reasons[1]);

    // The authority is gone: what there is is served on, after a start as well, and it is said loudly.
    pebble.stop();
    let failed = house.run(&["cert", "renew", "production"]).await.ends(1);
    assert!(failed.err.contains("cannot be reached"), "{failed:?}");
    let status = house.run(&["status"]).await.ends(0);
    assert!(
        status.out.contains("the certificate of production") && status.out.contains("could not be renewed"),
        "{status:?}"
    );
    house.stop_controller().await;
    house.kill("p1");
    house.start("p1").await;
    until("it serves without anybody", async || Client::tls(proxy.https, Speech::Http1, &ca).get().await.ok()).await;
    house.start_controller(&[]).await;
    house.follows("p1").await;
    let shown = certificates(&house).await;
    assert!(shown[0]["sha256"] == second["sha256"], "{shown:?}");
    Client::tls(proxy.https, Speech::Http1, &ca).asks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pebble_hosts_of_public_stages_are_proved_by_any_proxy() {
    for (challenge, port) in [("http-01", HTTP_PORT), ("tls-alpn-01", TLS_PORT)] {
        let (mut house, pebble) = (House::with_hello().await, Pebble::start(Temper::default()));
        let _upstreams = house.two_releases().await;
        let at = |port: u16| SocketAddr::from((pebble.address, port));
        // The authority comes to the second one.
        let first = house.proxy("p1", 1).await;
        let second = house.proxy_at("p2", 1, Proxy { http: at(HTTP_PORT), https: at(TLS_PORT) }).await;
        let hidden = SERVICE.replace("public = true\n", "");
        assert_ne!(hidden, SERVICE);
        let environment = environment(&pebble, &format!("challenge = {challenge:?}"));
        house.apply(&[("pointsman.toml", &hidden), ("production.toml", &environment)]).await;
        // Nothing is asked for as long as nobody may know the host.
        let shown = certificates(&house).await;
        assert!(shown.iter().all(|one| one["sha256"] == "" || one["source"] == "development"), "{shown:?}");
        house.apply(&[("pointsman.toml", SERVICE)]).await;
        let one = until("it is served by both", async || {
            certificates(&house)
                .await
                .into_iter()
                .find(|one| one["names"][0] == "hello.production.localhost" && is_on(2, "acme")(one))
        })
        .await;
        assert_eq!(one["problem"], "", "{one}");
        let ca = root(&pebble);
        for proxy in [first, second] {
            Client::tls(proxy.https, Speech::Http2, &ca).asks().await;
            // Whoever asks for a name that nobody knows gets the zone's own, as before.
            let other = Client::tls(proxy.https, Speech::Http1, &house.authority()).to("nobody.production.localhost");
            assert_eq!({ other }.asks().await.status, 404);
        }
        let left = Client::plain(second.http, Speech::Http1).to("hello.production.localhost").asks().await;
        assert_eq!(left.status, 200, "{challenge} at {port} is over");
    }
}
