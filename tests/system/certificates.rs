//! Certificates of environments: from files, imported, kept over restarts; what is served while they change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use certs::development::DevelopmentCa;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::{Client, House, Load, Proxy, Speech, until};

/// Somebody who issues certificates for every host of the zone: another authority than the controller's.
struct Issuer {
    folder: PathBuf,
}

struct Pair {
    chain: String,
    key: String,
}

impl Issuer {
    fn new(house: &House) -> Self {
        Self { folder: house.path("issuer") }
    }

    fn authority(&self) -> String {
        DevelopmentCa::open_or_create(&self.folder).expect("an authority").certificate_pem()
    }

    /// A new one each time.
    fn issue(&self) -> Pair {
        let ca = DevelopmentCa::open_or_create(&self.folder).expect("an authority");
        let _ = std::fs::remove_file(self.folder.join("production.localhost.json")); // The last one, if there is one.
        let made = ca.wildcard(&"production.localhost".parse().expect("a zone"), SystemTime::now()).expect("issued");
        let pem = |tag: &str, der: &[u8]| pem::encode(&pem::Pem::new(tag, der.to_vec()));
        let chain = made.chain_der.iter().map(|der| pem("CERTIFICATE", der)).collect();
        Pair { chain, key: pem("PRIVATE KEY", &made.key_der) }
    }
}

/// Puts a file in place of another at once, as tools that renew certificates do.
fn replace(house: &House, name: &str, text: &str) {
    let (path, beside) = (house.path(name), house.path(&format!("{name}.new")));
    std::fs::write(&beside, text).expect("written");
    std::fs::rename(&beside, &path).expect("in place");
}

fn environment(tls: &str) -> String {
    format!(
        "schema = 1\nenvironment = \"production\"\nzone = \"production.localhost\"\ntarget = {{ kind = \"static\" }}\n\
         tls = {tls}\n"
    )
}

fn files(house: &House) -> String {
    let path = |name: &str| house.path(name).display().to_string();
    environment(&format!("{{ source = \"files\", chain = {:?}, key = {:?} }}", path("chain.pem"), path("key.pem")))
}

pub(crate) async fn certificates(house: &House) -> Vec<Value> {
    house.json(&["cert", "list"]).await["certificates"].as_array().expect("a list").clone()
}

/// The first certificate of the environment, once `so`.
pub(crate) async fn certificate(house: &House, what: &str, so: impl Fn(&Value) -> bool) -> Value {
    until(what, async || certificates(house).await.into_iter().next().filter(&so)).await
}

/// It is from this source, and so many proxies serve it.
pub(crate) fn is_on(proxies: usize, source: &str) -> impl Fn(&Value) -> bool {
    move |one| one["source"] == source && one["active"].as_array().is_some_and(|active| active.len() == proxies)
}

/// Clients that make a connection of their own for each request, until dropped.
struct Handshakes {
    made: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    _clients: JoinSet<()>,
}

