use super::*;

#[test]
fn what_a_policy_reads_is_found() {
    const NOTHING: Reads = Reads { method: false, path: false, volatile: false };
    const METHOD: Reads = Reads { method: true, ..NOTHING };
    const PATH: Reads = Reads { path: true, ..NOTHING };
    const CLIENT: Reads = Reads { volatile: true, ..NOTHING };
    let table = [
        ("true", NOTHING),
        ("principal.subject == \"context\"", NOTHING),
        ("context has application && context.application.name == \"client\"", NOTHING),
        ("context.method == \"GET\"", METHOD),
        ("context[\"method\"] == \"GET\"", METHOD),
        ("[1, 2].contains(1) && !(if context.method == \"GET\" then true else false)", METHOD),
        ("context.path like \"/a/*\"", PATH),
        ("context.service == \"a\"", PATH),
        ("context has rpc_method", PATH),
        ("context has method", METHOD),
        ("context has client", CLIENT),
        ("context.client.isInRange(ip(\"10.0.0.0/8\"))", CLIENT),
        ("ip(\"10.0.0.7\") == context.client", CLIENT),
        ("context.method == \"GET\" || context.path == \"/\"", Reads { method: true, path: true, volatile: false }),
        ("context.sometime == 1", Reads::ALL),
        ("context has application.name", Reads::ALL),
        ("context == {path: \"/\"}", Reads::ALL),
        ("{a: context}.a.method == \"GET\"", Reads::ALL),
        ("[context].contains(context)", Reads::ALL),
        ("(if true then context else context).method == \"GET\"", Reads::ALL),
    ];
    for (condition, expected) in table {
        for kind in ["when", "unless"] {
            let text = format!("permit (principal, action, resource) when {{ true }} {kind} {{ {condition} }};");
            let policy: Policy = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(reads(&policy), expected, "{text}");
        }
    }
}
