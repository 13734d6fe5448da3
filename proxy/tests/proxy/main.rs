//! The proxy as a whole: a real engine with real sockets, real upstreams that record what they got, and resources
//! applied in-process. Only the controller is played, where a test says so.

extern crate pointsman_proxy as proxy;

mod access;
mod access_log;
mod apart;
mod bodies;
mod bystander;
mod challenges;
mod client_certificates;
mod clock;
mod descriptors;
mod drain;
mod exchanges;
mod explaining;
mod fleet;
mod forward_tls;
mod forwarding;
mod frames;
mod front;
mod gates;
mod grpc;
mod guard;
mod health;
mod hostile_clients;
mod hostile_credentials;
mod hostile_crowds;
mod hostile_downgrade;
mod hostile_endpoint_tls;
mod hostile_framing;
mod hostile_grpc;
mod hostile_handshakes;
mod hostile_http2;
mod hostile_resets;
mod hostile_upstream;
mod hostile_windows;
mod indistinguishable;
mod keep_alive;
mod lasting;
mod limits;
mod log;
mod overriding;
mod reading;
mod recorder;
mod redirect;
mod restart;
mod routing;
mod sealed;
mod site;
mod split;
mod sticky;
mod support;
mod tickets;
mod tls;
mod trusted;
mod upgrade;
mod websocket;
mod wire;

/// Every hostile case ends with the look at whether all is as before.
#[test]
fn hostile_tests_end_with_a_look_at_what_is_left() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proxy");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let text = std::fs::read_to_string(entry.expect("an entry").path()).expect("text");
        for test in text.split("\nasync fn hostile_h").skip(1) {
            let (test, _) = test.split_once("\n}").expect("its end");
            assert!(test.contains("is_as_before") || test.contains("    refused("), "hostile_h{test}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} hostile tests");
}
