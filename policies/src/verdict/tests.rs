//! Every combination of stage, credentials and answers, against the order as it is written down.

use super::*;
use crate::credential::{Application, Fault, User};
use std::sync::Arc;

/// A credential as it may stand.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Absent,
    Valid,
    Refused,
    Unavailable,
}

const HELD: [Held; 4] = [Held::Absent, Held::Valid, Held::Refused, Held::Unavailable];
const SAID: [Said; 3] = [Said::Yes, Said::No, Said::Failed];
const NAMED: [Named; 3] = [Named::Nothing, Named::Known, Named::Unknown];

fn held<T>(held: Held, valid: T) -> Standing<Arc<T>> {
    match held {
        Held::Absent => Standing::Absent,
        Held::Valid => Standing::Valid(Arc::new(valid)),
        Held::Refused => Standing::Refused(Fault::Repeated),
        Held::Unavailable => Standing::Unavailable(Fault::Repeated),
    }
}

fn identity(application: Held, user: Held) -> Identity {
    let alice = User {
        issuer: "corp".into(),
        subject: "alice".to_owned(),
        client: None,
        groups: Vec::new(),
        attributes: Default::default(),
        until_s: 0,
    };
    Identity {
        application: held(application, Application { name: "batch".into(), groups: Vec::new() }),
        user: held(user, alice),
        until_s: None,
        by_proxy_authorization: false,
    }
}

/// A stage that needs both and hides.
const BOTH: Rule = Rule { public: false, explicit_denial: false, needs_application: true, needs_user: true };
const EXPLICIT: Rule = Rule { explicit_denial: true, ..BOTH };
const PUBLIC: Rule = Rule { public: true, ..BOTH };
const NONE: Rule = Rule { public: false, explicit_denial: false, needs_application: false, needs_user: false };

const READ: Wanted = Wanted { action: Action::Read, exempt: None, release: Named::Nothing };

/// What policies say, and what they were asked.
struct Policies {
    says: [(Action, Said); 5],
    asked: Vec<Action>,
}

impl Policies {
    fn say(&mut self, action: Action) -> Said {
        self.asked.push(action);
        self.says.iter().find(|(of, _)| *of == action).map_or(Said::No, |(_, said)| *said)
    }
}

fn policies(discover: Said, using: Said, call: Said, exempt: Said) -> Policies {
    let says = [
        (Action::Discover, discover),
        (Action::Use, using),
        (Action::Read, call),
        (Action::Preflight, exempt),
        (Action::Check, exempt),
    ];
    Policies { says, asked: Vec::new() }
}

fn check(
    rule: Option<Rule>,
    (application, user): (Held, Held),
    wanted: Wanted,
    mut policies: Policies,
    verdict: Verdict,
    asked: &[Action],
) {
    let identity = identity(application, user);
    let found = judge(rule, &identity, wanted, |action| policies.say(action));
    let what = format!("{rule:?} {application:?} {user:?} {wanted:?} {:?}", policies.says);
    assert_eq!(found, verdict, "{what}");
    assert_eq!(policies.asked, asked, "{what}");
}

