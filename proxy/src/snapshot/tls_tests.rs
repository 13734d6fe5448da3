use api::Version;
use api::fleet::{Backend, EndpointTls, Protocol as Spoken, Rejection, Resource};

use crate::snapshot::{Compiler, Tls, fixture};

/// A stage whose releases, from 1 on, are spoken to so.
fn stage(name: &str, releases: &[(Spoken, Option<EndpointTls>)]) -> Resource {
    let (service, environment) = name.split_once('/').expect("a stage's name");
    let backends = releases.iter().zip(1..).map(|((protocol, tls), release)| Backend {
        release,
        protocol: (*protocol).into(),
        tls: tls.clone(),
        ..Backend::default()
    });
    let (service, environment) = (service.into(), environment.into());
    let body = api::fleet::Stage { service, environment, backends: backends.collect(), ..Default::default() };
    Resource { schema: api::SCHEMA_ENDPOINT_TLS, ..fixture::resource("stage", name, &body) }
}

fn trust(ca: &str, name: &str) -> Option<EndpointTls> {
    Some(EndpointTls { ca_pem: ca.into(), server_name: name.into(), ..EndpointTls::default() })
}

fn of_workload(ca: &str, id: &str) -> Option<EndpointTls> {
    trust(ca, "hello.internal").map(|tls| EndpointTls { spiffe_id: id.into(), ..tls })
}

fn authority() -> String {
    certs::install_provider();
    rcgen::generate_simple_self_signed(vec!["ca".into()]).expect("a certificate").cert.pem()
}

fn apply(compiler: &mut Compiler, number: u64, resources: &[Resource]) -> Result<(), Vec<Rejection>> {
    compiler.apply(fixture::full(Version { term: 1, number }, resources)).map(drop)
}

/// The numbers of a stage's ways to be verified.
fn ids(compiler: &Compiler, stage: &str) -> Vec<Option<u64>> {
    let stage = compiler.snapshot().stage_named(stage).expect("there");
    stage.backends.iter().map(|backend| backend.tls.as_ref().map(|tls: &std::sync::Arc<Tls>| tls.id)).collect()
}

#[test]
fn hostile_h80_a_backend_that_cannot_be_verified_as_it_says_is_refused_whole() {
    let ca = authority();
    let key = rcgen::KeyPair::generate().expect("a key").serialize_pem();
    let good = (Spoken::H1Tls, trust(&ca, "hello.internal"));
    for (protocol, tls, field, reason) in [
        (Spoken::H1Tls, None, "tls", "is missing"),
        (Spoken::H2Tls, None, "tls", "is missing"),
        (Spoken::H1, trust(&ca, "hello.internal"), "tls", "one in clear"),
        (Spoken::H2c, trust("", ""), "tls", "one in clear"),
        (Spoken::Unspecified, trust(&ca, "hello.internal"), "protocol", "H1_TLS (3)"),
        (Spoken::H1Tls, trust(&ca, ""), "tls.server_name", "neither a DNS name"),
        (Spoken::H1Tls, trust(&ca, "*.internal"), "tls.server_name", "neither a DNS name"),
        (Spoken::H2Tls, trust("", "a b"), "tls.server_name", "neither a DNS name"),
        (Spoken::H1Tls, of_workload(&ca, "https://hello"), "tls.spiffe_id", "spiffe://example.com/hello"),
        (Spoken::H2Tls, of_workload(&ca, "spiffe://"), "tls.spiffe_id", "is not a SPIFFE id"),
        (Spoken::H1Tls, trust("ca.pem", "hello.internal"), "tls.ca_pem", "no certificate"),
        (Spoken::H1Tls, trust(&ca.replacen("MII", "AAA", 1), "hello.internal"), "tls.ca_pem", "cannot be read"),
        (Spoken::H2Tls, trust(&format!("{ca}{key}"), "hello.internal"), "tls.ca_pem", "PRIVATE KEY"),
    ] {
        let mut compiler = Compiler::default();
        apply(&mut compiler, 1, &[stage("hello/staging", std::slice::from_ref(&good))]).expect("good");
        let bad = [stage("hello/staging", &[good.clone(), (protocol, tls.clone())])];
        let refused = apply(&mut compiler, 2, &bad).expect_err("refused");
        let [Rejection { resource, field: at, reason: why }] = &refused[..] else { panic!("{refused:?}") };
        assert_eq!((resource.as_str(), at.as_str()), ("stage hello/staging", &*format!("backends[1].{field}")));
        assert!(why.contains(reason), "{why}");
        assert_eq!(ids(&compiler, "hello/staging"), [Some(1)], "what was there serves on");
    }
}

#[test]
fn those_who_verify_alike_share_and_no_others() {
    let (one, other) = (authority(), authority());
    let mut compiler = Compiler::default();
    let state = |more: &[(Spoken, Option<EndpointTls>)]| {
        let first = [
            (Spoken::H1Tls, trust(&one, "a.internal")),
            (Spoken::H2Tls, trust(&one, "a.internal")),
            (Spoken::H1Tls, trust(&one, "b.internal")),
            (Spoken::H1Tls, trust(&other, "a.internal")),
            (Spoken::H1Tls, trust("", "a.internal")),
            (Spoken::H1, None),
        ];
        [stage("hello/staging", &first), stage("other/staging", more)]
    };
    let alike = (Spoken::H1Tls, trust(&one, "a.internal"));
    let passing = (Spoken::H1Tls, trust(&one, "c.internal"));
    apply(&mut compiler, 1, &state(&[alike.clone(), passing.clone()])).expect("good");
    let (all, others) = (ids(&compiler, "hello/staging"), ids(&compiler, "other/staging"));
    assert_eq!(all, [Some(1), Some(2), Some(3), Some(4), Some(5), None]);
    assert_eq!(others, [Some(1), Some(6)]);
    // What goes and comes back is another one; the rest stays, and its connections with it.
    apply(&mut compiler, 2, &state(std::slice::from_ref(&alike))).expect("good");
    apply(&mut compiler, 3, &state(&[alike, passing])).expect("good");
    assert_eq!(ids(&compiler, "hello/staging"), all);
    assert_eq!(ids(&compiler, "other/staging"), [Some(1), Some(7)]);
}
