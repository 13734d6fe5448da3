//! What policies cost: `cargo run --release -p pointsman-policies --example costs`.
//!
//! Verifies and signs tokens, reads policies, cuts them, and asks as a proxy does when it has nothing in its cache; prints
//! medians on one core.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::fleet;
use pointsman_policies::credential::assertion::{Key, Signer, jwks};
use pointsman_policies::credential::{Application, Attribute, Identity, Issuers, KeyRing, KeySet, Standing, User};
use pointsman_policies::policy::{
    Action, AttributeTypes, Cut, Document, Policies, Question, StageFacts, StagePolicies,
};

fn main() {
    tokens();
    let attributes = attributes();
    println!("{:<58} {:>10}", "one decision, user with 5 groups, application with 1", "µs");
    println!("{:<58} {:>10.1}", "  prepared only", us(ask(&policies_of(0).stages["service0"], &[])));
    for count in [0, 5, 20, 200, 1_000] {
        let cut = policies_of(count);
        let stage = &cut.stages["service0"];
        println!(
            "{:<58} {:>10.1}",
            format!("  read, {} policies", stage.count(Action::Read)),
            us(ask(stage, &[Action::Read]))
        );
    }

    println!("{:<58} {:>10}", "1,000 policies over 200 stages", "µs");
    let (documents, stages) = ([document(1_000, 200)], stages(200));
    let read = median(11, || Policies::read(&documents, None, &attributes, None));
    println!("{:<58} {:>10.0}", "  read and checked, all", us(read));
    let policies = Policies::read(&documents, None, &attributes, None).expect("they are right");
    let again = median(101, || Policies::read(&documents, None, &attributes, Some(&policies)));
    println!("{:<58} {:>10.1}", "  read again unchanged, all", us(again));
    println!("{:<58} {:>10.0}", "  cut, all", us(median(11, || policies.cut("staging", &stages))));
    let cut = policies.cut("staging", &stages);
    let stage = &cut.stages["service7"];
    let counts = [Action::Discover, Action::Read].map(|action| stage.count(action));
    println!("{:<58} {:>10.1}", format!("  discover, {} policies", counts[0]), us(ask(stage, &[Action::Discover])));
    println!("{:<58} {:>10.1}", format!("  read, {} policies", counts[1]), us(ask(stage, &[Action::Read])));
    let first = ask(stage, &[Action::Discover, Action::Read]);
    println!("{:<58} {:>10.1}", "  a first decision: discover and read", us(first));
    let none = ask(&cut.unknown, &[Action::Discover]);
    println!("{:<58} {:>10.1}", "  of a stage that does not exist: discover", us(none));
}

fn tokens() {
    const NOW_S: u64 = 1_800_000_000;
    const ISSUER: &str = "https://login.example.com";
    let key = Key::draw();
    let signer = Signer::new(ISSUER, "first", &key.pkcs8).expect("the key is right");
    let written = fleet::Issuer {
        issuer: ISSUER.to_owned(),
        audiences: vec!["orders".to_owned()],
        algorithms: vec!["ES256".to_owned()],
        refresh_ms: 300_000,
        ..fleet::Issuer::default()
    };
    let issuers = Issuers::new([("corp", &written)].into_iter()).expect("the issuer is right");
    let keys = KeySet::read(jwks(&[("first".to_owned(), key.public)]).as_bytes()).expect("the key is right");
    let ring = KeyRing { issuers: BTreeMap::from([("corp".into(), Arc::new(keys))]), generation: 1 };
    let token = signer.sign_json(&serde_json::json!({
        "iss": ISSUER, "aud": "orders", "sub": "248289761001", "iat": NOW_S, "exp": NOW_S + 300,
        "groups": ["bench", "engineering", "payments"], "email": "somebody@example.com",
    }));
    let verify = || issuers.user(token.as_bytes(), &ring, NOW_S);
    assert!(matches!(verify(), Standing::Valid(_)), "{:?}", verify());
    println!("{:<58} {:>10}", "ES256", "µs");
    println!("{:<58} {:>10.1}", "  a user's token verified", us(median(2_001, verify)));
    let identity = identity();
    let sign = || signer.sign(&identity, "orders/staging", "00000000000000000000000000000000", NOW_S);
    println!("{:<58} {:>10.1}", "  an assertion signed", us(median(2_001, sign)));
}

fn attributes() -> AttributeTypes {
    AttributeTypes::from([("department".to_owned(), fleet::claim_attribute::Type::String)])
}

/// All of them for one stage.
fn policies_of(count: usize) -> Cut {
    let policies = Policies::read(&[document(count, 1)], None, &attributes(), None).expect("they are right");
    policies.cut("staging", &stages(1))
}

/// `count` policies, dealt out to `stages`.
fn document(count: usize, stages: usize) -> Document {
    let mut text = String::new();
    for number in 0..count {
        let stage = number % stages;
        let (action, when) = match number / stages % 5 {
            0 => ("action", ""),
            1 => ("action in [Action::\"discover\", Action::\"read\"]", ""),
            2 => (
                "action in Action::\"call\"",
                " when { context has application && context.application.name == \"batch\" }",
            ),
            3 => ("action == Action::\"read\"", " when { context.path like \"/reports/*\" }"),
            _ => (
                "action",
                " when { principal is User && principal has department && principal.department == \"sales\" }",
            ),
        };
        text.push_str(&format!(
            "permit (principal in Group::\"group{number}\", {action}, resource == Stage::\"service{stage}/staging\"){when};\n"
        ));
    }
    Document { name: "many.cedar".to_owned(), text }
}

fn stages(count: usize) -> Vec<StageFacts> {
    (0..count).map(|number| StageFacts { service: format!("service{number}").into(), public: false }).collect()
}

fn ask(stage: &StagePolicies, actions: &[Action]) -> Duration {
    let identity = identity();
    median(5_001, || {
        let asking = stage.asking(&identity);
        for action in actions {
            black_box(asking.decide(&question(*action)));
        }
    })
}

fn identity() -> Identity {
    let groups = [7, 207, 407, 607, 9999].map(|number| format!("group{number}").into()).to_vec();
    let user = User {
        issuer: "corp".into(),
        subject: "248289761001".to_owned(),
        client: Some("portal".to_owned()),
        groups,
        attributes: BTreeMap::from([("department".into(), Attribute::String("sales".to_owned()))]),
        until_s: 0,
    };
    let application = Application { name: "batch".into(), groups: vec!["partners".into()] };
    Identity {
        application: Standing::Valid(Arc::new(application)),
        user: Standing::Valid(Arc::new(user)),
        until_s: None,
        by_proxy_authorization: false,
    }
}

fn question(action: Action) -> Question<'static> {
    let client = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
    Question { action, release: None, method: "GET", path: "/reports/2026?full=1", client, now_ms: 0 }
}

fn median<T>(times: usize, mut work: impl FnMut() -> T) -> Duration {
    let mut taken: Vec<Duration> = (0..times)
        .map(|_| {
            let begin = Instant::now();
            black_box(work());
            begin.elapsed()
        })
        .collect();
    taken.sort_unstable();
    taken[times / 2]
}

fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