#[test]
fn the_order_is_kept() {
    use Action::{Discover, Preflight, Read, Use};
    use Held::{Absent, Refused, Unavailable, Valid};
    use Said::{Failed, No, Yes};
    use Verdict::{Allowed, Forbidden, Hidden, Unauthenticated};
    let all = || policies(Yes, Yes, Yes, Yes);
    let known = Wanted { release: Named::Known, ..READ };
    let unknown = Wanted { release: Named::Unknown, ..READ };
    let preflight = Wanted { exempt: Some(Preflight), ..READ };
    let valid = (Valid, Valid);
    // Both valid.
    check(Some(BOTH), valid, READ, all(), Allowed, &[Discover, Read]);
    check(Some(BOTH), valid, READ, policies(Yes, Yes, No, Yes), Hidden(Why::MayNotCall), &[Discover, Read]);
    check(Some(EXPLICIT), valid, READ, policies(Yes, Yes, No, Yes), Forbidden(Why::MayNotCall), &[Discover, Read]);
    check(Some(BOTH), valid, READ, policies(Yes, Yes, Failed, Yes), Hidden(Why::PolicyFailed), &[Discover, Read]);
    check(
        Some(EXPLICIT),
        valid,
        READ,
        policies(Yes, Yes, Failed, Yes),
        Forbidden(Why::PolicyFailed),
        &[Discover, Read],
    );
    // May not know of it.
    check(Some(EXPLICIT), valid, READ, policies(No, Yes, Yes, Yes), Hidden(Why::MayNotDiscover), &[Discover]);
    check(Some(EXPLICIT), valid, READ, policies(Failed, Yes, Yes, Yes), Hidden(Why::PolicyFailed), &[Discover]);
    check(
        Some(EXPLICIT),
        (Absent, Absent),
        READ,
        policies(No, Yes, Yes, Yes),
        Hidden(Why::MayNotDiscover),
        &[Discover],
    );
    check(
        Some(BOTH),
        (Unavailable, Refused),
        READ,
        policies(No, Yes, Yes, Yes),
        Hidden(Why::MayNotDiscover),
        &[Discover],
    );
    // No stage.
    check(None, valid, READ, all(), Hidden(Why::UnknownHost), &[Discover]);
    check(None, valid, known, all(), Hidden(Why::UnknownHost), &[Discover]);
    check(None, valid, preflight, policies(No, No, No, No), Hidden(Why::UnknownHost), &[Preflight, Discover]);
    check(None, valid, preflight, all(), Hidden(Why::UnknownHost), &[Preflight, Discover]);
    // A release by its own host.
    check(Some(EXPLICIT), valid, known, all(), Allowed, &[Discover, Use, Read]);
    check(Some(EXPLICIT), valid, known, policies(Yes, No, Yes, Yes), Hidden(Why::MayNotUse), &[Discover, Use]);
    check(Some(EXPLICIT), valid, known, policies(Yes, Failed, Yes, Yes), Hidden(Why::PolicyFailed), &[Discover, Use]);
    check(Some(EXPLICIT), valid, unknown, all(), Hidden(Why::UnknownRelease), &[Discover]);
    check(Some(EXPLICIT), valid, unknown, policies(No, Yes, Yes, Yes), Hidden(Why::MayNotDiscover), &[Discover]);
    check(Some(BOTH), (Absent, Absent), known, policies(Yes, No, Yes, Yes), Hidden(Why::MayNotUse), &[Discover, Use]);
    check(Some(BOTH), (Absent, Valid), known, all(), Unauthenticated(Why::NoApplication), &[Discover, Use]);
    // Exempt from credentials.
    for exempt in [Preflight, Action::Check] {
        let wanted = Wanted { exempt: Some(exempt), ..READ };
        let wanted_of = |release| Wanted { release, ..wanted };
        check(Some(BOTH), (Absent, Refused), wanted, policies(No, No, No, Yes), Allowed, &[exempt]);
        check(Some(BOTH), (Absent, Absent), wanted_of(Named::Known), policies(No, No, No, Yes), Allowed, &[exempt]);
        let missing = Hidden(Why::UnknownRelease);
        check(
            Some(BOTH),
            (Absent, Absent),
            wanted_of(Named::Unknown),
            policies(Yes, Yes, Yes, Yes),
            missing,
            &[exempt],
        );
        check(Some(BOTH), valid, wanted, policies(Yes, Yes, Yes, No), Allowed, &[exempt, Discover, Read]);
        check(
            Some(BOTH),
            valid,
            wanted,
            policies(Yes, Yes, No, Failed),
            Hidden(Why::MayNotCall),
            &[exempt, Discover, Read],
        );
        let denied = Hidden(Why::MayNotDiscover);
        check(Some(BOTH), valid, wanted, policies(No, Yes, Yes, No), denied, &[exempt, Discover]);
        let missing = Unauthenticated(Why::NoUser);
        check(Some(BOTH), (Valid, Absent), wanted, policies(Yes, Yes, Yes, No), missing, &[exempt, Discover]);
    }
    // Public: no credentials, and policies still count.
    check(Some(PUBLIC), (Absent, Unavailable), READ, all(), Allowed, &[Discover, Read]);
    check(Some(PUBLIC), (Refused, Absent), READ, policies(Yes, No, No, No), Hidden(Why::MayNotCall), &[Discover, Read]);
}

