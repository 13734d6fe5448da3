//! Clients and servers that are not ours, through the proxy: gRPC's C-core, WebSocket, curl.

use crate::harness::{House, Proxy, Server, alone, free_port, script, until};

const HOST: &str = "hello.production.localhost";

/// A service `hello` whose one release is at `address`, and a proxy before it.
async fn serving(house: &mut House, protocol: &str, address: &str) -> Proxy {
    serving_stage(house, protocol, address, "").await
}

/// The same with more in the stage's section.
async fn serving_stage(house: &mut House, protocol: &str, address: &str, stage: &str) -> Proxy {
    let environment = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
        target = { kind = \"static\" }\n";
    let service = format!(
        "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\nprotocol = \"{protocol}\"\n\
         health = {{ every = \"1s\" }}\n[stage.production]\npublic = true\n{stage}"
    );
    house.apply(&[("production.toml", environment), ("pointsman.toml", &service)]).await;
    let address = format!("web={address}");
    house.run(&["release", "add", "hello", "--version", "r1", "--address", &address]).await.ends(0);
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    house.proxy("p1", 2).await
}

/// Cases that ended with `ok`; all others have failed the script already.
fn count_ok(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("ok ")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_of_the_c_core_passes_in_clear_and_through_tls() {
    let _alone = alone().await;
    let server = Server::start("grpc_server.py", &[]).await;
    let mut house = House::with_controller().await;
    let proxy = serving(&mut house, "h2c", &server.address).await;
    std::fs::write(house.path("ca.pem"), house.authority()).expect("written");
    let ca = house.path("ca.pem");
    let (clear, tls) = (proxy.http.to_string(), proxy.https.to_string());
    let common = ["--authority", HOST, "--case", "all"];
    let said = script("grpc_client.py", &[&["--target", &clear][..], &common].concat()).await;
    assert!(count_ok(&said) >= 18, "{said}");
    let ca = ["--target", &tls, "--ca", ca.to_str().expect("text")];
    let said = script("grpc_client.py", &[&ca[..], &common].concat()).await;
    assert!(count_ok(&said) >= 18, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_streams_outlive_a_goaway_and_a_server_that_dies_is_told_as_a_status() {
    let server = Server::start("grpc_server.py", &["--max-connection-age-ms", "1000", "--may-die"]).await;
    let mut house = House::with_controller().await;
    let proxy = serving(&mut house, "h2c", &server.address).await;
    let target = proxy.http.to_string();
    for case in ["goaway", "server_gone"] {
        script("grpc_client.py", &["--target", &target, "--authority", HOST, "--case", case]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websocket_clients_and_servers_meet_through_the_proxy() {
    let server = Server::start("websocket_server.py", &[]).await;
    let mut house = House::with_controller().await;
    let proxy = serving(&mut house, "h1", &server.address).await;
    let said = script("websocket_client.py", &["--url", &format!("ws://{}/", proxy.http), "--host-header", HOST]).await;
    assert!(count_ok(&said) >= 12, "{said}");
    std::fs::write(house.path("ca.pem"), house.authority()).expect("written");
    let (url, ca) = (format!("wss://{}/", proxy.https), house.path("ca.pem"));
    let tls = ["--url", &url, "--host-header", HOST, "--ca", ca.to_str().expect("text")];
    let said = script("websocket_client.py", &tls).await;
    assert!(count_ok(&said) >= 12, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_opens_websockets_over_http2() {
    let _alone = alone().await;
    let server = Server::start("websocket_server.py", &[]).await;
    let mut house = House::with_controller().await;
    let proxy = serving(&mut house, "h1", &server.address).await;
    let site = format!("https://{HOST}:{}", proxy.https.port());
    let said = script("browser/websocket.py", &["--site", &site]).await;
    assert!(count_ok(&said) >= 8, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_speaks_every_version_in_clear_and_through_tls() {
    let mut house = House::with_hello().await;
    let (_r1, _r2) = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    std::fs::write(house.path("ca.pem"), house.authority()).expect("written");
    let ca = house.path("ca.pem");
    for (version, scheme, address) in [
        ("--http1.0", "http", proxy.http),
        ("--http1.1", "http", proxy.http),
        ("--http2-prior-knowledge", "http", proxy.http),
        ("--http1.0", "https", proxy.https),
        ("--http1.1", "https", proxy.https),
        ("--http2", "https", proxy.https),
    ] {
        let (port, ip) = (address.port(), address.ip());
        let answer = until("curl is answered", async || {
            let done = tokio::process::Command::new("curl")
                .args(["--silent", "--show-error", "--fail-with-body", version, "--data", "x=y", "--cacert"])
                .arg(&ca)
                .args(["--write-out", " %{http_version}", "--resolve", &format!("{HOST}:{port}:{ip}")])
                .arg(format!("{scheme}://{HOST}:{port}/"))
                .output()
                .await
                .expect("curl is there: scripts/setup installs it");
            assert!(done.status.success(), "{version} {scheme}: {}", String::from_utf8_lossy(&done.stderr));
            Some(String::from_utf8_lossy(&done.stdout).into_owned())
        })
        .await;
        // It says the version of the answer, which is ours also to a client of HTTP/1.0.
        let expected = if version.contains("http2") { "r1 2" } else { "r1 1.1" };
        assert_eq!(answer, expected, "{version} {scheme}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_calls_grpc_across_origins_and_others_are_kept_out() {
    let _alone = alone().await;
    let server = Server::start("grpc_server.py", &[]).await;
    let mut house = House::with_controller().await;
    let page = free_port().to_string();
    let cors = format!("cors = [\"http://localhost:{page}\"]\n");
    let proxy = serving_stage(&mut house, "h2c", &server.address, &cors).await;
    for api in [format!("http://{HOST}:{}", proxy.http.port()), format!("https://{HOST}:{}", proxy.https.port())] {
        let said = script("browser/grpc_web.py", &["--page-port", &page, "--api", &api]).await;
        assert!(count_ok(&said) >= 19, "{api}: {said}");
    }
}
