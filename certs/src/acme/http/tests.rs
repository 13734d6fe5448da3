use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::*;
use crate::development::DevelopmentCa;
use crate::public::Public;
use crate::resolver::Certified;

/// A server of one connection, which says this after the handshake and then nothing; nothing at all when it is `None`.
async fn asked_of(says: Option<Vec<u8>>) -> Result<BytesResponse, Error> {
    crate::install_provider();
    let folder = tempfile::tempdir().expect("folder");
    let ca = DevelopmentCa::open_or_create(folder.path()).expect("authority");
    let made = ca.issue(&["localhost".to_owned()], SystemTime::now()).expect("certificate");
    let public = Public::new();
    public.resolver().publish(vec![Certified::parse(&made.dns_names, &made.chain_der, &made.key_der).expect("usable")]);
    let acceptor = tokio_rustls::TlsAcceptor::from(public.common().clone());
    let listener = TcpListener::bind(("localhost", 0)).await.expect("a listener");
    let directory = format!("https://localhost:{}/", listener.local_addr().expect("an address").port());
    let serving = async {
        let (stream, _) = listener.accept().await.expect("a client");
        if let Some(says) = says {
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            stream.write_all(&says).await.expect("said");
            std::future::pending::<()>().await;
        }
        std::future::pending().await
    };
    let roots = Authorities::parse(&ca.certificate_pem()).expect("an authority");
    let client = Client { roots, directory: directory.clone(), deadline: Duration::from_secs(3) };
    let request = Request::get(directory).body(BodyWrapper::default()).expect("a request");
    tokio::select! {
        answer = client.request(request) => answer,
        () = serving => unreachable!("it never ends"),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("it waits without a deadline"),
    }
}

#[tokio::test]
async fn hostile_acme_servers_that_say_nothing_are_given_up() {
    let answer = asked_of(Some(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec())).await;
    assert_eq!(answer.expect("an answer").parts.status, 200);
    let mut waiting = Vec::new();
    for (what, says) in [
        ("no handshake", None),
        ("no answer", Some(Vec::new())),
        ("half a head", Some(b"HTTP/1.1 200 OK\r\n".to_vec())),
        ("half a body", Some(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}".to_vec())),
    ] {
        waiting.push((what, tokio::spawn(asked_of(says))));
    }
    for (what, asked) in waiting {
        let Err(error) = asked.await.expect("asked") else { panic!("answered: {what}") };
        assert!(error.to_string().contains("localhost took longer than 3s"), "{what}: {error}");
    }
}

#[test]
fn acme_retry_after_is_seconds_or_a_date_and_bounded() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
    for (said, expected) in [
        ("0", Some(0)),
        ("120", Some(120)),
        (" 120 ", Some(120)),
        ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
        ("Sun, 06 Nov 1994 08:40:37 GMT", Some(0)),
        ("604801", Some(604_800)),
        ("18446744073709551615", Some(604_800)),
        ("99999999999999999999999", Some(604_800)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(604_800)),
        ("", None),
        ("-1", None),
        ("soon", None),
    ] {
        assert_eq!(wait(said, now), expected.map(Duration::from_secs), "{said:?}");
    }
}

#[test]
fn acme_refusals_are_told_from_answers() {
    let answer = |status: u16, body: &'static str| {
        let answer = Response::builder().status(status).header(RETRY_AFTER, "18446744073709551615");
        refused(answer.body(Bytes::from_static(body.as_bytes())).expect("an answer"), SystemTime::now())
    };
    for status in [200, 201, 204, 301] {
        let answer = answer(status, "").expect("an answer");
        assert_eq!(answer.headers()[RETRY_AFTER], "604800", "bounded for the library");
    }
    answer(400, r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#).expect("for the library");
    for (status, body, expected) in [
        (400, r#"{"type": "urn:ietf:params:acme:error:malformed", "detail": "no"}"#, "no"),
        (429, r#"{"type": "urn:ietf:params:acme:error:badNonce"}"#, "badNonce"),
        (502, "<html>", "it answered 502 Bad Gateway"),
        (400, "{\"type\": \"\\ud800\"}", "it answered 400"),
    ] {
        let failure = answer(status, body).expect_err("a refusal");
        assert!(failure.to_string().contains(expected), "{failure}");
        assert!(matches!(failure, Failure::Refused { retry_after: Some(LONGEST_RETRY_AFTER), .. }), "{failure:?}");
    }
}

#[test]
fn hostile_acme_directories_name_https_urls() {
    for (url, accepted) in [
        ("https://acme.example.com/new-nonce", true),
        ("https://127.0.0.1:14000/new-nonce", true),
        ("https://[::1]:14000/new-nonce", true),
        ("http://acme.example.com/new-nonce", false),
        ("https://user@acme.example.com/", false),
        ("https://", false),
        ("https://a b/", false),
        ("/new-nonce", false),
        ("acme.example.com", false),
        ("", false),
    ] {
        assert_eq!(https(url).is_ok(), accepted, "{url:?}");
        let directory = serde_json::json!({ "newNonce": url }).to_string();
        assert_eq!(check_directory(directory.as_bytes()).is_ok(), accepted, "{url:?}");
    }
    assert!(check_directory(b"<html>").is_err());
}