/// All of them, against what is needed of each.
#[test]
fn credentials_that_are_needed_are_asked_for() {
    use Held::{Unavailable, Valid};
    for needs in [(false, false), (false, true), (true, false), (true, true)] {
        for application in HELD {
            for user in HELD {
                let rule = Rule { needs_application: needs.0, needs_user: needs.1, ..NONE };
                let lacks = |needed: bool, held: Held| needed && held != Valid;
                let is_unavailable = (needs.0 && application == Unavailable) || (needs.1 && user == Unavailable);
                let verdict = match (lacks(needs.0, application), lacks(needs.1, user)) {
                    _ if is_unavailable => Verdict::Unavailable(Why::KeysUnavailable),
                    (true, _) => Verdict::Unauthenticated(Why::NoApplication),
                    (false, true) => Verdict::Unauthenticated(Why::NoUser),
                    (false, false) => Verdict::Allowed,
                };
                let asked = [Action::Discover, Action::Read];
                let asked = &asked[..if verdict == Verdict::Allowed { 2 } else { 1 }];
                let yes = policies(Said::Yes, Said::Yes, Said::Yes, Said::Yes);
                check(Some(rule), (application, user), READ, yes, verdict, asked);
            }
        }
    }
}

/// What must hold whatever the rest is.
#[test]
fn no_combination_lets_through_what_it_must_not() {
    let rules = [None, Some(BOTH), Some(EXPLICIT), Some(PUBLIC), Some(NONE)];
    let exemptions = [None, Some(Action::Preflight), Some(Action::Check)];
    let mut combinations = 0_u32;
    for (rule, exempt) in rules.iter().flat_map(|rule| exemptions.map(|exempt| (*rule, exempt))) {
        for (application, user) in HELD.iter().flat_map(|application| HELD.map(|user| (*application, user))) {
            for (discover, call) in SAID.iter().flat_map(|discover| SAID.map(|call| (*discover, call))) {
                for (release, (using, free)) in NAMED.iter().flat_map(|named| {
                    SAID.iter()
                        .flat_map(|using| SAID.map(|free| (*using, free)))
                        .map(|pair| (*named, pair))
                        .collect::<Vec<_>>()
                }) {
                    combinations += 1;
                    let mut policies = policies(discover, using, call, free);
                    let wanted = Wanted { exempt, release, ..READ };
                    let verdict = judge(rule, &identity(application, user), wanted, |action| policies.say(action));
                    let what = format!("{rule:?} {application:?} {user:?} {wanted:?} {:?}: {verdict:?}", policies.says);
                    let is_free = exempt.is_some() && free == Said::Yes && rule.is_some();
                    if verdict == Verdict::Allowed {
                        assert!(rule.is_some() && release != Named::Unknown, "{what}");
                        assert!(is_free || (discover == Said::Yes && call == Said::Yes), "{what}");
                        assert!(is_free || release == Named::Nothing || using == Said::Yes, "{what}");
                        let needs = rule.is_some_and(|rule| rule.needs_user && !rule.public);
                        assert!(is_free || !needs || (user == Held::Valid && application == Held::Valid), "{what}");
                    }
                    // Whoever may not know of a stage is told the same as where there is none, and the same was asked.
                    if discover != Said::Yes && !is_free || rule.is_none() {
                        assert!(matches!(verdict, Verdict::Hidden(_)), "{what}");
                        let same: Vec<_> = exempt.into_iter().chain([Action::Discover]).collect();
                        assert_eq!(policies.asked, same, "{what}");
                    }
                    if matches!(verdict, Verdict::Forbidden(_)) {
                        assert!(rule.is_some_and(|rule| rule.explicit_denial), "{what}");
                    }
                    let mut once = policies.asked.clone();
                    once.sort_unstable();
                    once.dedup();
                    assert_eq!(once.len(), policies.asked.len(), "{what}");
                }
            }
        }
    }
    assert_eq!(combinations, 5 * 3 * 16 * 9 * 27);
}
