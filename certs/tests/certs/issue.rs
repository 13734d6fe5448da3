//! Certificates from Pebble by each method, and what is told when there is none.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use pointsman_certs::acme::{Account, AcmeError, Method, Prover, Settings, Side};
use pointsman_certs::development::Material;
use pointsman_certs::endpoint::{Application, Authorities, Connector};
use pointsman_certs::public::Public;
use pointsman_certs::resolver::Certified;

use crate::front::Front;
use crate::pebble::{EXTERNAL_KEY, HTTP_PORT, Pebble, TLS_PORT, Temper, is_alive, until};
use crate::response::{Files, Handshakes};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Serves the certificate and shakes hands as `host`, believing the authority that issued it.
async fn verify(material: &Material, issuer: &Authorities, host: &str) {
    let public = Public::new();
    let certified = Certified::parse(&material.dns_names, &material.chain_der, &material.key_der).expect("usable");
    public.resolver().publish(vec![certified]);
    let acceptor = tokio_rustls::TlsAcceptor::from(public.common().clone());
    let connector = Connector::new(issuer, host, Application::Http1).expect("a connector");
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let (served, connected) = tokio::join!(acceptor.accept(theirs), connector.connect(ours));
    connected.expect("verified");
    served.expect("served");
}

#[tokio::test]
async fn pebble_a_wildcard_is_proved_by_a_hook() {
    let pebble = Pebble::start(Temper { remembered_proofs: 0, ..Temper::default() });
    let account = pebble.account().await;
    let asked = names(&["*.staging.example.com", "staging.example.com"]);
    let issued = account.issue(&asked, Method::Dns01, &pebble.good_hook(), None).await.expect("issued");
    assert_eq!(issued.dns_names, asked);
    for host in ["hello.staging.example.com", "staging.example.com"] {
        verify(&issued, &pebble.issuer(), host).await;
    }
    // Both values at one name, each shown and withdrawn once, all shown before any is withdrawn.
    let calls = pebble.calls();
    let (shown, withdrawn) = calls.split_at(2);
    let of = |calls: &[[String; 3]], wanted: &str| {
        let all = calls.iter().map(|[verb, name, value]| {
            assert_eq!((verb.as_str(), name.as_str()), (wanted, "_acme-challenge.staging.example.com"));
            value.clone()
        });
        all.collect::<HashSet<_>>()
    };
    assert_eq!(of(shown, "present").len(), 2, "{calls:?}");
    assert_eq!(of(shown, "present"), of(withdrawn, "cleanup"), "{calls:?}");
    assert_eq!(withdrawn.len(), 2, "{calls:?}");

    let again = account.issue(&asked, Method::Dns01, &pebble.good_hook(), None).await.expect("issued");
    assert_ne!(again.key_der, issued.key_der, "a fresh key for each");
}

#[tokio::test]
async fn pebble_a_name_is_proved_by_http_01() {
    let pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let asked = names(&["hello.example.com", "www.example.com"]);
    let issued = pebble.account().await.issue(&asked, Method::Http01, &files, None).await.expect("issued");
    verify(&issued, &pebble.issuer(), "www.example.com").await;
    assert!(files.is_empty(), "all is withdrawn");
}

#[tokio::test]
async fn pebble_a_name_is_proved_by_tls_alpn_01() {
    let pebble = Pebble::start(Temper { slow: true, ..Temper::default() });
    let handshakes = Handshakes::serve((pebble.address, TLS_PORT)).await;
    let asked = names(&["hello.example.com", "www.example.com"]);
    let issued = pebble.account().await.issue(&asked, Method::TlsAlpn01, &handshakes, None).await.expect("issued");
    verify(&issued, &pebble.issuer(), "hello.example.com").await;
    assert!(handshakes.is_empty(), "all is withdrawn");
}

