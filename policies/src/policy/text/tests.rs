use super::*;

fn pieces(text: &str) -> Vec<&str> {
    let pieces = policies("a.cedar", text).unwrap_or_else(|problems| panic!("{text}: {problems:#?}"));
    pieces.iter().map(|piece| piece.text).collect()
}

#[test]
fn a_document_is_cut_where_cedar_ends_policies() {
    let table: [(&str, &[&str]); 12] = [
        ("", &[]),
        (" \n\t\u{a0}// nothing; here", &[]),
        ("// a\r// b\r\n", &[]),
        ("a; b;", &["a;", "b;"]),
        ("a;b", &["a;", "b"]),
        ("a // x; y\n b;", &["a // x; y\n b;"]),
        ("a // x\r; b;", &["a // x\r;", "b;"]),
        ("// x\rb;", &["b;"]),
        ("a == \"x;y\"; b;", &["a == \"x;y\";", "b;"]),
        ("a == \"x\\\";y\"; b;", &["a == \"x\\\";y\";", "b;"]),
        ("a == \"// x\"; b;", &["a == \"// x\";", "b;"]),
        ("/a;", &["/a;"]),
    ];
    for (text, expected) in table {
        assert_eq!(pieces(text), expected, "{text:?}");
    }
}

/// What is cut here is what Cedar reads.
#[test]
fn cedar_finds_the_same_policies() {
    let one = "permit (principal, action, resource)";
    let texts = [
        format!("{one};{one};"),
        format!("// {one};\r{one};"),
        format!("// {one};\n{one};"),
        format!("{one} when {{ \"a;b\" == \"\\\"; // \" }}; // {one};"),
        format!("@id(\"x;\") {one} // ;\r\n unless {{ false }};\u{2028}{one};"),
    ];
    for text in texts {
        let set: cedar_policy::PolicySet = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(pieces(&text).len(), set.num_of_policies(), "{text:?}");
    }
}

#[test]
fn places_count_lines_and_characters_from_one() {
    for (text, at, expected) in
        [("", 0, (1, 1)), ("ab", 1, (1, 2)), ("a\nb", 2, (2, 1)), ("ä\nöx", 5, (2, 2)), ("a", 9, (1, 2))]
    {
        assert_eq!(place(text, at), expected, "{text:?} {at}");
    }
}

#[test]
fn what_would_be_too_much_to_read_is_refused() {
    let long = format!("a\n{};", "x".repeat(LONGEST));
    let deep = format!("\n {}{};", "[".repeat(DEEPEST + 1), "]".repeat(DEEPEST + 1));
    let chain = format!("a{};", ".a".repeat(MOST_OPERATORS + 1));
    let ifs = "if\n".repeat(MOST_IFS + 1);
    let table = [
        (chain.as_str(), (1, 1), "1001 characters of operators, accepted are 1000"),
        (ifs.as_str(), (1, 1), "9 times `if`, accepted are 8"),
        (long.as_str(), (1, 1), "bytes, accepted are 65536"),
        (deep.as_str(), (2, 2), "33 deep in each other, accepted are 32"),
        ("a; b == \"x;", (1, 4), "no end"),
        ("a \"\\", (1, 1), "no end"),
    ];
    for (text, at, message) in table {
        let problems = policies("a.cedar", text).expect_err("refused");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!((problems[0].line, problems[0].column), at, "{problems:?}");
        assert!(problems[0].message.contains(message), "{problems:?}");
    }
    assert_eq!(pieces(&"()".repeat(DEEPEST * 2)).len(), 1);
    assert_eq!(pieces(&"a.".repeat(MOST_OPERATORS)).len(), 1);
    // Only where Cedar sees them.
    let quiet = format!("iffy _if \"{}\" // {}", "if || ((".repeat(400), "if ".repeat(40));
    assert_eq!(pieces(&quiet).len(), 1);
}
