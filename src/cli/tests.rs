//! The command line as a whole: what is accepted, and that help has a place for everything.

use super::*;

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_verb_stands_in_one_group() {
    let command = command();
    let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
    let mut verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    listed.sort_unstable();
    verbs.sort_unstable();
    assert_eq!(listed, verbs);
}

fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, clap::Command)>) {
    let path = format!("{path} {}", command.get_name());
    if !command.has_subcommands() || command.get_arguments().any(clap::Arg::is_positional) {
        found.push((path.clone(), command.clone()));
    }
    command.get_subcommands().for_each(|verb| leaves(verb, &path, found));
}

#[test]
fn every_verb_has_help_with_an_example() {
    let mut found = Vec::new();
    command().get_subcommands().for_each(|verb| leaves(verb, "", &mut found));
    assert!(found.len() > 25, "{}", found.len());
    for (path, mut command) in found {
        assert!(command.get_about().is_some(), "{path}");
        let help = command.render_long_help().to_string();
        assert!(help.contains("Example"), "{path}");
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            assert!(argument.get_help().is_some(), "{path}: {argument}");
        }
    }
}

#[test]
fn lines_are_accepted_or_refused() {
    let table = [
        ("init", true),
        ("init --service hello", true),
        ("controller --data d", true),
        ("controller --data d --listen 0.0.0.0:7400 --advertise c.example.com:7400", true),
        ("controller", false),
        ("controller --data d --advertise nowhere", false),
        ("controller backup b.db --data d", true),
        ("controller restore b.db --data d", true),
        ("controller restore b.db", false),
        ("proxy --data d --http 127.0.0.1:0 --workers 2 --drain 10s", true),
        ("proxy --data d --workers -1", false),
        ("proxy override hello/production r41 --for 1h --reason outage --data d", true),
        ("proxy override hello/production --end --data d", true),
        ("proxy override hello/production --data d", false),
        ("proxy override hello/production r41 --data d", false),
        ("proxy override hello/production r41 --for 1h --data d", false),
        ("proxy override hello/production r41 --end --data d", false),
        ("proxy status --data d", true),
        ("agent --data d --address 10.0.0.7 --ports 20000-20999 --end-releases", true),
        ("join proxy --name p1 --valid 15m", true),
        ("join agent --name a1 --group small", true),
        ("join server --name a1", false),
        ("login --from operator.toml", true),
        ("login c.example.com:7400 --ca ca.pem --token-file -", true),
        ("login c.example.com:7400", false),
        ("login", false),
        ("login --from f c.example.com:7400 --ca ca.pem --token-file t", false),
        ("context list", true),
        ("context use prod", true),
        ("context show", true),
        ("completions bash", true),
        ("demo --tour --json f", true),
        ("apply -f a.toml -f b.toml --plan", true),
        ("apply -f a.toml b.toml", true),
        ("apply -f -", true),
        ("apply", false),
        ("environment show staging -o json", true),
        ("service resolve hello", true),
        ("service resolve hello/staging -o json", true),
        ("service resolve hello/", false),
        ("status", true),
        ("status hello/staging --watch", true),
        ("release build hello --commit abc", true),
        ("release build hello --commit abc --tag v1", false),
        ("release build hello --no-wait", true),
        ("release build hello --again", true),
        ("release build hello --from r41 --branch fix/x", true),
        ("release build hello --from r41 --pick 1a2b3c4 --pick 5d6e7f8", true),
        ("release build hello --pick 1a2b3c4", false),
        ("release build hello --from 41 --pick 1a2b3c4", false),
        ("release build hello --from r41 --pick 1a2b3c4 --branch fix/x", false),
        ("release build hello --from r41 --tag v1", false),
        ("release build hello --tag v1 --branch b", false),
        ("release add hello --version 1.0 --image web=registry.example.com/web:v1", true),
        ("release add hello --version 1.0 --image qa/web=r.example.com/web:v1 --address web=10.0.0.7:80", true),
        ("release add hello --version 1.0 --image web", false),
        ("release list hello -n 5 --all", true),
        ("release list hello -n 0", false),
        ("release logs hello@r42 --check fits", true),
        ("release cancel hello@r42 --reason wrong", true),
        ("release retry hello@r42 --no-wait", true),
        ("release diff hello@r41 r42", true),
        ("release diff hello@r41 hello@r42 -o json", true),
        ("release diff hello@r41", false),
        ("release diff r41 r42", false),
        ("release verify hello@r42", true),
        ("repository list", true),
        ("release add hello --version 1.0 --address web=10.0.0.7:80", true),
        ("release add hello --version 1.0", false),
        ("release logs hello@r42 -f", true),
        ("release mark hello@r42 --not-reversible --reason names", true),
        ("release mark hello@r42 --not-reversible", false),
        ("release mark hello@r42 --reversible", true),
        ("release mark hello@r42 --reversible --not-reversible --reason names", false),
        ("release mark hello@r42 --reason names", false),
        ("promote hello@r41 --to production --past r42", true),
        ("rollout abort hello/production --past r42", true),
        ("rollout skip hello/production --past r42", true),
        ("rollout weight hello/production 100% --past r42", true),
        ("rollout pause hello/production --past r42", false),
        ("rollback hello/production --past r42", true),
        ("rollback hello/production --past hello@r42", false),
        ("promote hello@r42 --to production --weight 0.01% --plan", true),
        ("promote hello@r42 --to production --bypass", false),
        ("promote hello@r42 --to production --bypass --reason fix", true),
        ("rollout weight hello/production 50%", true),
        ("rollout weight hello/production 101%", false),
        ("rollout pause hello/production --reason lunch", true),
        ("rollout resume hello/production --no-wait", true),
        ("rollout skip hello/production --plan", true),
        ("rollout skip hello/production --bad", false),
        ("rollout abort hello/production --bad --reason prices", true),
        ("rollout abort", false),
        ("rollout watch hello/production", true),
        ("explain rollout hello/production -o json", true),
        ("rollback hello/production --to r41 --no-wait", true),
        ("unhold hello/production r42 --reason fixed", true),
        ("history", true),
        ("history hello/production -n 5 -f", true),
        ("token create ci --allow read,promote --service hello", true),
        ("token create ci", false),
        ("token create ci --allow everything", false),
        ("token create alice --allow read --certificate alice.toml", true),
        ("token create alice --allow read --certificate alice.toml --valid 90d", true),
        ("token create alice --allow read --valid 90d", false),
        ("token create alice --allow read --certificate alice.toml --valid 400d", false),
        ("token revoke ci", true),
        (
            "app create batch --group partners --certificate spiffe://example.com/batch --client corp=abc --key-until 90d",
            true,
        ),
        ("app create batch --client corp", false),
        ("app create batch --without-key --certificate batch.example.com", true),
        ("app create batch --without-key --key-until 1d", false),
        ("app create batch --key-until 0s", false),
        ("explain request 0123456789abcdef0123456789abcdef", true),
        ("explain request x --user corp/alice", true),
        ("explain request", false),
        ("explain request x --user alice", false),
        ("policy explain hello/staging --user corp/alice --group staff --attribute department=sales --app batch", true),
        ("policy explain hello/staging --rpc shop.Orders/List", true),
        ("policy explain hello/staging --release r42 --method POST --path /x --client 10.0.0.7", true),
        ("policy explain hello/staging --rpc a.B/C --path /x", false),
        ("policy explain hello/staging --group staff", false),
        ("policy explain hello", false),
        ("policy explain hello/staging --user alice", false),
        ("access jwks", true),
        ("access", false),
        ("app list -o json", true),
        ("app show batch", true),
        ("app rotate batch --overlap 24h", true),
        ("app rotate batch --overlap 0s", true),
        ("app rotate batch --overlap never", false),
        ("app revoke batch --reason leaked", true),
        ("fleet list", true),
        ("fleet revoke p1 --reason gone", true),
        ("policy check -f access.toml", true),
        ("policy check -f access.toml -f production.toml -o json", true),
        ("policy check", false),
        ("policy test -f access.toml cases.toml more.toml", true),
        ("policy test -f access.toml", false),
        ("policy test cases.toml", false),
        ("policy schema", true),
        ("policy schema -f access.toml", true),
        ("explode", false),
    ];
    for (line, accepted) in table {
        let line_of = std::iter::once("pointsman").chain(line.split(' '));
        let read = command().try_get_matches_from(line_of);
        assert_eq!(read.is_ok(), accepted, "{line}: {:?}", read.err().map(|error| error.to_string()));
    }
}
