//! Endpoints behind TLS: a real server, a service file that says whom it must be, and a proxy that looks.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use certs::development::DevelopmentCa;

use crate::harness::{Client, House, Part, Repository, STAGE, Speech, free_port, until};

const ENVIRONMENT: &str = "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\n\
    target = { kind = \"static\" }\n";

/// For every host of the zone, PEM.
struct Material {
    ca: String,
    chain: String,
    key: String,
}

impl Material {
    fn issue(house: &House) -> Self {
        let ca = DevelopmentCa::open_or_create(&house.path("authority")).expect("an authority");
        let zone = "production.localhost".parse().expect("a zone");
        let made = ca.wildcard(&zone, SystemTime::now()).expect("issued");
        let chain: Vec<_> = made.chain_der.into_iter().map(|der| pem::Pem::new("CERTIFICATE", der)).collect();
        let key = pem::encode(&pem::Pem::new("PRIVATE KEY", made.key_der));
        Self { ca: ca.certificate_pem(), chain: pem::encode_many(&chain), key }
    }
}

/// nginx with a certificate for every host of the zone; it says how it was reached.
struct Nginx {
    address: String,
    ca: String,
    _running: Part,
}

impl Nginx {
    async fn start(house: &House) -> Self {
        let folder = house.path("nginx");
        std::fs::create_dir(&folder).expect("a folder");
        let Material { ca, chain, key } = Material::issue(house);
        std::fs::write(folder.join("chain.pem"), chain).expect("written");
        std::fs::write(folder.join("key.pem"), key).expect("written");
        let port = free_port();
        std::fs::write(folder.join("nginx.conf"), configuration(&folder, port)).expect("written");
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
        command.arg("-e").arg("stderr");
        let running = Part::start("nginx", &house.path("nginx.log"), &mut command);
        until("nginx listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Self { address: format!("127.0.0.1:{port}"), ca, _running: running }
    }
}

fn configuration(folder: &Path, port: u16) -> String {
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    let folder = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        r#"daemon off;
worker_processes 1;
{user}
pid {folder}/nginx.pid;
error_log stderr info;
events {{ worker_connections 128; }}
http {{
    access_log off;
{temporary}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {folder}/chain.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{
            add_header x-release nginx;
            return 200 "$server_protocol $ssl_protocol $ssl_server_name $http_host $http_x_forwarded_proto";
        }}
    }}
}}
"#
    )
}

/// A release of what is at the endpoint, with this in its component.
async fn release(house: &House, nginx: &Nginx, component: &str) -> String {
    let service = format!(
        "schema = 1\nservice = \"hello\"\n[component.web]\nfolder = \"dist\"\n{component}\n\
         health = {{ http = \"/\", every = \"1s\" }}\n[stage.production]\npublic = true\n"
    );
    house.apply(&[("production.toml", ENVIRONMENT), ("pointsman.toml", &service)]).await;
    let address = format!("web={}", nginx.address);
    let reply = house.json(&["release", "add", "hello", "--version", "1", "--address", &address]).await;
    let release = format!("hello@r{}", reply["number"]);
    house.run(&["promote", &release, "--to", "production"]).await.ends(0);
    release
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forward_tls_reaches_nginx_over_both_protocols_and_only_when_it_is_verified() {
    let mut house = House::with_controller().await;
    let nginx = Nginx::start(&house).await;
    std::fs::write(house.path("machine.pem"), &nginx.ca).expect("written");
    // Of the machine's authorities the second proxy trusts ours, the first those of the machine.
    let strict = house.proxy("strict", 1).await;
    let machine = house.path("machine.pem").display().to_string();
    house.give("SSL_CERT_FILE", &machine);
    let trusting = house.proxy("trusting", 1).await;
    let ca = format!("ca = \"\"\"\n{}\"\"\"", nginx.ca);
    let host = "hello.production.localhost";
    for (component, version, answers) in [
        (format!("protocol = \"tls\"\ntls = {{ {ca} }}"), "HTTP/1.1", [true, true]),
        (format!("protocol = \"h2\"\ntls = {{ {ca} }}"), "HTTP/2.0", [true, true]),
        // Whom the machine trusts, when the file names nobody.
        ("protocol = \"tls\"".to_owned(), "HTTP/1.1", [false, true]),
        (format!("protocol = \"tls\"\ntls = {{ {ca}, name = \"hello.example.com\" }}"), "", [false, false]),
        ("protocol = \"h1\"".to_owned(), "", [false, false]),
    ] {
        let release = release(&house, &nginx, &component).await;
        for (proxy, answers) in [strict, trusting].into_iter().zip(answers) {
            for speech in [Speech::Http1, Speech::Http2] {
                let answer = Client::plain(proxy.http, speech).asks().await;
                if answers {
                    let expected = format!("{version} TLSv1.3 {host} {host} http");
                    assert_eq!((answer.status, answer.body.as_str()), (200, &*expected), "{release}: {component}");
                } else {
                    // In clear nginx itself says 400.
                    assert!(matches!(answer.status, 502 | 400), "{release}: {component}: {answer:?}");
                }
            }
        }
    }
    // What is wrong with it is told.
    until("the proxy says why", async || {
        house.part("strict").log().contains("certificate not valid for name").then_some(())
    })
    .await;
    house.run(&["rollback", STAGE, "--to", "r2"]).await.ends(0);
    assert_eq!(Client::plain(strict.http, Speech::Http1).asks().await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_a_release_behind_tls_starts_and_serves() {
    const SERVES: &str = "Server((\"127.0.0.1\", int(sys.argv[1])), Handler).serve_forever()\n";
    const THROUGH_TLS: &str = r#"import ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("both.pem")
server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"#;
    let mut house = House::with_controller().await;
    let repository = Repository::new(house.path("hello"));
    let Material { ca, chain, key } = Material::issue(&house);
    let server = std::fs::read_to_string(house.path("hello/server.py")).expect("a server");
    assert!(server.ends_with(SERVES), "{server}");
    repository.write("server.py", &server.replace(SERVES, THROUGH_TLS));
    repository.write("both.pem", &(chain + &key));
    repository.write("build.sh", "#!/bin/sh\nset -eu\nmkdir -p dist\ncp server.py both.pem dist/\n");
    let tls = format!("protocol = \"tls\"\ntls = {{ ca = \"\"\"\n{ca}\"\"\" }}");
    let service = repository.service().replace("protocol = \"h1\"", &tls);
    repository.write("pointsman.toml", &service);
    repository.commit("through TLS");
    let environment = ENVIRONMENT.replace("kind = \"static\"", "kind = \"agent\", group = \"prod\"");
    house.apply(&[("production.toml", &environment), ("pointsman.toml", &service)]).await;
    house.agent("a1", "prod").await;
    let proxy = house.proxy("p1", 1).await;
    house.run(&["release", "build", "hello"]).await.ends(0);
    // It ends only once the agent has found it well.
    house.run(&["promote", "hello@r1", "--to", "production"]).await.ends(0);
    for speech in [Speech::Http1, Speech::Http2] {
        let answer = Client::plain(proxy.http, speech).asks().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "r1"), "{answer:?}");
    }
}