#[tokio::test]
async fn pebble_what_is_proved_needs_no_proof() {
    let pebble = Pebble::start(Temper { remembered_proofs: 100, ..Temper::default() });
    let account = pebble.account().await;
    let asked = names(&["*.example.com"]);
    account.issue(&asked, Method::Dns01, &pebble.good_hook(), None).await.expect("issued");
    account.issue(&asked, Method::Dns01, &pebble.good_hook(), None).await.expect("issued again");
    assert_eq!(pebble.calls().len(), 2, "{:?}", pebble.calls());
    let more = names(&["*.example.com", "*.example.net"]);
    account.issue(&more, Method::Dns01, &pebble.good_hook(), None).await.expect("issued for one more");
    let shown: Vec<_> = pebble.calls().split_off(2).into_iter().map(|[_, name, _]| name).collect();
    assert_eq!(shown, ["_acme-challenge.example.net"; 2]);
}

#[tokio::test]
async fn pebble_refused_nonces_are_survived() {
    let pebble = Pebble::start(Temper { refused_nonces: 70, ..Temper::default() });
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let account = pebble.account().await;
    let asked = names(&["a.example.com", "b.example.com", "c.example.com", "d.example.com", "e.example.com"]);
    account.issue(&asked, Method::Http01, &files, None).await.expect("issued");
    assert!(files.is_empty(), "all is withdrawn");
}

#[tokio::test]
async fn pebble_a_failing_hook_is_told_with_its_name_and_words() {
    let pebble = Pebble::start(Temper::default());
    let hook = pebble.hook("test $verb = cleanup || { echo zone is locked >&2; echo; exit 3; }");
    let asked = names(&["*.example.com"]);
    let error = pebble.account().await.issue(&asked, Method::Dns01, &hook, None).await.expect_err("not shown");
    assert_eq!((error.challenge(), error.side()), (Some(("*.example.com", Method::Dns01)), Side::Ours));
    let text = error.to_string();
    assert!(text.contains("exit status: 3") && text.ends_with("it said: zone is locked"), "{text}");
    let verbs: Vec<_> = pebble.calls().into_iter().map(|[verb, ..]| verb).collect();
    assert_eq!(verbs, ["present", "cleanup"], "a part may have been visible");
}

#[tokio::test]
async fn pebble_a_hanging_hook_is_ended_with_all_its_processes() {
    let pebble = Pebble::start(Temper::default());
    let pids = pebble.path("pids");
    let script = format!("sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", pids.display());
    let hook = pebble.hook(&format!("test $verb = cleanup || {{ {script}; }}"));
    let hook = pointsman_certs::acme::hook::Hook { timeout: Duration::from_secs(3), ..hook };
    let error = pebble.account().await.issue(&names(&["example.com"]), Method::Dns01, &hook, None).await;
    let error = error.expect_err("not shown");
    assert_eq!(error.challenge(), Some(("example.com", Method::Dns01)));
    assert!(error.to_string().contains("present: it took longer than 3 s and was ended"), "{error}");
    let pids = std::fs::read_to_string(pids).expect("it had started");
    for pid in pids.split_whitespace() {
        until("the hook's processes are gone", || !is_alive(pid));
    }
}

#[tokio::test]
async fn pebble_a_wrong_value_is_told_with_its_name_and_the_servers_words() {
    let pebble = Pebble::start(Temper::default());
    let hook = pebble.hook("case $verb in present) add wrong ;; cleanup) remove ;; esac");
    let asked = names(&["*.staging.example.com"]);
    let error = pebble.account().await.issue(&asked, Method::Dns01, &hook, None).await.expect_err("not found");
    let AcmeError::Proof { name, method, problem } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), *method), ("*.staging.example.com", Method::Dns01));
    assert_eq!(problem.kind, "unauthorized", "{error}");
    assert!(error.to_string().contains("Correct value not found"), "{error}");
    assert_eq!(error.side(), Side::Name);
    assert_eq!(pebble.calls().len(), 2, "it is withdrawn: {:?}", pebble.calls());
}

