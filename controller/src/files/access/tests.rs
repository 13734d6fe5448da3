use std::collections::BTreeMap;

use crate::core::spec::{AttributeType, GroupMeaning, LEEWAY, REFRESH};
use crate::files::{Attached, File, named, parse_with};

use super::*;

const ACCESS: &str = r#"schema = 1
policies = ["staff.cedar"]
entities = "entities.json"
[issuer.corp]
issuer = "https://login.example.com"
audience = ["pointsman"]
algorithms = ["ES256"]
jwks = "https://login.example.com/keys"
leeway = "10s"
refresh = "1m"
groups = [{ claim = "groups" }, { claim = "realm.roles", prefix = "corp-" }, { claim = "role", value = "admin", group = "admins" }]
attributes = { department = { claim = "department", type = "string" } }
"#;

const STAFF: &str = r#"permit (principal in Group::"staff", action == Action::"discover", resource);
@id("of sales")
permit (principal, action, resource) when { principal is User && principal has department && principal.department == "sales" };
"#;

/// Reads a file with others beside it; the mistakes as `file:line:column: message`.
fn read_with(text: &str, beside: &[(&str, &str)]) -> Result<AccessSpec, Vec<String>> {
    let beside: BTreeMap<&str, &str> = beside.iter().copied().collect();
    let names: BTreeMap<&str, String> = beside.keys().map(|name| (*name, format!("conf/{name}"))).collect();
    let attached = |name: &str| {
        let (written, text) = beside.get_key_value(name)?;
        Some(Attached { name: &names[written], text })
    };
    match parse_with("conf/access.toml", text, &attached) {
        Ok(File::Access(spec)) => Ok(spec),
        Ok(other) => panic!("{other:?}"),
        Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect()),
    }
}

fn reads(text: &str) -> Result<AccessSpec, Vec<String>> {
    read_with(text, &[("staff.cedar", STAFF), ("entities.json", "[]")])
}

/// The file with one line replaced; one mistake is expected, there.
fn check(line: &str, expected: &str) {
    let key = line.split(['=', ' ']).next().unwrap_or_default();
    let mut lines: Vec<&str> = ACCESS.lines().collect();
    // The last of that name: an issuer's own.
    let at = lines.iter().rposition(|old| old.split(['=', ' ']).next() == Some(key));
    let at = at.unwrap_or_else(|| {
        lines.push(line);
        lines.len() - 1
    });
    lines[at] = line;
    let found = reads(&lines.join("\n")).expect_err(line);
    let place = format!("conf/access.toml:{}:", at + 1);
    assert!(found.len() == 1 && found[0].starts_with(&place) && found[0].contains(expected), "{line}: {found:?}");
}

#[test]
fn access_is_read_as_it_is_meant() {
    let spec = reads(ACCESS).expect("right");
    assert_eq!(spec.documents["staff.cedar"], STAFF);
    assert_eq!(spec.entities.as_deref(), Some("[]"));
    let corp = &spec.issuers[&"corp".parse().expect("name")];
    assert_eq!(corp.issuer, "https://login.example.com");
    assert_eq!((&corp.audiences[..], &corp.algorithms[..]), (&["pointsman".to_owned()][..], &["ES256".to_owned()][..]));
    assert_eq!((corp.jwks.as_deref(), corp.ca.as_deref()), (Some("https://login.example.com/keys"), None));
    assert_eq!((corp.leeway.ms(), corp.refresh.ms()), (10_000, 60_000));
    let groups: Vec<_> = corp.groups.iter().map(|rule| (rule.claim.as_str(), rule.means.clone())).collect();
    let value = GroupMeaning::Value { value: "admin".into(), group: "admins".into() };
    assert_eq!(
        groups,
        [
            ("groups", GroupMeaning::Prefix(String::new())),
            ("realm.roles", GroupMeaning::Prefix("corp-".into())),
            ("role", value),
        ]
    );
    assert_eq!(corp.attributes["department"].kind, AttributeType::String);

    let least = "schema = 1\n[issuer.corp]\nissuer = \"http://127.0.0.1:8080\"\naudience = [\"a\"]\n";
    let corp = reads(least).expect("right").issuers.remove(&"corp".parse().expect("name")).expect("there");
    assert_eq!((corp.leeway, corp.refresh, corp.algorithms.len(), corp.groups.len()), (LEEWAY, REFRESH, 0, 0));
    assert_eq!(reads("schema = 1\npolicies = []\n").expect("nobody may pass"), AccessSpec::default());
}

