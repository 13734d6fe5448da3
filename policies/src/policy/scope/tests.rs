use super::*;

fn scope(head: &str) -> Scope {
    let policy: Policy =
        format!("permit (principal, {head});").parse().unwrap_or_else(|error| panic!("{head}: {error}"));
    Scope::of(&policy)
}

#[test]
fn the_head_says_for_which_stages() {
    let one = |name: &str| Stages::One(name.into());
    let table = [
        ("resource", Stages::All),
        ("resource is Stage", Stages::All),
        ("resource in Environment::\"staging\"", Stages::Environment("staging".into())),
        ("resource is Stage in Environment::\"staging\"", Stages::Environment("staging".into())),
        ("resource == Stage::\"hello/staging\"", one("hello/staging")),
        ("resource in Stage::\"hello/staging\"", one("hello/staging")),
        ("resource == Release::\"hello/staging/r42\"", one("hello/staging")),
        ("resource in Release::\"hello/staging/r42\"", one("hello/staging")),
        ("resource == Release::\"nonsense\"", Stages::None),
        ("resource in Group::\"staff\"", Stages::None),
    ];
    for (head, expected) in table {
        assert_eq!(scope(&format!("action, {head}")).stages, expected, "{head}");
    }
}

#[test]
fn the_head_says_for_which_actions() {
    use Action::{Check, Discover, Preflight, Read, Rpc, Upgrade, Use, Write};
    let of_stages: &[Action] = &[Discover, Read, Write, Rpc, Upgrade, Preflight, Check];
    let table: [(&str, &[Action]); 14] = [
        ("action, resource", &Action::ALL),
        ("action, resource is Stage", of_stages),
        ("action, resource is Release", &[Use]),
        ("action, resource is Environment", &[]),
        ("action, resource == Stage::\"hello/staging\"", of_stages),
        ("action, resource in Stage::\"hello/staging\"", &Action::ALL),
        ("action, resource is Release in Stage::\"hello/staging\"", &[Use]),
        ("action, resource is Stage in Release::\"hello/staging/r1\"", &[]),
        ("action, resource in Release::\"hello/staging/r1\"", &[Use]),
        ("action == Action::\"read\", resource", &[Read]),
        ("action == Action::\"call\", resource", &[]),
        ("action in Action::\"call\", resource", &[Read, Write, Rpc, Upgrade]),
        ("action in [Action::\"call\", Action::\"use\"], resource is Release", &[Use]),
        ("action in Action::\"discover\", resource in Environment::\"staging\"", &[Discover]),
    ];
    for (head, expected) in table {
        let scope = scope(head);
        let found: Vec<_> = Action::ALL.into_iter().filter(|action| scope.has(*action)).collect();
        assert_eq!(found, expected, "{head}");
    }
}