#[tokio::test]
async fn pebble_an_account_is_kept_and_made_anew_when_forgotten() {
    let mut pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let asked = names(&["hello.example.com"]);
    let first = pebble.account().await.id().await;
    let kept: Vec<_> = std::fs::read_dir(pebble.client()).expect("folder").map(|file| file.expect("file")).collect();
    let [file] = kept.as_slice() else { panic!("{kept:?}") };
    assert_eq!(file.metadata().expect("file").permissions().mode() & 0o777, 0o600);
    let account = pebble.account().await;
    assert_eq!(account.id().await, first, "it is kept");
    account.issue(&asked, Method::Http01, &files, None).await.expect("issued by the one that is kept");

    pebble.restart();
    let account = pebble.account().await;
    account.issue(&asked, Method::Http01, &files, None).await.expect("issued by a new one");
    let second = account.id().await;
    assert_ne!(second, first);
    assert_eq!(pebble.account().await.id().await, second, "the new one is kept");
    std::fs::write(file.path(), r#"{"id": "https://a/", "key_pkcs8": [1]}"#).expect("written");
    let damaged = Account::open(&pebble.client(), &pebble.settings()).await.expect_err("not its key");
    assert!(damaged.to_string().contains("acme-"), "{damaged}");
}

#[tokio::test]
async fn pebble_a_forgotten_account_is_replaced_once() {
    let mut pebble = Pebble::start(Temper::default());
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let front = Front::start(&pebble, |_, _| {}).await;
    let account = Account::open(&pebble.client(), &front.settings(&pebble)).await.expect("an account");
    pebble.restart();
    let (one, other) = (names(&["one.example.com"]), names(&["other.example.com"]));
    let (first, second) = tokio::join!(
        account.issue(&one, Method::Http01, &files, None),
        account.issue(&other, Method::Http01, &files, None)
    );
    assert_eq!((first.expect("issued").dns_names, second.expect("issued").dns_names), (one, other));
    // Pebble's place for new accounts: once when it was opened, once afterwards.
    let made = front.seen("/sign-me-up");
    assert_eq!(made.len(), 2);
    for asked in made {
        assert_eq!(asked.payload["contact"], serde_json::json!(["mailto:ops@example.com"]));
        assert_eq!(asked.payload["termsOfServiceAgreed"], true);
    }
}

#[tokio::test]
async fn pebble_an_external_account_is_used_where_it_is_asked_for() {
    let pebble = Pebble::start(Temper { external_accounts: true, ..Temper::default() });
    let files = Files::serve((pebble.address, HTTP_PORT)).await;
    let open = |folder: &str, external_account: Option<(&str, &[u8])>| {
        let external_account = external_account.map(|(id, key)| (id.to_owned(), key.to_vec()));
        let (folder, settings) = (pebble.path(folder), Settings { external_account, ..pebble.settings() });
        async move { Account::open(&folder, &settings).await }
    };
    let (kid, key) = EXTERNAL_KEY;
    let none = open("none", None).await.expect_err("refused");
    assert!(none.to_string().contains("externalAccountRequired"), "{none}");
    assert_eq!(none.side(), Side::Ours);
    open("wrong", Some((kid, &[8; 32]))).await.expect_err("another key");
    let account = open("right", Some((kid, &key))).await.expect("made");
    account.issue(&names(&["hello.example.com"]), Method::Http01, &files, None).await.expect("issued");
}

#[tokio::test]
async fn pebble_a_server_that_nobody_vouches_for_is_not_spoken_to() {
    let pebble = Pebble::start(Temper::default());
    let settings = Settings { roots: Authorities::default(), ..pebble.settings() };
    let error = Account::open(&pebble.client(), &settings).await.expect_err("not verified");
    assert!(error.to_string().contains("TLS handshake failed"), "{error}");
    assert_eq!(error.side(), Side::Theirs);
    let settings = Settings { directory: pebble.settings().directory.replace("https", "http"), ..pebble.settings() };
    let error = Account::open(&pebble.client(), &settings).await.expect_err("in clear");
    assert!(error.to_string().contains("is not an https URL"), "{error}");
}

#[test]
fn pebble_orders_can_be_spawned() {
    fn is_send(_: &impl Send) {}
    fn check(account: &Account, prover: &dyn Prover) {
        is_send(&account.issue(&[], Method::Dns01, prover, None));
        is_send(&account.renewal(&[]));
    }
    let _ = check;
}