#[test]
fn access_files_name_others_and_no_more_than_once() {
    let more = ACCESS
        .replace("[\"staff.cedar\"]", "[\"staff.cedar\", \"a/b.cedar\", \"../x\", \"/etc/passwd\", \"staff.cedar\"]");
    let more = more + "ca_file = \"ca.pem\"\n";
    assert_eq!(named(&more), ["a/b.cedar", "ca.pem", "entities.json", "staff.cedar"]);
    for none in
        ["", "schema = 1", "service = \"hello\"\nentities = \"e\"", "[[[", "environment = \"e\"\npolicies = [\"a\"]"]
    {
        assert!(named(none).is_empty(), "{none}");
    }
}

#[test]
fn hostile_h83_access_values_are_refused_with_the_accepted_form() {
    for (line, expected) in [
        ("issuer = \"http://login.example.com\"", "accepted is https (http on a loopback address)"),
        ("issuer = \"https://user@login.example.com\"", "accepted is https"),
        ("issuer = \"https://login.example.com?a=b\"", "without query and fragment"),
        ("issuer = \"login.example.com\"", "accepted is https"),
        ("jwks = \"file:///etc/passwd\"", "`jwks`: \"file:///etc/passwd\" is not a URL"),
        ("audience = []", "accepted are 1 to 256 strings"),
        ("audience = \"pointsman\"", "`audience` is a list of strings"),
        ("audience = [\"\"]", "accepted are 1 to 1024 bytes"),
        ("algorithms = [\"HS256\"]", "\"HS256\" is not an algorithm, did you mean"),
        ("algorithms = [\"none\"]", "\"none\" is not an algorithm (accepted: \"RS256\""),
        ("algorithms = []", "leave it out for all that are known"),
        ("algorithms = [\"ES256\", \"ES256\"]", "names \"ES256\" twice"),
        ("leeway = \"6m\"", "`leeway` is 6m: accepted is 1ms to 5m"),
        ("refresh = \"1s\"", "`refresh` is 1s: accepted is 30s to 1d"),
        ("groups = [{ claim = \"a\", value = \"b\" }]", "a rule is either"),
        ("groups = [{ claim = \"a\", value = \"b\", group = \"c\", prefix = \"d\" }]", "a rule is either"),
        ("groups = [{ claim = \"a..b\" }]", "is not the name of a claim"),
        ("groups = [{ prefix = \"b\" }]", "an entry of `groups` needs `claim`"),
        ("groups = { claim = \"a\" }", "`groups` is a list of tables, not a table"),
        ("groups = [\"a\"]", "an entry of `groups` is a table, not a string"),
        ("attributes = { department = { claim = \"d\", type = \"text\" } }", "\"text\" is not a type of an attribute"),
        ("attributes = { subject = { claim = \"d\", type = \"string\" } }", "is not the name of an attribute"),
        ("attributes = { if = { claim = \"d\", type = \"string\" } }", "is not the name of an attribute"),
        ("attributes = { department = { type = \"string\" } }", "needs `claim`"),
        ("colour = \"red\"", "[issuer.corp] has no key `colour`"),
        ("ca_file = \"../ca.pem\"", "\"../ca.pem\" is not a file beside this one"),
        ("ca_file = \"ca.pem\"", "`ca_file` names \"ca.pem\": there is no such file"),
        ("policies = [\"staff.cedar\", \"more.cedar\"]", "`policies` names \"more.cedar\": there is no such file"),
        ("policies = [\"staff.cedar\", \"staff.cedar\"]", "names \"staff.cedar\" twice"),
        ("policies = [\"/etc/passwd\"]", "is not a file beside this one"),
        ("entities = 7", "`entities` is a string in quotes"),
        ("schema = 2", "`schema` must be 1"),
        ("[issuer.Corp]", "accepted is"),
    ] {
        check(line, expected);
    }
    let found = parse_with("f", "schema = 1\n", &|_| None).expect_err("nothing is described");
    let said = found[0].to_string();
    assert!(
        said.contains("`environment = ") && said.contains("`service = ") && said.contains("`policies = "),
        "{said}"
    );
    let many = format!("schema = 1\npolicies = [{}]\n", "\"a\", ".repeat(257));
    assert!(reads(&many).expect_err("too many")[0].contains("accepted are 256"));
    let long = " ".repeat(DOCUMENT_BYTES + 1);
    let found = read_with("schema = 1\npolicies = [\"a\"]\n", &[("a", &long)]).expect_err("too long");
    assert!(found.len() == 1 && found[0].contains("accepted are at most 1048576 (1 MiB)"), "{found:?}");
}