impl Handshakes {
    fn start(proxies: &[Proxy], authority: &str) -> Self {
        let (made, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut clients = JoinSet::new();
        for proxy in proxies {
            let (https, authority, made, failed) = (proxy.https, authority.to_owned(), made.clone(), failed.clone());
            clients.spawn(async move {
                loop {
                    let answer = Client::tls(https, Speech::Http2, &authority).get().await;
                    if !answer.is_ok_and(|answer| answer.status == 200) {
                        failed.fetch_add(1, Relaxed);
                    }
                    made.fetch_add(1, Relaxed);
                }
            });
        }
        Self { made, failed, _clients: clients }
    }

    async fn go_on(&self, more: u64) {
        let enough = self.made.load(Relaxed) + more;
        until("more handshakes", async || (self.made.load(Relaxed) >= enough).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_from_files_are_swapped_under_load_without_a_failed_handshake() {
    let _alone = crate::harness::alone().await;
    let mut house = House::with_hello().await;
    let issuer = Issuer::new(&house);
    let _upstreams = house.two_releases().await;
    let mut proxies = Vec::new();
    for name in ["p1", "p2", "p3", "p4"] {
        proxies.push(house.proxy(name, 1).await);
    }
    // Named before they are there: the development authority's is served, and it is said.
    house.apply(&[("production.toml", &files(&house))]).await;
    certificate(&house, "the problem is told", |one| {
        one["source"] == "files" && one["problem"].as_str().is_some_and(|text| text.contains("chain.pem"))
    })
    .await;
    Client::tls(proxies[0].https, Speech::Http1, &house.authority()).asks().await;
    let first = issuer.issue();
    replace(&house, "key.pem", &first.key);
    replace(&house, "chain.pem", &first.chain);
    let shown = certificate(&house, "the files are served by all", is_on(4, "files")).await;
    assert!(shown["names"][0] == "*.production.localhost" && shown["problem"] == "", "{shown}");

    let addresses: Vec<SocketAddr> = proxies.iter().map(|proxy| proxy.https).collect();
    let load = Load::start(&addresses, &issuer.authority());
    let handshakes = Handshakes::start(&proxies, &issuer.authority());
    handshakes.go_on(50).await;
    let mut before = shown["sha256"].clone();
    for _ in 0..3 {
        let next = issuer.issue();
        // One file after the other: in between they do not match, and nothing changes.
        replace(&house, "chain.pem", &next.chain);
        handshakes.go_on(20).await;
        replace(&house, "key.pem", &next.key);
        let is_next = |one: &Value| one["sha256"] != before && is_on(4, "files")(one);
        let swapped = certificate(&house, "the next is served by all", is_next).await;
        before = swapped["sha256"].clone();
        handshakes.go_on(50).await;
        load.goes_on(200).await;
    }
    let counted = load.ends_without_failure();
    let (made, failed) = (handshakes.made.load(Relaxed), handshakes.failed.load(Relaxed));
    println!("{} requests on kept connections, {made} handshakes, 3 swaps on 4 proxies: none failed", counted.requests);
    assert_eq!(failed, 0, "of {made} handshakes");

    // A key of another: refused whole, told, and what serves goes on.
    replace(&house, "key.pem", &first.key);
    let refused = certificate(&house, "the mismatch is told", |one| one["problem"] != "").await;
    let problem = refused["problem"].as_str().expect("a text");
    assert!(problem.contains("do not match") && refused["sha256"] == before, "{refused}");
    let said = house.run(&["cert", "renew", "production"]).await.ends(1);
    assert!(said.err.contains("do not match"), "{said:?}");
    let status = house.run(&["status"]).await.ends(0);
    assert!(status.out.contains("the certificate of production"), "{}", status.out);
    Client::tls(proxies[3].https, Speech::Http2, &issuer.authority()).asks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_were_imported_outlive_restarts_of_everything() {
    let mut house = House::with_hello().await;
    let issuer = Issuer::new(&house);
    let _upstreams = house.two_releases().await;
    let proxy = house.proxy("p1", 1).await;
    let pair = issuer.issue();
    replace(&house, "chain.pem", &pair.chain);
    replace(&house, "key.pem", &pair.key);
    let import = ["cert", "import", "production", "--chain", "chain.pem", "--key", "key.pem"];
    let refused = house.run(&import).await.ends(1);
    assert!(refused.err.contains("tls = { source = \"imported\" }"), "{refused:?}");
    house.apply(&[("production.toml", &environment("{ source = \"imported\" }"))]).await;
    let other = issuer.issue();
    replace(&house, "other.pem", &other.key);
    let wrong = ["cert", "import", "production", "--chain", "chain.pem", "--key", "other.pem"];
    let refused = house.run(&wrong).await.ends(1);
    assert!(refused.err.contains("do not match"), "{refused:?}");
    let by_hand = [&import[..], &["--reason", "from our own authority"]].concat();
    house.run(&by_hand).await.ends(0);
    certificate(&house, "it is served", is_on(1, "imported")).await;
    let served = async |house: &House| {
        Client::tls(proxy.https, Speech::Http1, &issuer.authority()).asks().await.status == 200
            && !house.authority().is_empty()
    };
    assert!(served(&house).await);
    // On record with its name and its reason, and without its key.
    let happened = house.history().await.into_iter().find(|entry| entry.kind == "certificates_replaced");
    let happened = happened.expect("on record");
    assert!(happened.what.contains("*.production.localhost"), "{}", happened.what);
    let key_line = pair.key.lines().nth(1).expect("a line of the key").to_owned();
    for entry in walkdir(&house.path("p1")) {
        let text = std::fs::read(&entry).unwrap_or_default();
        let der = pem::parse(&pair.key).expect("a key").into_contents();
        let clear = text.windows(32).any(|part| part == &der[der.len() - 70..][..32]);
        assert!(
            !clear && !String::from_utf8_lossy(&text).contains(&key_line),
            "{} has the key in clear",
            entry.display()
        );
    }

    house.stop_controller().await;
    house.kill("p1");
    house.start("p1").await;
    until("the proxy serves without a controller", async || {
        Client::tls(proxy.https, Speech::Http1, &issuer.authority()).get().await.ok()
    })
    .await;
    house.start_controller(&[]).await;
    house.follows("p1").await;
    let shown = certificate(&house, "it is still that one", is_on(1, "imported")).await;
    assert!(served(&house).await, "{shown}");
    // Back to the development authority.
    house.apply(&[("production.toml", &environment("{ source = \"development\" }"))]).await;
    certificate(&house, "the development authority's is served", is_on(1, "development")).await;
    Client::tls(proxy.https, Speech::Http1, &house.authority()).asks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_from_files_of_the_controllers_machine_take_a_token_that_may_do_everything() {
    let house = House::with_hello().await;
    let narrow = house.operator_with("narrow", &["--allow", "read,apply", "--environment", "production"]).await;
    let hook = "{ source = \"acme\", hook = [\"/bin/sh\", \"-c\", \"cat /etc/shadow\"] }";
    for tls in [hook.to_owned(), format!("{{ source = \"files\", chain = {0:?}, key = {0:?} }}", "/etc/hostname")] {
        std::fs::write(house.path("narrow.toml.new"), environment(&tls)).expect("written");
        let refused = house.run_as(&narrow, &["apply", "-f", "narrow.toml.new"]).await.ends(1);
        assert!(refused.err.contains("names files, programs or servers of the controller's machine"), "{refused:?}");
    }
    // Once somebody who may has named them, the others go on applying the rest of the file.
    house.apply(&[("production.toml", &files(&house))]).await;
    let more = files(&house) + "keep_warm = \"2h\"\n";
    std::fs::write(house.path("more.toml"), more).expect("written");
    house.run_as(&narrow, &["apply", "-f", "more.toml"]).await.ends(0);
}

/// All files below a folder.
fn walkdir(folder: &std::path::Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("readable").path());
    entries.flat_map(|path| if path.is_dir() { walkdir(&path) } else { vec![path] }).collect()
}