#[test]
fn access_of_two_issuers_has_one_type_of_an_attribute_and_one_issuer_of_a_token() {
    let two = |issuer: &str, kind: &str| {
        format!(
            "{ACCESS}[issuer.other]\nissuer = \"{issuer}\"\naudience = [\"a\"]\nattributes = {{ department = {{ claim = \"d\", type = \"{kind}\" }} }}\n"
        )
    };
    let spec = reads(&two("https://other.example.com", "string")).expect("right");
    assert_eq!(spec.attribute_types().len(), 1);
    let found = reads(&two("https://other.example.com", "long")).expect_err("two types");
    assert!(found.len() == 1 && found[0].contains("`department` is \"string\" in [issuer.corp]"), "{found:?}");
    let found = reads(&two("https://login.example.com", "string")).expect_err("one token, two issuers");
    assert!(found.len() == 1 && found[0].contains("[issuer.corp] is https://login.example.com already"), "{found:?}");
}

#[test]
fn access_tells_of_all_mistakes_at_once_with_the_file_that_each_is_in() {
    let text = ACCESS.replace("refresh = \"1m\"", "refresh = \"1y\"");
    let policies = "permit (principal, action, resource)\n  when { principal is User && principal.wages > 7 };\n\npermit (principal, action == Action::\"fly\", resource);\n";
    let found = read_with(&text, &[("staff.cedar", policies), ("entities.json", "[{]")]).expect_err("wrong");
    let begins: Vec<&str> = found.iter().map(|mistake| mistake.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(begins[0], "conf/access.toml:10:11");
    assert!(begins[1].starts_with("conf/staff.cedar:2:") && begins[2].starts_with("conf/staff.cedar:4:"), "{found:?}");
    assert!(begins[3].starts_with("conf/entities.json"), "{found:?}");
    assert_eq!(begins.len(), 4, "{found:?}");
    // An attribute that could not be read is told once, and not by all who read it.
    let text = ACCESS.replace("type = \"string\"", "type = \"strng\"");
    let found = reads(&text).expect_err("wrong");
    assert!(found.len() == 1 && found[0].contains("did you mean \"string\"?"), "{found:?}");
}

#[test]
fn hostile_policies_without_end_are_refused() {
    let deep = format!("permit (principal, action, resource) when {{ {}1 }};", "(".repeat(20_000));
    let wide = "permit (principal, action, resource) when { context.foo };\n".repeat(300);
    for policies in [deep.as_str(), wide.as_str(), "\0", "\u{202e}"] {
        let found = read_with("schema = 1\npolicies = [\"a\"]\n", &[("a", policies)]).expect_err("wrong");
        assert!(found.len() <= 101, "{}", found.len());
    }
}

#[test]
fn hostile_h83_access_is_no_more_than_proxies_accept() {
    let issuer =
        |number: usize| format!("[issuer.i{number}]\nissuer = \"https://i{number}.example.com\"\naudience = [\"a\"]\n");
    let many = |count: usize| format!("schema = 1\n{}", (0..count).map(issuer).collect::<String>());
    assert_eq!(reads(&many(256)).expect("as many as proxies accept").issuers.len(), 256);
    let found = reads(&many(257)).expect_err("too many");
    assert!(found.len() == 1 && found[0].starts_with("conf/access.toml:2:"), "{found:?}");
    assert!(found[0].contains("257 issuers: accepted are at most 256"), "{found:?}");

    let comment = format!("//{}\n", "x".repeat(DOCUMENT_BYTES - 3));
    let names: Vec<String> = (0..9).map(|number| format!("p{number}")).collect();
    let beside: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), comment.as_str())).collect();
    let of = |count: usize| {
        let list: Vec<_> = names[..count].iter().map(|name| format!("\"{name}\"")).collect();
        format!("schema = 1\npolicies = [{}]\n", list.join(", "))
    };
    read_with(&of(8), &beside).expect("8 MiB are accepted");
    let found = read_with(&of(9), &beside).map(|_| ()).expect_err("too long");
    assert!(found.len() == 1 && found[0].starts_with("conf/access.toml:2:"), "{found:?}");
    assert!(found[0].contains("9437184 bytes together: accepted are at most 8388608 (8 MiB)"), "{found:?}");
}
